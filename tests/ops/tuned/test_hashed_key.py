"""Hashing keys: they work like other keys, and keys derived from them differ."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.dropout import dropout
from earthformer_jax.ops.tuned import choice
from earthformer_jax.ops.tuned.hashed_key import (
    hashed_bits,
    hashed_key,
    keep_mask,
    key_words,
)


@pytest.fixture(scope="module")
def key():
    return hashed_key(jax.random.key(0))


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_made_from_any_key(impl):
    first, other = (key_words(hashed_key(jax.random.key(n, impl=impl))) for n in (0, 1))
    assert not np.array_equal(first, other)


def test_its_words_are_its_data(key):
    np.testing.assert_array_equal(key_words(key), jax.random.key_data(key))
    assert key_words(jax.random.key(3)).shape == (2,)


def test_a_hashed_key_stays_as_it_is(key):
    assert hashed_key(key) is key


def test_other_backends_keep_their_keys(monkeypatch):
    monkeypatch.setattr(choice, "MEASURED", ())
    key = jax.random.key(0)
    assert hashed_key(key) is key


@pytest.mark.parametrize("shape", [(), (7,), (3, 4, 5)])
def test_dropout_drops_what_the_mask_says(key, shape):
    kept = keep_mask(shape, 0.5, key_words(key))
    np.testing.assert_array_equal(dropout(jnp.ones(shape), 0.5, key) > 0, kept)


def test_mask_of_exchanged_axes_is_the_transposed_mask(key):
    mask = keep_mask((3, 4, 5), 0.5, key_words(key))
    turned = keep_mask((3, 5, 4), 0.5, key_words(key), swap=True)
    np.testing.assert_array_equal(turned, mask.swapaxes(-1, -2))


def test_old_style_keys_have_words():
    assert key_words(jax.random.PRNGKey(3)).shape == (2,)


def test_derived_keys_differ(key):
    folded = [jax.random.fold_in(key, n) for n in range(1000)]
    split = list(jax.random.split(key, 1000))
    nested = [jax.random.fold_in(k, n) for k in folded[:30] for n in range(30)]
    words = {tuple(np.asarray(key_words(k))) for k in [key, *folded, *split, *nested]}
    assert len(words) == 1 + 1000 + 1000 + 900


def test_the_order_of_foldings_matters(key):
    there, back = (
        jax.random.fold_in(jax.random.fold_in(key, a), b) for a, b in ((1, 2), (2, 1))
    )
    assert not np.array_equal(key_words(there), key_words(back))


def test_bits_are_uniform(key):
    for width in (8, 16, 32):
        bits = np.asarray(jax.random.bits(key, (20_000,), f"uint{width}"), np.float64)
        assert abs(bits.mean() / 2**width - 0.5) < 0.01
    normal = np.asarray(jax.random.normal(key, (20_000,)))
    assert abs(normal.mean()) < 0.03
    assert abs(normal.std() - 1) < 0.02


def test_bits_of_layers_are_independent(key):
    position = jnp.arange(50_000, dtype=jnp.uint32)
    first, other = (
        np.asarray(hashed_bits(position, key_words(jax.random.fold_in(key, n))))
        for n in (0, 1)
    )
    a, b = ((x / 2**32 - 0.5) for x in (first, other))
    for x, y in ((a, b), (a[1:], b[:-1]), (a[1:], a[:-1])):
        assert abs(np.corrcoef(x, y)[0, 1]) < 5 / np.sqrt(len(x))


def test_keys_of_arrays_and_under_jit(key):
    keys = jax.random.split(key, (2, 3))
    assert keys.shape == (2, 3)
    drawn = jax.jit(jax.vmap(jax.vmap(lambda k: jax.random.uniform(k, (4,)))))(keys)
    assert len(np.unique(drawn)) == 24
