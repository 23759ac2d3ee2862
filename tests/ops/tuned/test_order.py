"""Flat rows, and an order of computation that changes no values."""

import jax
import numpy as np
import pytest

from earthformer_jax.ops.tuned.order import flatten_rows, materialize, schedule_after


def numbers(*shape):
    return jax.random.normal(jax.random.key(0), shape)


@pytest.mark.parametrize("shape", [(4,), (2, 1, 3, 5, 4)])
def test_flatten_rows(shape):
    x = numbers(*shape)
    np.testing.assert_array_equal(flatten_rows(x), x.reshape(-1, 4))


@pytest.mark.parametrize("value", [0.0, -3.0, np.inf, -np.inf])
def test_schedule_after_changes_nothing(value):
    x = numbers(2, 3)
    np.testing.assert_array_equal(schedule_after(np.full((2, 4, 5), value), x), x)


def test_materialize_returns_one_for_one_and_a_tuple_for_more():
    x, y = numbers(2), numbers(3)
    for function in (materialize.tuned, materialize.plain):
        np.testing.assert_array_equal(function(x), x)
        for have, want in zip(function(x, y), (x, y), strict=True):
            np.testing.assert_array_equal(have, want)
