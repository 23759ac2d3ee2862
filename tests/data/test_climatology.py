"""Mean cycles of the year and the day."""

import numpy as np
import pytest

from earthformer_jax.data import climatology as climatology_lib
from earthformer_jax.data.climatology import Climatology, fit_climatology
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.times import DAY
from tests.data import cube_files
from tests.data.cube_files import minutes

HOUR = 60


class TestCycles:
    def test_are_orthogonal(self):
        """Over whole years of whole days, as Fourier series are."""
        basis = climatology_lib.cycles(minutes(4 * 365, 6 * HOUR), 2, 1)
        assert basis.shape == (1460, 15)
        gram = basis.T @ basis / 1460
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-10)
        np.testing.assert_allclose(np.diag(gram)[:3], [1, 0.5, 0.5], atol=1e-10)

    @pytest.mark.parametrize(
        ("frames", "step", "harmonics"),
        [
            (800, DAY, (3, 0)),
            (300, DAY, (0, 0)),
            (24 * 800, HOUR, (3, 2)),
            (24 * 30, HOUR, (0, 2)),
            (24 * 2, HOUR, (0, 0)),
            (4 * 400, 6 * HOUR, (3, 1)),
            (2 * 400, 12 * HOUR, (3, 0)),
            (36, 30 * DAY, (3, 0)),
            (12, 91 * DAY, (1, 0)),
            (10, 365 * DAY, (0, 0)),
        ],
    )
    def test_harmonics(self, frames, step, harmonics):
        assert climatology_lib.harmonics(minutes(frames, step), step) == harmonics

    def test_no_dates(self):
        assert climatology_lib.harmonics(None, 0) == (0, 0)


class TestClimatology:
    def make(self, frames=730, step=DAY):
        """Fields that are nothing but cycles."""
        rng = np.random.default_rng(0)
        times = minutes(frames, step)
        annual, daily = climatology_lib.harmonics(times, step)
        p = (1 + 2 * annual) * (1 + 2 * daily)
        truth = rng.standard_normal((p, 3, 4, 2)).astype(np.float32)
        return times, Climatology(truth, annual, daily)

    @pytest.mark.parametrize(("frames", "step"), [(730, DAY), (4 * 365, 6 * HOUR)])
    def test_recovers_cycles(self, frames, step):
        times, truth = self.make(frames, step)
        values = truth.at(times)
        fit = fit_climatology(values, times, truth.annual, truth.daily)
        np.testing.assert_allclose(fit.coefficients, truth.coefficients, atol=1e-4)
        later = minutes(50, step, "2009-08-01")
        np.testing.assert_allclose(fit.at(later), truth.at(later), atol=1e-4)

    def test_recovers_cycles_through_gaps(self):
        times, truth = self.make()
        values = truth.at(times)
        rng = np.random.default_rng(1)
        values[rng.random(values.shape) < 0.3] = np.nan
        values[:, 0, 0, 0] = np.nan
        values[50:, 0, 1, 0] = np.nan  # fewer than three values a coefficient? no: 50
        values[10:, 0, 2, 0] = np.nan  # ten values: the mean alone
        fit = fit_climatology(values, times, 3, 0)
        np.testing.assert_array_equal(fit.coefficients[:, 0, 0, 0], 0)
        np.testing.assert_array_equal(fit.coefficients[1:, 0, 2, 0], 0)
        mean = np.nanmean(values[:, 0, 2, 0])
        np.testing.assert_allclose(fit.coefficients[0, 0, 2, 0], mean, rtol=1e-5)
        rest = (slice(None), slice(1, None))
        np.testing.assert_allclose(
            fit.coefficients[rest], truth.coefficients[rest], atol=2e-3
        )

    def test_parts_of_the_grid(self, monkeypatch):
        times, truth = self.make()
        whole = fit_climatology(truth.at(times), times, 3, 0)
        monkeypatch.setattr(climatology_lib, "CELLS", 5)
        parts = fit_climatology(truth.at(times), times, 3, 0)
        np.testing.assert_allclose(parts.coefficients, whole.coefficients, atol=1e-6)

    def test_without_dates_is_the_mean(self):
        values = cube_files.values(20, (3, 4, 2))
        fit = fit_climatology(values, None, 3, 2)
        np.testing.assert_allclose(fit.at(None)[0], values.mean(axis=0), atol=1e-6)
        assert str(fit) == "mean"

    def test_of_batches(self):
        times, truth = self.make()
        batch = truth.at(times[:6].reshape(2, 3))
        np.testing.assert_allclose(batch[1, 2], truth.at(times[5:6])[0], atol=1e-6)


class TestMonthlyMeans:
    def test_are_those_of_calendar_months(self):
        times = times_lib.of_months(np.arange(5, 5 + 40)).minutes
        values = np.random.default_rng(0).random((40, 2, 3, 1)).astype(np.float32)
        found = climatology_lib.fit_monthly(values, times)
        for month in range(12):
            mean = values[(5 + np.arange(40)) % 12 == month].mean(axis=0)
            np.testing.assert_allclose(found.coefficients[month], mean, rtol=1e-6)
        np.testing.assert_array_equal(found.at(times[7:9]), found.coefficients[:2])
        assert found.at(times.reshape(8, 5)).shape == (8, 5, 2, 3, 1)

    def test_missing_values(self):
        times = times_lib.of_months(np.arange(24)).minutes
        values = np.ones((24, 1, 2, 1), np.float32)
        values[3, 0, 0] = np.nan
        values[[4, 16], 0, 0] = np.nan
        values[15] = 3
        found = climatology_lib.fit_monthly(values, times).coefficients[:, 0, :, 0]
        np.testing.assert_array_equal(found[3:5], [[3, 2], [np.nan, 1]])
