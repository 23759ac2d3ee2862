import jax
import numpy as np
import pytest

from earthformer_jax.metrics.contract import dims_of
from earthformer_jax.metrics.scores import spatial
from earthformer_jax.metrics.statistics.fractions import Fractions, window_sums

RNG = np.random.default_rng(0)
FORECAST, TRUTH = RNG.normal(size=(2, 3, 2, 9, 11, 1)).astype(np.float32)


def sums_of(statistic, forecast, truth, **batch):
    """In one program, which is quicker than its parts."""
    return jax.device_get(jax.jit(statistic)(forecast, {"targets": truth, **batch}))


def brute(forecast, truth, keep, size):
    """Sums of one frame by their definition."""
    height, width = truth.shape
    half, found = size // 2, np.zeros(3)
    for i in range(height):
        for j in range(width):
            if keep[i, j]:
                at = np.s_[
                    max(i - half, 0) : i + half + 1, max(j - half, 0) : j + half + 1
                ]
                p, t = ((x & keep)[at].sum() / size**2 for x in (forecast, truth))
                found += [(p - t) ** 2, p**2, t**2]
    return found


def test_sums_by_definition():
    statistic = Fractions((-1.0, 1.0), (1, 3, 7, 33), scale=2.0, offset=0.5)
    observed = RNG.random(TRUTH.shape) > 0.3
    truth = np.where(observed, TRUTH, np.nan)
    found = sums_of(statistic, FORECAST, truth, observed=observed)
    assert dims_of(statistic) == ("lead", "threshold", "window")
    assert statistic.coords == {"threshold": (-1.0, 1.0), "window": (1, 3, 7, 33)}
    for i, threshold in enumerate(statistic.thresholds):
        p, t = (2 * x[1, 1, ..., 0] + 0.5 >= threshold for x in (FORECAST, truth))
        keep = observed[1, 1, ..., 0]
        for j, size in enumerate(statistic.windows):
            names = ("difference", "forecast", "target")
            got = [found[name][1, 1, i, j] for name in names]
            np.testing.assert_allclose(got, brute(p, t, keep, size), rtol=1e-6)
            assert found["events"][1, 1, i, j] == np.sum(t & keep)
            assert found["cells"][1, 1, i, j] == keep.sum()


def test_sums_over_windows_of_any_width():
    x = RNG.integers(0, 2, (2, 20, 30)).astype(np.int32)
    sizes = (1, 3, 5, 7, 33, 183)
    found = jax.jit(lambda x: [window_sums(x, n) for n in sizes])(x)
    for size, sums in zip(sizes, found, strict=True):
        half = size // 2
        wide = np.pad(x, ((0, 0), (half, half), (half, half)))
        for axis in (1, 2):
            wide = np.lib.stride_tricks.sliding_window_view(wide, size, axis).sum(-1)
        np.testing.assert_array_equal(sums, wide)


def test_windows_full_of_events_are_counted_exactly():
    """181 x 181 is the largest count that two bytes hold."""
    ones = np.ones((1, 1, 200, 200, 1), np.float32)
    found = sums_of(Fractions((0.5,), (181, 183)), ones, ones)
    for j, n in enumerate((181, 183)):
        along = np.minimum(np.arange(200), n // 2) + np.minimum(
            np.arange(199, -1, -1), n // 2
        )
        want = np.sum(np.outer(along + 1, along + 1) ** 2.0) / n**4
        np.testing.assert_allclose(found["target"][0, 0, 0, j], want, rtol=1e-6)
        assert found["difference"][0, 0, 0, j] == 0


def test_a_border_that_is_not_observed_is_as_if_it_were_not_there():
    statistic = Fractions((0.3,), (1, 5))
    observed = np.zeros(TRUTH.shape, bool)
    observed[:, :, 2:8, 3:] = True
    found = sums_of(statistic, FORECAST, TRUTH, observed=observed)
    inner = np.s_[:, :, 2:8, 3:]
    want = sums_of(statistic, FORECAST[inner], TRUTH[inner])
    for name in statistic.names:
        np.testing.assert_allclose(found[name], want[name], rtol=1e-6)


def test_a_forecast_that_is_not_a_number_is_not_an_event():
    statistic, forecast = Fractions((0.3,), (1, 5)), FORECAST.copy()
    forecast[:, :, 4, 5] = np.nan
    found = sums_of(statistic, forecast, TRUTH)
    want = sums_of(statistic, np.nan_to_num(forecast, nan=-9), TRUTH)
    for name in statistic.names:
        np.testing.assert_array_equal(found[name], want[name])


def test_padding_and_channels():
    statistic = Fractions((0.3,), (1, 5))
    two = [np.concatenate([x, x[::-1]], axis=-1) for x in (FORECAST, TRUTH)]
    found = sums_of(statistic, *two, valid=np.arange(3) < 2)
    alone = sums_of(statistic, FORECAST, TRUTH)
    for name in statistic.names:
        want = alone[name] + alone[name][::-1]
        np.testing.assert_allclose(found[name][:2], want[:2], rtol=1e-6)
        assert not np.any(found[name][2])


def test_scores_of_rain_in_the_wrong_place():
    """A line that is moved by 4 cells is found in windows that are wide enough."""
    truth = np.zeros((1, 1, 64, 64, 1), np.float32)
    truth[:, :, :, 32] = 1
    statistic = Fractions((0.5,), (1, 3, 9, 17, 33))
    sums = sums_of(statistic, np.roll(truth, 4, axis=3), truth)
    score = spatial.fss(sums)[0, 0, 0]
    assert score[0] == 0 and np.all(np.diff(score) >= 0) and score[-1] > 0.85
    # In a row, 9 - 4 of the 9 windows that hold one line also hold the other.
    assert score[2] == pytest.approx(5 / 9, abs=1e-6)
    np.testing.assert_allclose(spatial.useful_fss(sums), 0.5 + 1 / 128)
    found = spatial.useful_scale(sums, statistic.windows)
    assert found.shape == (1, 1, 1, 1) and found[0, 0, 0, 0] == 9
    with pytest.raises(ValueError, match=r"windows=\(1, 3\): expected one for each"):
        spatial.useful_scale(sums, (1, 3))


def test_scores_without_events():
    nothing = np.zeros((1, 1, 5, 5, 1), np.float32)
    statistic = Fractions((0.5,), (1, 3))
    score = spatial.fss(sums_of(statistic, nothing, nothing))
    assert np.isnan(score).all()
    sums = sums_of(statistic, nothing + 1, nothing)
    np.testing.assert_array_equal(spatial.fss(sums), np.zeros((1, 1, 1, 2)))
    sums = sums_of(statistic, nothing, nothing + 1)
    np.testing.assert_array_equal(spatial.fss(sums), np.zeros((1, 1, 1, 2)))
    assert np.isnan(spatial.useful_scale(sums, (1, 3))).all()
    # Of nothing but events a useful forecast misses none.
    sums = sums_of(statistic, nothing + 1, nothing + 1)
    np.testing.assert_array_equal(spatial.useful_scale(sums, (1, 3)), [[[[1]]]])


@pytest.mark.parametrize(
    "arguments, words",
    [
        (((),), "thresholds"),
        (((1.0,), ()), "windows"),
        (((1.0,), (4,)), "odd widths"),
        (((1.0,), (-1,)), "odd widths"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Fractions(*arguments)
