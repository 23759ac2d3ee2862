"""Skill of an index by lead, and block-bootstrap intervals, against closed forms."""

import numpy as np
import pytest
from scipy import stats

from earthformer_jax.metrics import enso, index_skill

RNG = np.random.default_rng(0)
WINDOWS, LEADS = 120, 5
TRUTH = RNG.normal(size=(WINDOWS, LEADS)).cumsum(axis=0)
FORECAST = np.stack(
    [TRUTH + RNG.normal(size=TRUTH.shape), RNG.normal(size=TRUTH.shape)]
)


class TestDraw:
    def test_every_sample_has_as_many_windows(self):
        counts = index_skill.draw(50, 12, 300, seed=0)
        assert counts.shape == (301, 50)
        np.testing.assert_array_equal(counts[0], 1)
        np.testing.assert_array_equal(counts.sum(axis=1), 50)
        assert len(np.unique(counts[1:], axis=0)) > 250

    def test_windows_are_drawn_in_blocks(self):
        """The 12 windows behind a first one have its count, on a circle of 50."""
        counts = index_skill.draw(48, 12, 200, seed=0)[1:]
        starts = np.maximum(counts - np.roll(counts, 1, axis=1), 0).sum(axis=1)
        assert starts.max() <= 4  # four blocks; fewer where one follows another

    def test_all_windows_are_drawn_equally_often(self):
        counts = index_skill.draw(50, 12, 4000, seed=1)[1:]
        np.testing.assert_allclose(counts.mean(axis=0), 1, atol=0.08)

    def test_the_spread_of_a_mean_is_that_of_the_block_sums(self):
        """Blocks are independent: variances of sums over circular blocks add up."""
        x, block = TRUTH[:, 0], 25
        samples = index_skill.draw(WINDOWS, block, 20_000, seed=2)[1:] @ x / WINDOWS

        def variance(length):
            circle = np.concatenate([x, x])
            return np.var([circle[i : i + length].sum() for i in range(WINDOWS)])

        expected = (4 * variance(25) + variance(20)) / WINDOWS**2
        np.testing.assert_allclose(np.var(samples), expected, rtol=0.05)
        np.testing.assert_allclose(np.mean(samples), np.mean(x), atol=0.05)

    def test_independent_windows_give_the_standard_error(self):
        x = RNG.normal(size=400)
        samples = index_skill.draw(400, 1, 10_000, seed=3) @ x / 400
        np.testing.assert_allclose(
            index_skill.interval(samples, 0.9),
            np.mean(x) + np.std(x) / 20 * stats.norm.ppf([0.05, 0.95]),
            atol=0.005,
        )

    def test_too_few_blocks_have_no_samples(self):
        assert len(index_skill.draw(143, 36, 100, seed=0)) == 1
        assert len(index_skill.draw(144, 36, 100, seed=0)) == 101

    @pytest.mark.parametrize("name", ["windows", "block", "samples"])
    def test_numbers_are_positive(self, name):
        numbers = {"windows": 9, "block": 2, "samples": 5} | {name: 0}
        with pytest.raises(ValueError, match=f"{name}=0 must be positive"):
            index_skill.draw(**numbers, seed=0)


class TestScores:
    def test_a_sample_is_scored_as_its_windows_repeated(self):
        counts = index_skill.draw(WINDOWS, 24, 20, seed=0)
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
        samples = index_skill.correlation(index_skill.draw(n, 1, 8000, 5), p, t)[..., 0]
        z = np.arctanh(samples[0, 0]) + stats.norm.ppf([0.05, 0.95]) / np.sqrt(n - 3)
        np.testing.assert_allclose(
            index_skill.interval(samples[:, 0], 0.9), np.tanh(z), atol=0.01
        )


class TestPairedDifference:
    def test_it_is_the_interval_of_the_differences(self):
        """As of a paired t test: the mean of d and its standard error."""
        rng, n = np.random.default_rng(6), 500
        hard = rng.normal(size=n) ** 2 * 5  # the same for both forecasts
        errors = np.stack([hard + rng.normal(size=n), hard + 0.2])[..., None]
        samples = index_skill.mean(index_skill.draw(n, 1, 8000, 7), errors)[..., 0]
        gap = samples[:, 0] - samples[:, 1]
        d = errors[0, :, 0] - errors[1, :, 0]
        expected = stats.ttest_1samp(d, 0).confidence_interval(0.9)
        np.testing.assert_allclose(
            index_skill.interval(gap, 0.9), list(expected), atol=0.006
        )
        unpaired = np.diff(index_skill.interval(samples[:, 0], 0.9))
        assert np.diff(index_skill.interval(gap, 0.9)) < unpaired / 4

    def test_equal_forecasts_do_not_differ(self):
        same = np.stack([FORECAST[0], FORECAST[0]])
        samples = index_skill.correlation(index_skill.draw(120, 24, 50, 0), same, TRUTH)
        gap = index_skill.interval(samples[:, 0] - samples[:, 1], 0.9)
        np.testing.assert_allclose(gap, 0, atol=1e-12)


class TestInterval:
    def test_without_samples_it_is_unknown(self):
        found = index_skill.interval(np.ones((1, 2, 3)), 0.9)
        assert found.shape == (2, 3, 2) and np.isnan(found).all()

    def test_the_score_itself_does_not_count(self):
        samples = np.concatenate([[1e9], np.arange(101.0)])
        np.testing.assert_allclose(index_skill.interval(samples, 0.9), [5, 95])

    def test_unknown_samples_are_left_out(self):
        samples = np.array([[0.0, 0], [1, np.nan], [1, np.nan], [np.nan, np.nan]])
        np.testing.assert_array_equal(
            index_skill.interval(samples, 0.5), [[1, 1], [np.nan, np.nan]]
        )

    def test_a_level_is_a_share(self):
        with pytest.raises(ValueError, match="level=90 is not between 0 and 1"):
            index_skill.interval(np.ones(3), 90)


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
