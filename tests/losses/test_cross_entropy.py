"""Cross entropy of codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.losses.cross_entropy import cross_entropy

CODES = np.random.default_rng(0).integers(0, 5, (2, 3, 4, 2))
LOGITS = np.random.default_rng(1).normal(size=(*CODES.shape, 5)).astype(np.float32)


def test_is_the_mean_log_probability_of_each_example():
    probability = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    true = np.take_along_axis(probability, CODES[..., None], -1)[..., 0]
    np.testing.assert_allclose(
        cross_entropy(LOGITS, CODES), -np.log(true).mean(axis=(1, 2, 3)), rtol=1e-5
    )
    weights = np.random.default_rng(2).uniform(size=(1, 3, 4, 2))
    want = -(weights * np.log(true)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(cross_entropy(LOGITS, CODES, weights), want, rtol=1e-5)


def test_equal_probabilities_cost_the_logarithm_of_their_number():
    zeros = jnp.zeros_like(LOGITS, jnp.bfloat16)
    np.testing.assert_allclose(cross_entropy(zeros, CODES), np.log(5), rtol=1e-6)


def test_codes_without_weight_have_no_effect():
    weights = np.ones(CODES.shape)
    weights[1, 2] = 0
    slope = jax.grad(lambda x: cross_entropy(x, CODES, weights).sum())(
        jnp.asarray(LOGITS)
    )
    assert not np.any(slope[1, 2]) and np.all(np.any(slope[0], axis=-1))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"codes has shape \(2, 3, 4\): expected"):
        cross_entropy(LOGITS, CODES[..., 0])
    with pytest.raises(ValueError, match="codes is of type float32: expected integer"):
        cross_entropy(LOGITS, CODES.astype(np.float32))
