"""Batches of examples: from one or two sources, changed at random, many at a time."""

import numpy as np
import pytest

from earthformer_jax.data import source as source_lib
from earthformer_jax.data.reading.batches import Choice, Reader
from tests.data.reading.sources import Numbers, Together, add


def state(seed):
    return np.random.Generator(np.random.Philox(seed)).bit_generator.state


@pytest.mark.parametrize("kind", [Numbers, Together])
class TestReader:
    def test_order(self, kind):
        batch = Reader(kind())(Choice([5, 2, 99, 2]))
        np.testing.assert_array_equal(batch["number"], [5, 2, 99, 2])
        assert batch["inputs"].shape == (4, 1, 2, 2, 1)
        np.testing.assert_array_equal(batch["inputs"][:, 0, 1, 1, 0], [5, 2, 99, 2])

    def test_simulated_come_after_all_others(self, kind):
        reader = Reader(kind(10), kind(50))
        batch = reader(Choice([12, 3, 10, 9]))
        np.testing.assert_array_equal(batch["number"], [2, 3, 0, 9])

    def test_changed_at_random(self, kind):
        reader = Reader(kind(10), kind(50), add)
        numbers, states = [3, 11, 3], [state(0), state(1), state(2)]
        found = reader(Choice(numbers, states))["number"]
        drawn = [
            np.random.Generator(np.random.Philox(s)).integers(1000) for s in range(3)
        ]
        np.testing.assert_array_equal(found, np.array([3, 1, 3]) + drawn)


def test_selected_examples_together():
    selected = source_lib.Selected(Together(), np.array([4, 8, 15]))
    batch = source_lib.read_batch(selected, [2, 0])
    np.testing.assert_array_equal(batch["number"], [15, 4])
