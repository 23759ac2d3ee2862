import numpy as np
import pytest

from earthformer_jax.metrics.scores import categorical

TABLE = dict(hits=28, misses=23, false_alarms=72, correct_negatives=2680)


def test_the_tornadoes_of_finley():
    """The table of 1884, with the scores of Wilks 2019, example 9.1."""
    finley = dict(csi=0.228, pod=0.549, far=0.720, success_ratio=0.280)
    finley |= dict(frequency_bias=1.96, hss=0.355, ets=0.216)
    for name, value in finley.items():
        found = getattr(categorical, name)({k: np.array(v) for k, v in TABLE.items()})
        assert found == pytest.approx(value, abs=5e-3), name


@pytest.mark.parametrize(
    "table, defined",
    [
        ((0, 0, 0, 9), {}),  # no event in either
        ((9, 0, 0, 0), dict(csi=1, pod=1, far=0, success_ratio=1, frequency_bias=1)),
        ((0, 9, 0, 0), dict(csi=0, pod=0, frequency_bias=0, ets=0, hss=0)),
        ((0, 0, 9, 0), dict(csi=0, far=1, success_ratio=0, ets=0, hss=0)),
        (
            (4, 0, 0, 5),
            dict(csi=1, pod=1, far=0, success_ratio=1)
            | dict(frequency_bias=1, ets=1, hss=1),
        ),
        ((0, 0, 0, 0), {}),
    ],
)
def test_degenerate_tables(table, defined):
    counts = {k: np.array(v) for k, v in zip(TABLE, table, strict=True)}
    for name in (
        *("csi", "pod", "far", "success_ratio", "frequency_bias", "ets", "hss"),
    ):
        found = getattr(categorical, name)(counts)
        np.testing.assert_equal(float(found), defined.get(name, np.nan), name)


def test_counts_of_an_archive_do_not_overflow():
    counts = {k: np.array([[v]], np.int64) * 10**7 for k, v in TABLE.items()}
    small = {k: np.array([[v]]) for k, v in TABLE.items()}
    for score in (categorical.hss, categorical.ets, categorical.csi):
        np.testing.assert_allclose(score(counts), score(small), rtol=1e-12)
