"""Skill of an index by lead, on samples of windows, against closed forms."""

import numpy as np
import pytest
from scipy import stats

from earthformer_jax.metrics import bootstrap, enso, index_skill

RNG = np.random.default_rng(0)
WINDOWS, LEADS = 120, 5
TRUTH = RNG.normal(size=(WINDOWS, LEADS)).cumsum(axis=0)
FORECAST = np.stack(
    [TRUTH + RNG.normal(size=TRUTH.shape), RNG.normal(size=TRUTH.shape)]
)


class TestScores:
    def test_a_sample_is_scored_as_its_windows_repeated(self):
        counts = bootstrap.draw(WINDOWS, 24, 20, seed=0)
        r = index_skill.correlation(counts, FORECAST, TRUTH)
        error = index_skill.rmse(counts, FORECAST, TRUTH)
        for s in (0, 7, 20):
            drawn = np.repeat(np.arange(WINDOWS), counts[s].astype(int))
            for f, forecast in enumerate(FORECAST):
                for k in range(LEADS):
                    p, t = forecast[drawn, k], TRUTH[drawn, k]
                    np.testing.assert_allclose(
                        r[s, f, k], np.corrcoef(p, t)[0, 1], atol=1e-7
                    )
                    np.testing.assert_allclose(
                        error[s, f, k], np.sqrt(np.mean((p - t) ** 2))
                    )

    def test_the_streamed_correlation_is_the_same(self):
        truth = TRUTH.copy()
        truth[3:9, 1] = np.nan
        state = enso.moments(FORECAST[0], truth, np.ones(WINDOWS, bool))
        once = np.ones((1, WINDOWS))
        found = index_skill.correlation(once, FORECAST[:1], truth)[0, 0]
        np.testing.assert_allclose(found, enso.correlation(state), atol=1e-5)
        found = index_skill.rmse(once, FORECAST[:1], truth)[0, 0]
        np.testing.assert_allclose(found, enso.rmse(state), rtol=1e-4)

    def test_unknown_months_do_not_count(self):
        truth = TRUTH.copy()
        truth[:, 2] = np.nan
        truth[50:, 1] = np.nan
        once = np.ones((1, WINDOWS))
        r = index_skill.correlation(once, FORECAST, truth)[0]
        assert np.isnan(r[:, 2]).all()
        assert np.isnan(index_skill.rmse(once, FORECAST, truth)[0, :, 2]).all()
        expected = np.corrcoef(FORECAST[0, :50, 1], TRUTH[:50, 1])[0, 1]
        np.testing.assert_allclose(r[0, 1], expected, atol=1e-7)

    def test_a_constant_forecast_has_no_correlation(self):
        constant = np.full_like(FORECAST, 300.0)
        r = index_skill.correlation(np.ones((1, WINDOWS)), constant, TRUTH)
        np.testing.assert_array_equal(r, 0)

    def test_a_large_mean_does_no_harm(self):
        once = np.ones((1, WINDOWS))
        np.testing.assert_allclose(
            index_skill.correlation(once, FORECAST + 1e4, TRUTH + 1e4),
            index_skill.correlation(once, FORECAST, TRUTH),
            atol=1e-9,
        )

    def test_the_interval_of_a_correlation_is_fishers(self):
        """Independent normal pairs: atanh(r) has the standard error 1 / sqrt(n - 3)."""
        rng, n = np.random.default_rng(4), 600
        t = rng.normal(size=(n, 1))
        p = (0.6 * t + 0.8 * rng.normal(size=(n, 1)))[None]
        samples = index_skill.correlation(bootstrap.draw(n, 1, 8000, 5), p, t)[..., 0]
        z = np.arctanh(samples[0, 0]) + stats.norm.ppf([0.05, 0.95]) / np.sqrt(n - 3)
        np.testing.assert_allclose(
            bootstrap.interval(samples[:, 0], 0.9), np.tanh(z), atol=0.01
        )


class TestPairedDifference:
    def test_it_is_the_interval_of_the_differences(self):
        """As of a paired t test: the mean of d and its standard error."""
        rng, n = np.random.default_rng(6), 500
        hard = rng.normal(size=n) ** 2 * 5  # the same for both forecasts
        errors = np.stack([hard + rng.normal(size=n), hard + 0.2])[..., None]
        samples = index_skill.mean(bootstrap.draw(n, 1, 8000, 7), errors)[..., 0]
        gap = samples[:, 0] - samples[:, 1]
        d = errors[0, :, 0] - errors[1, :, 0]
        expected = stats.ttest_1samp(d, 0).confidence_interval(0.9)
        np.testing.assert_allclose(
            bootstrap.interval(gap, 0.9), list(expected), atol=0.006
        )
        unpaired = np.diff(bootstrap.interval(samples[:, 0], 0.9))
        assert np.diff(bootstrap.interval(gap, 0.9)) < unpaired / 4

    def test_equal_forecasts_do_not_differ(self):
        same = np.stack([FORECAST[0], FORECAST[0]])
        samples = index_skill.correlation(bootstrap.draw(120, 24, 50, 0), same, TRUTH)
        gap = bootstrap.interval(samples[:, 0] - samples[:, 1], 0.9)
        np.testing.assert_allclose(gap, 0, atol=1e-12)


def test_by_target_month():
    """A forecast that is right in January and opposite in July."""
    start = np.arange(WINDOWS) % 12
    target = (start[:, None] + np.arange(LEADS)) % 12
    truth = RNG.normal(size=(WINDOWS, LEADS))
    sign = np.where(target == 0, 1, np.where(target == 6, -1, 0))
    r, error = index_skill.by_target_month((sign * truth)[None], truth, start)
    assert r.shape == error.shape == (1, 12, LEADS)
    np.testing.assert_allclose(r[0, 0], 1, atol=1e-5)
    np.testing.assert_allclose(r[0, 6], -1, atol=1e-5)
    np.testing.assert_allclose(error[0, 0], 0, atol=1e-12)
    np.testing.assert_allclose(
        error[0, 6, 0], 2 * np.sqrt(np.mean(truth[start == 6, 0] ** 2))
    )


def test_few_years_have_no_correlation_by_month():
    start = np.arange(48) % 12
    r, error = index_skill.by_target_month(FORECAST[:, :48], TRUTH[:48], start)
    assert np.isnan(r).all() and np.isnan(error).all()


class TestCategories:
    def test_counts(self):
        forecast = np.array([-1.0, -0.5, 0.0, 0.49, 0.5, 2, 2])[None, :, None]
        observed = np.array([-1.0, 0.0, 0.0, 0.7, 0.5, -0.5, np.nan])[:, None]
        table = index_skill.hit_table(forecast, observed, 0.5)
        np.testing.assert_array_equal(table[0, 0], [[1, 1, 0], [0, 1, 1], [1, 0, 1]])

    def test_heidke_of_finleys_tornadoes(self):
        """Finley 1884: 28 hits, 72 false alarms, 23 misses, 2680 correct negatives."""
        correct, score = index_skill.heidke([[28, 72], [23, 2680]])
        np.testing.assert_allclose(correct, 2708 / 2803)
        np.testing.assert_allclose(score, 0.355, atol=5e-4)

    def test_perfect_chance_and_unknown(self):
        tables = [np.diag([3, 4, 5]), np.full((3, 3), 2), np.zeros((3, 3))]
        correct, score = index_skill.heidke(np.stack(tables))
        np.testing.assert_allclose(correct, [1, 1 / 3, np.nan])
        np.testing.assert_allclose(score, [1, 0, np.nan], atol=1e-12)
        assert np.isnan(index_skill.heidke(np.diag([0, 4, 0]))[1])

    def test_the_threshold_is_positive(self):
        with pytest.raises(ValueError, match="threshold=0 must be positive"):
            index_skill.hit_table(FORECAST, TRUTH, 0)
