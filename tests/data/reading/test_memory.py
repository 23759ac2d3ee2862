"""Memory is used again only when nobody can see it."""

import numpy as np
import pytest

from earthformer_jax.data.reading import memory

SHAPE = (3, 2**20)


@pytest.fixture(autouse=True)
def _nothing_waits():
    memory._free.clear()


def address(x):
    return x.__array_interface__["data"][0]


def test_used_again_after_the_last_view():
    first = memory.empty(SHAPE, np.float32)
    first[...] = 1
    view = first[1]
    place = address(first)
    del first
    other = memory.empty(SHAPE, np.float32)
    other[...] = 2
    assert address(other) != place and view.min() == view.max() == 1
    del view
    assert address(memory.empty(SHAPE, np.float32)) == place


def test_other_shape_and_kind_of_the_same_size():
    place = address(memory.empty(SHAPE, np.float32))
    found = memory.empty((SHAPE[1], 12), np.uint8)
    assert address(found) == place
    assert found.shape == (SHAPE[1], 12) and found.dtype == np.uint8
    assert found.flags.c_contiguous and found.flags.writeable


def test_few_wait():
    many = [memory.empty((2**20 + i,), np.uint8) for i in range(2 * memory.KEPT)]
    del many
    assert len(memory._free) == memory.KEPT


def test_small_arrays_are_ordinary():
    assert memory.empty((3, 4), bool).base is None
