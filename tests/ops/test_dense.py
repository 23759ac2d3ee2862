"""Linear layers, GELU and layer normalisation against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from earthformer_jax.ops.dense import dense
from earthformer_jax.ops.gelu import gelu
from earthformer_jax.ops.norm import layer_norm
from earthformer_jax.ops.tuned.norm import layer_norm as tuned_layer_norm


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_dense():
    x, kernel, bias = numbers(2, 5, 8), numbers(8, 3, seed=1), numbers(3, seed=2)
    np.testing.assert_allclose(dense(x, kernel), x @ kernel, atol=1e-5)
    np.testing.assert_allclose(dense(x, kernel, bias), x @ kernel + bias, atol=1e-5)


def test_gelu():
    x = np.linspace(-12, 12, 1001, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), x * scipy.stats.norm.cdf(x), atol=1e-5)


def test_layer_norm():
    x = np.asarray(numbers(2, 3, 7) + 5, np.float64)
    scale, offset = numbers(7, seed=1), numbers(7, seed=2)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    want = (x - mean) / np.sqrt(variance + 1e-2) * scale + offset
    have = layer_norm(jnp.float32(x), scale, offset, 1e-2)
    np.testing.assert_allclose(have, want, atol=1e-5)


@pytest.mark.parametrize("function", [layer_norm, tuned_layer_norm])
def test_statistics_of_half_precision_are_wide(function):
    x = (numbers(4, 64) + 100).astype(jnp.bfloat16)
    have = function(x, jnp.ones(64), jnp.zeros(64), 1e-5)
    want = function(x.astype(jnp.float32), jnp.ones(64), jnp.zeros(64), 1e-5)
    assert have.dtype == jnp.bfloat16
    np.testing.assert_allclose(have.astype(jnp.float32), want, atol=0.02)
