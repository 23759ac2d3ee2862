"""Fields as 16-bit integers."""

import numpy as np
import pytest

from earthformer_jax.forecast import packing


@pytest.mark.parametrize(
    ("least", "most"), [(0, 1), (-3e5, 7e8), (101325, 101326), (1e-20, 3e-20), (-1, 0)]
)
def test_the_error_is_below_1_65000_of_the_range(least, most):
    packed = packing.between(least, most)
    values = np.linspace(least, most, 100001)
    integers = packed.encode(values)
    assert packing.MISSING not in integers
    error = np.abs(packed.offset + packed.scale * integers - values)
    assert error.max() <= (most - least) / 65000


def test_nothing_but_one_value():
    for value in (0.0, -273.15, 1e30):
        packed = packing.between(value, value)
        integers = packed.encode(np.array([value, np.nan], np.float64))
        assert integers.tolist() == [0, packing.MISSING]
        assert packed.offset + packed.scale * integers[0] == value


def test_no_values():
    packed = packing.between(np.inf, -np.inf)
    assert packed.encode(np.array([np.nan])).tolist() == [packing.MISSING]
