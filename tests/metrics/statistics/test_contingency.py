import numpy as np
import pytest

from earthformer_jax.metrics.contract import dims_of
from earthformer_jax.metrics.statistics.contingency import Contingency


def field(rows):
    """One example and one lead time."""
    return np.asarray(rows, np.float32)[None, None, :, :, None]


FORECAST = field([[5, 0, 0, 0, 9], [0, 0, 0, 0, 0], [0, 0, 9, 0, 0]])
TRUTH = field([[0, 0, 5, 0, 0], [0, 5, 0, 0, 0], [9, 0, 9, 0, 0]])


def counts(statistic, **batch):
    found = statistic(FORECAST, {"targets": TRUTH, **batch})
    return np.stack([found[name][0, 0] for name in statistic.names])


def test_pixels_and_blocks_by_hand():
    """Blocks of 2: two rows and three columns of them, smaller at the far borders."""
    statistic = Contingency((5, 9), (1, 2))
    assert dims_of(statistic) == ("lead", "threshold", "pool")
    assert statistic.coords == {"threshold": (5, 9), "pool": (1, 2)}
    found = counts(statistic)  # [kinds, thresholds, pools]
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found[:, 0, 0], [1, 3, 2, 9])
    np.testing.assert_array_equal(found[:, 1, 0], [1, 1, 1, 12])
    np.testing.assert_array_equal(found[:, 0, 1], [2, 2, 1, 1])
    np.testing.assert_array_equal(found[:, 1, 1], [1, 1, 1, 3])


def test_an_event_that_lost_its_last_bit_is_one():
    near = 16 - np.array([1e-5, 1e-3], np.float32).reshape(1, 1, 1, 2, 1)
    found = Contingency((16,), (1,))(near, {"targets": 0 * near})
    assert found["false_alarms"].sum() == found["correct_negatives"].sum() == 1


def test_only_values_that_count_are_in_a_block():
    observed = np.ones(TRUTH.shape, bool)
    observed[0, 0, 0, 0] = observed[0, 0, :2, 4] = False
    found = counts(Contingency((5,), (2,)), observed=observed)[:, 0, 0]
    # The first block has no event of the forecast any more, the third no cell at all.
    np.testing.assert_array_equal(found, [1, 3, 0, 1])
    assert counts(Contingency((5,), (1, 2)), valid=np.zeros(1, bool)).sum() == 0


def test_regions_are_an_axis():
    left = np.arange(5) < 2
    regions = {"left": np.tile(left, (3, 1)), "all": np.ones((3, 5), bool)}
    statistic = Contingency((5,), (1, 4), regions=regions)
    assert dims_of(statistic) == ("lead", "region", "threshold", "pool")
    found = counts(statistic)
    np.testing.assert_array_equal(found[:, 0, 0, 0], [0, 2, 1, 3])
    np.testing.assert_array_equal(found[:, 0, 0, 1], [1, 0, 0, 0])
    np.testing.assert_array_equal(found[:, 1], counts(Contingency((5,), (1, 4))))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (((),), "thresholds"),
        (((1,), ()), "pools"),
        (((1,), (0,)), "pools"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Contingency(*arguments)


@pytest.mark.parametrize(
    "mask", [np.ones((5, 3), bool), np.zeros((3, 5), bool), np.ones((3, 5))]
)
def test_regions_that_are_none_are_refused(mask):
    with pytest.raises(ValueError, match="region 'here'"):
        counts(Contingency((5,), regions={"here": mask}))
