"""The codebook: nearest codes, moving averages, revival of dead codes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.tokens import codebook as lib
from earthformer_jax.models.tokens.codebook import Codebook

RNGS = {"sampling": jax.random.key(1)}


def state_of(codes, share):
    """The state whose codes are these, up to the smoothing."""
    codes, share = np.asarray(codes, np.float32), np.asarray(share, np.float32)
    return {"batch_stats": {"share": share, "total": codes * share[:, None]}}


def moved(book, state, x):
    apply = jax.jit(
        functools.partial(book.apply, train=True, rngs=RNGS, mutable=["batch_stats"])
    )
    (numbers, chosen), new = apply(state, x)
    return numbers, chosen, new["batch_stats"]


def test_nearest_is_that_of_a_loop():
    random = np.random.default_rng(0)
    x, codes = random.normal(size=(3, 5, 2)), random.normal(size=(7, 2))
    want = [[np.argmin(((v - codes) ** 2).sum(-1)) for v in row] for row in x]
    have = lib.nearest(jnp.asarray(x), jnp.asarray(codes))
    np.testing.assert_array_equal(have, want)
    assert have.dtype == jnp.int32


def test_of_equally_near_codes_the_first():
    codes = jnp.asarray([[1.0], [-1.0], [1.0]])
    np.testing.assert_array_equal(lib.nearest(jnp.asarray([[0.0], [2.0]]), codes), 0)


@pytest.mark.parametrize(
    "share, codes", [([1, 0, 0, 0], 1), ([0.25] * 4, 4), ([0.5, 0.5, 0, 0], 2)]
)
def test_perplexity_of_equally_frequent_codes(share, codes):
    share = jnp.asarray(share, jnp.float32)
    np.testing.assert_allclose(lib.perplexity(share), codes, rtol=1e-6)
    assert lib.usage(share) == codes / 4


def test_a_step_is_a_moving_average():
    book = Codebook(2, 1, decay=0.75, revive_below=0.0)
    state = state_of([[0.0], [10.0]], [0.5, 0.5])
    numbers, chosen, new = moved(book, state, jnp.asarray([[1.0], [2.0], [8.0], [2.0]]))
    np.testing.assert_array_equal(numbers, [0, 0, 1, 0])
    np.testing.assert_allclose(chosen.ravel(), [0, 0, 10, 0], rtol=1e-5)
    # 0.75 old + 0.25 new, as shares of all four positions.
    np.testing.assert_allclose(new["share"], [0.5625, 0.4375], rtol=1e-6)
    np.testing.assert_allclose(new["total"].ravel(), [0.3125, 4.25], rtol=1e-6)
    codes = lib.vectors(new["share"], new["total"])
    np.testing.assert_allclose(codes.ravel(), [5 / 9, 68 / 7], rtol=1e-5)


def test_the_mean_over_parts_of_a_batch_is_that_of_the_batch():
    book = Codebook(3, 2, revive_below=0.0)
    x = jax.random.normal(jax.random.key(0), (4, 5, 2))
    state = state_of(np.eye(3, 2), [0.3, 0.3, 0.4])
    _, _, whole = moved(book, state, x)
    parts = [moved(book, state, part)[2] for part in jnp.split(x, 2)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), mean, whole)


def test_dead_codes_become_vectors_of_the_batch():
    book = Codebook(4, 2, revive_below=0.05)
    state = state_of([[0, 0], [9, 9], [9, -9], [5, 5]], [1.0, 0.0126, 0.01, 0.02])
    x = 0.1 * jax.random.normal(jax.random.key(0), (6, 2))
    _, _, new = moved(book, state, x)
    codes = np.asarray(lib.vectors(new["share"], new["total"]))
    rows = np.asarray(x)
    for number in (1, 2):  # 0.99 * 0.0126 and 0.99 * 0.01 are less than 0.05 / 4
        assert np.abs(codes[number] - rows).max(axis=-1).min() < 1e-4
    np.testing.assert_allclose(codes[3], 5, rtol=1e-3)


def test_the_first_batch_replaces_the_untrained_codes():
    book = Codebook(8, 2)
    x = 100 + jax.random.normal(jax.random.key(0), (64, 2))
    state = jax.jit(book.init)(jax.random.key(2), x)
    assert np.abs(np.asarray(book.apply(state, method="vectors"))).max() < 10
    _, _, new = moved(book, state, x)
    codes = lib.vectors(new["share"], new["total"])
    np.testing.assert_allclose(codes, 100, atol=5)


def test_no_vector_is_ever_infinite():
    share, total = jnp.asarray([0.0, 1.0]), jnp.asarray([[0.0], [3.0]])
    np.testing.assert_allclose(lib.vectors(share, total).ravel(), [0, 3], rtol=1e-5)
    book = Codebook(2, 1, decay=0.0, revive_below=0.0)
    state = state_of([[0.0], [10.0]], [0.5, 0.5])
    _, _, new = moved(book, state, jnp.zeros((3, 1)))
    assert np.isfinite(lib.vectors(new["share"], new["total"])).all()
