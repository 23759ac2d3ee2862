"""Recall of past states: against a NumPy loop, and with partly filled buffers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.global_attention import recall


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def by_loops(query, history):
    found = np.zeros(query.shape)
    for b, *at in np.ndindex(query.shape[:-1]):
        keys = history[b].reshape(-1, history.shape[-1]).astype(np.float64)
        weights = np.exp(keys @ query[(b, *at)])
        found[(b, *at)] = weights @ keys / weights.sum()
    return found


def test_every_position_of_every_state():
    query, history = draw(2, 2, 3, 4, 5), draw(2, 6, 3, 4, 5, seed=1)
    have = recall(query, history)
    np.testing.assert_allclose(have, by_loops(query, history), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("known", [1, 2, 5])
def test_a_part_of_the_buffer(known):
    query, history = draw(1, 2, 2, 3, 4), draw(1, 6, 2, 3, 4, seed=1)

    def compute(history, known):
        return recall(query, history, known)

    have, pull = jax.vjp(
        jax.jit(functools.partial(compute, known=jnp.int32(known))), 100 * history
    )
    want, pull_part = jax.vjp(lambda h: recall(query, h), 100 * history[:, :known])
    np.testing.assert_allclose(have, want, rtol=1e-5)
    (grad,), (grad_part,) = pull(jnp.ones_like(have)), pull_part(jnp.ones_like(want))
    np.testing.assert_allclose(grad[:, :known], grad_part, rtol=1e-4, atol=1e-5)
    assert not np.abs(grad[:, known:]).any()


def test_one_state_of_one_position_is_found_whatever_is_asked():
    history = draw(2, 1, 1, 1, 4)
    have = recall(draw(2, 3, 1, 1, 4, seed=1), history)
    np.testing.assert_allclose(have, np.repeat(history, 3, axis=1), rtol=1e-6)


def test_low_precision_sums_in_float32():
    query, history = draw(1, 2, 4, 4, 8), draw(1, 8, 4, 4, 8, seed=1)
    have = recall(query, history.astype(jnp.bfloat16))
    assert have.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        have.astype(np.float32), by_loops(query, history), atol=0.05
    )
