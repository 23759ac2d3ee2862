"""Dropout from hashed positions: its share, its independence, its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.dropout import draw_seed, dropout, keep_mask

SHAPE = (64, 50, 128)


@pytest.fixture(scope="module")
def seed():
    return draw_seed(jax.random.key(0))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_share(seed, rate):
    dropped = 1 - np.asarray(keep_mask(SHAPE, rate, seed)).mean()
    error = np.sqrt(rate * (1 - rate) / np.prod(SHAPE))
    assert abs(dropped - rate) < 4 * error


def test_neighbours_and_seeds_are_independent(seed):
    mask = np.asarray(keep_mask(SHAPE, 0.5, seed)).astype(float)
    other = np.asarray(keep_mask(SHAPE, 0.5, draw_seed(jax.random.key(1))))
    pairs = [(mask, other.astype(float))]
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


def test_rows_have_the_spread_of_independent_draws(seed):
    counts = np.asarray(keep_mask(SHAPE, 0.1, seed)).sum(axis=-1)
    expected = 128 * 0.1 * 0.9
    assert abs(counts.var() / expected - 1) < 0.1


def test_swapped_mask_is_the_transposed_mask(seed):
    mask = keep_mask((3, 4, 5), 0.5, seed)
    turned = keep_mask((3, 5, 4), 0.5, seed, swap=True)
    np.testing.assert_array_equal(turned, mask.swapaxes(-1, -2))


def test_value_and_gradient_drop_the_same(seed):
    x = jnp.ones((20, 30))
    y = dropout(x, 0.3, seed)
    gradient = jax.grad(lambda x: dropout(x, 0.3, seed).sum())(x)
    np.testing.assert_array_equal(y, gradient)
    assert set(np.unique(y).round(5)) == {0.0, np.float32(1 / 0.7).round(5)}


def test_nothing_and_everything(seed):
    x = jnp.ones(10)
    assert dropout(x, 0.0, seed) is x
    assert dropout(x, 0.5, None) is x
    np.testing.assert_array_equal(dropout(x, 1.0, seed), jnp.zeros(10))


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_is_a_share(seed, rate):
    with pytest.raises(ValueError, match=f"between 0 and 1; got {rate}"):
        dropout(jnp.ones(3), rate, seed)
