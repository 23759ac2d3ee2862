"""Keys and numbers are those of JAX, bit for bit."""

import jax
import numpy as np
import pytest

from earthformer_jax.data.mnist import counter_random


def jax_key(seed):
    return jax.random.key(seed, impl="threefry2x32")


def words(key):
    return np.asarray(jax.random.key_data(key))


def test_threefry_of_the_paper():
    """The first known answers of the authors' own tests."""
    found = counter_random.threefry(np.zeros(2, np.uint32), np.zeros(2, np.uint32))
    assert [f"{x:08x}" for x in found] == ["6b200159", "99ba4efe"]
    ones = np.full(2, 0xFFFFFFFF, np.uint32)
    found = counter_random.threefry(ones, ones)
    assert [f"{x:08x}" for x in found] == ["1cb996fc", "bb002be7"]


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_keys(seed):
    key = jax_key(seed)
    np.testing.assert_array_equal(counter_random.key(seed), words(key))
    numbers = np.array([0, 5, 2**31 + 3], np.uint32)
    found = counter_random.fold_in(counter_random.key(seed), numbers)
    for number, each in zip(numbers, found, strict=True):
        expected = jax.random.fold_in(key, number)
        np.testing.assert_array_equal(each, words(expected))
        parts = counter_random.split(each, 3)
        np.testing.assert_array_equal(parts, words(jax.random.split(expected, 3)))


@pytest.mark.parametrize("count", [1, 7, 1500, 40_000])
def test_numbers(count):
    key = jax_key(3)
    words_of_key = counter_random.key(3)
    drawn = counter_random.bits(words_of_key, 6)
    np.testing.assert_array_equal(drawn, jax.random.bits(key, 6))
    for high in (1.0, 2 * np.pi, 0.3):
        np.testing.assert_array_equal(
            counter_random.as_uniform(drawn, high),
            jax.random.uniform(key, 6, maxval=high),
        )
    higher, lower = (
        counter_random.bits(part, 6) for part in counter_random.split(words_of_key, 2)
    )
    np.testing.assert_array_equal(
        counter_random.as_integer(higher, lower, count),
        jax.random.randint(key, 6, 0, count),
    )
