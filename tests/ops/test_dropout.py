"""Dropout: its share, its independence, its gradient, with both kinds of keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.dropout import dropout
from earthformer_jax.ops.tuned.hashed_key import hashed_key

SHAPE = (64, 50, 128)


@pytest.fixture(scope="module", params=["threefry", "hashed"])
def key(request):
    key = jax.random.key(0)
    return hashed_key(key) if request.param == "hashed" else key


def kept(rate, key):
    return np.asarray(dropout(jnp.ones(SHAPE), rate, key)) > 0


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.9])
def test_share(key, rate):
    error = np.sqrt(rate * (1 - rate) / np.prod(SHAPE))
    assert abs(1 - kept(rate, key).mean() - rate) < 4 * error


def test_neighbours_and_keys_are_independent(key):
    mask = kept(0.5, key).astype(float)
    pairs = [(mask, kept(0.5, jax.random.fold_in(key, 1)).astype(float))]
    for axis in range(3):
        n = mask.shape[axis]
        for step in (1, 2, 16):
            first, second = (
                np.take(mask, range(a, n + a - step), axis=axis) for a in (0, step)
            )
            pairs.append((first, second))
    for a, b in pairs:
        correlation = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(correlation) < 5 / np.sqrt(a.size)


def test_rows_have_the_spread_of_independent_draws(key):
    counts = kept(0.1, key).sum(axis=-1)
    expected = 128 * 0.1 * 0.9
    assert abs(counts.var() / expected - 1) < 0.1


def test_value_and_gradient_drop_the_same(key):
    x = jnp.ones((20, 30))
    y = dropout(x, 0.3, key)
    gradient = jax.grad(lambda x: dropout(x, 0.3, key).sum())(x)
    np.testing.assert_array_equal(y, gradient)
    assert set(np.unique(y).round(5)) == {0.0, np.float32(1 / 0.7).round(5)}


def test_nothing_and_everything(key):
    x = jnp.ones(10)
    assert dropout(x, 0.0, key) is x
    assert dropout(x, 0.5, None) is x
    np.testing.assert_array_equal(dropout(x, 1.0, key), jnp.zeros(10))


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_is_a_share(key, rate):
    with pytest.raises(ValueError, match=f"rate={rate}"):
        dropout(jnp.ones(3), rate, key)
