from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthformer_jax.metrics.calibration import matching
from earthformer_jax.metrics.precipitation import RainScores

THRESHOLDS = (16, 74, 133)
DISTORTIONS = {
    "too weak": lambda x: 0.3 * x,
    "too strong": lambda x: 40 + 1.2 * x,
    "curved": lambda x: 255 * (x / 255) ** 1.5,
    "below zero": lambda x: x - 60,
}


def rain(seed=0, shape=(4, 3, 16, 16, 1)):
    """Codes of which most are 0."""
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 255, shape) * (rng.random(shape) < 0.3)).astype(np.float32)


def matched(forecast, truth, keep=None, thresholds=THRESHOLDS, on=None):
    """A forecast that is matched; fitted on other examples if they are given."""
    keep = np.ones(truth.shape, bool) if keep is None else keep
    ours, theirs = (forecast, truth) if on is None else on
    every = np.ones(theirs.shape, bool) if on is not None else keep
    counts = matching.counts(ours, every), matching.counts(theirs, every)
    levels = matching.fit(counts[0], counts[1], thresholds)
    return levels, matching.apply(forecast, levels, thresholds)


def events(codes, thresholds=THRESHOLDS):
    """bool `[m, ...]`."""
    return np.stack([codes >= t for t in thresholds])


def scores(forecast, truth, thresholds=THRESHOLDS) -> Any:
    metric = RainScores(thresholds=thresholds)
    state = metric.update(metric.init(), forecast / 255, {"targets": truth / 255})
    return metric.compute(state)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_distortion_of_the_truth_becomes_the_truth(name):
    truth = rain()
    forecast = DISTORTIONS[name](truth)
    assert scores(forecast, truth)["csi_m"] < 0.9
    _, made = matched(forecast, truth)
    found = scores(made, truth)
    assert found["csi_m"] == pytest.approx(1, abs=1e-5)
    assert found["bias_m"] == 1
    # So it does on examples that it was not fitted on.
    other = rain(1)
    _, made = matched(DISTORTIONS[name](other), other, on=(forecast, truth))
    assert scores(made, other)["csi_m"] > 0.97


def test_a_calibrated_forecast_keeps_its_levels():
    truth = rain()
    forecast = truth[::-1, :, ::-1]  # the same values elsewhere
    levels, made = matched(forecast, truth)
    np.testing.assert_array_equal(levels, np.tile(THRESHOLDS, (3, 1)))
    np.testing.assert_array_equal(events(made), events(forecast))
    assert scores(made, truth)["csi_m"] == scores(forecast, truth)["csi_m"]


def test_by_hand():
    """Observed from 100 on: 2 of 8. The two strongest of the forecast are 40, 50."""
    truth = np.array([0, 0, 0, 0, 10, 20, 100, 200.0]).reshape(1, 1, 2, 4, 1)
    forecast = np.array([0, 0, 50, 0, 10, 20, 40, 30.0]).reshape(truth.shape)
    levels, made = matched(forecast, truth, thresholds=(100,))
    assert 30 < levels[0, 0] <= 40
    np.testing.assert_array_equal(made.ravel() >= 100, forecast.ravel() >= 40)
    assert set(made.ravel()) == {matching.LEAST, 100}


def test_leads_have_their_own_levels():
    truth = np.tile(rain(shape=(2, 1, 16, 16, 1)), (1, 2, 1, 1, 1))
    forecast = truth * np.array([1, 0.5]).reshape(1, 2, 1, 1, 1)
    levels, made = matched(forecast, truth)
    np.testing.assert_array_equal(levels[0], THRESHOLDS)
    assert np.all(levels[1] < levels[0])
    np.testing.assert_array_equal(events(made), events(truth))
    with pytest.raises(ValueError, match="codes has 1 lead times: expected 2"):
        matching.apply(forecast[:, :1], levels, THRESHOLDS)


class TestDegenerate:
    def test_no_rain_at_all(self):
        dry = np.zeros((2, 1, 8, 8, 1), np.float32)
        levels, made = matched(dry, dry)
        np.testing.assert_array_equal(levels[0], THRESHOLDS)
        assert not events(made).any()
        # Rain that is never observed is never forecast, however strong.
        for strong in (200.0, 400.0):
            _, made = matched(dry + np.float32(strong), dry)
            assert not events(made).any()

    def test_ties_at_zero_stay_dry(self):
        """Observed in 3 of 4 cells and forecast in 1 of 4: the others are all 0."""
        truth = np.array([0, 20, 30, 40.0]).reshape(1, 1, 2, 2, 1)
        forecast = np.array([0, 0, 0, 20.0]).reshape(truth.shape)
        _, made = matched(forecast, truth, thresholds=(16,))
        np.testing.assert_array_equal(made >= 16, forecast >= 16)

    def test_a_constant_forecast(self):
        truth = rain()
        for value in (0, 16, 100):
            _, made = matched(np.full_like(truth, value), truth)
            assert not events(made).any()
        _, made = matched(np.zeros_like(truth), truth + 200)  # events everywhere
        assert events(made).all()

    def test_nan_is_no_event(self):
        truth = rain()
        forecast = truth.copy()
        forecast[0, :, :4] = np.nan
        _, made = matched(forecast, truth)
        assert not events(made)[:, 0, :, :4].any()

    def test_nothing_to_fit_on(self):
        nothing = np.zeros((2, matching.BINS), np.int64)
        levels = matching.fit(nothing, nothing, THRESHOLDS)
        np.testing.assert_array_equal(levels, np.tile(THRESHOLDS, (2, 1)))

    def test_refused(self):
        one, two = np.eye(1, matching.BINS, 5, int), np.zeros((1, matching.BINS), int)
        with pytest.raises(ValueError, match="expected counts of the same examples"):
            matching.fit(one, two, THRESHOLDS)
        with pytest.raises(ValueError, match="not increasing"):
            matching.fit(one, one, (74, 16))


def test_only_what_counts_is_counted():
    truth = rain()
    keep = np.random.default_rng(3).random(truth.shape) < 0.5
    found = matching.counts(truth, keep)
    assert found.shape == (3, matching.BINS)
    np.testing.assert_array_equal(found.sum(axis=1), keep.sum(axis=(0, 2, 3, 4)))
    junk = np.where(keep, truth, 999)
    np.testing.assert_array_equal(matching.counts(junk, keep), found)


def test_counts_add_up():
    truth, every = rain(), np.ones((4, 3, 16, 16, 1), bool)
    parts = sum(matching.counts(truth[i : i + 1], every[:1]) for i in range(4))
    np.testing.assert_array_equal(parts, matching.counts(truth, every))


def test_codes_that_lost_their_last_bit_stay_at_their_thresholds():
    truth = rain()
    normalised = ((truth - np.float32(33.44)) / np.float32(47.54)).astype(np.float32)
    back = normalised * np.float32(47.54) + np.float32(33.44)
    assert np.any(back != truth)
    levels, _ = matched(back, truth)
    np.testing.assert_array_equal(levels, np.tile(THRESHOLDS, (3, 1)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 3), st.floats(-60, 60), st.floats(0, 40))
def test_levels_are_in_order_and_frequencies_are_met(seed, scale, offset, noise):
    rng = np.random.default_rng(seed)
    truth = rain(seed, (1, 1, 16, 16, 1))
    forecast = offset + scale * truth + noise * rng.standard_normal(truth.shape)
    levels, made = matched(forecast.astype(np.float32), truth)
    assert np.all(np.diff(levels) >= 0)
    order = np.argsort(forecast, axis=None)
    assert np.all(np.diff(made.ravel()[order]) >= 0)  # a monotone map
    if noise > 1 and np.all(
        np.abs(forecast - 128) < 192
    ):  # hardly two values are equal
        wanted = events(truth).sum(axis=(1, 2, 3, 4, 5))
        found = events(made).sum(axis=(1, 2, 3, 4, 5))
        np.testing.assert_allclose(found, wanted, atol=4)
