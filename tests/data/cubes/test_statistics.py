"""Cycles, means and spreads of a training period."""

import dataclasses

import numpy as np
import pytest

from earthformer_jax.data.cubes import statistics
from earthformer_jax.data.cubes.statistics import Climatology, fit_climatology, sample
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.times import DAY, Times
from tests.data import cube_files

HOUR = 60


def minutes(frames, step=DAY, first="2001-01-01"):
    start = np.datetime64(first, "m").astype(np.int64)
    return start + step * np.arange(frames)


def cube(values, step=DAY, names=("T", "P")):
    times = minutes(len(values), step)
    return Cube(
        label="c.nc",
        format="NetCDF",
        names=names[: values.shape[-1]],
        units=("",) * values.shape[-1],
        frames=ArrayFrames(np.asarray(values, np.float32)),
        segments=np.array([[0, len(values)]]),
        times=Times(60.0 * times, times),
        cadence=float(step),
    )


class TestCycles:
    def test_are_orthogonal(self):
        """Over whole years of whole days, as Fourier series are."""
        basis = statistics.cycles(minutes(4 * 365, 6 * HOUR), 2, 1)
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
        assert statistics.harmonics(minutes(frames, step), step) == harmonics

    def test_no_dates(self):
        assert statistics.harmonics(None, 0) == (0, 0)


class TestClimatology:
    def make(self, frames=730, step=DAY):
        """Fields that are nothing but cycles."""
        rng = np.random.default_rng(0)
        times = minutes(frames, step)
        annual, daily = statistics.harmonics(times, step)
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
        monkeypatch.setattr(statistics, "CELLS", 5)
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


class TestNormalizer:
    def fit(self, values, anomalies=False, step=DAY, stop=None):
        data = cube(values, step)
        return statistics.fit_normalizer(data, (0, stop or len(values)), anomalies)

    def test_training_has_mean_0_and_spread_1(self):
        values = 290 + 5 * cube_files.values(100, (3, 4, 2))
        normalizer, text = self.fit(values, stop=70)
        x = normalizer.encode(values, None)[:70]
        np.testing.assert_allclose(x.mean(axis=(0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(x.std(axis=(0, 1, 2)), 1, atol=1e-5)
        np.testing.assert_allclose(
            x * normalizer.scale + normalizer.offset, values[:70], rtol=1e-6
        )
        assert text == "(x - mean) / standard deviation of the training period"

    def test_what_follows_training_changes_nothing(self):
        values = cube_files.values(100, (3, 4, 2))
        other = values.copy()
        other[70:] = 1e3
        a, b = (self.fit(x, stop=70)[0] for x in (values, other))
        np.testing.assert_array_equal(a.scale, b.scale)
        np.testing.assert_array_equal(a.offset, b.offset)

    def test_anomalies(self):
        times = minutes(1000)
        season = 10 * np.cos(2 * np.pi * (times / DAY % 365.25) / 365.25)
        weather = cube_files.values(1000, (3, 4, 2))
        values = season[:, None, None, None] + 300 + weather
        normalizer, text = self.fit(values, anomalies=True)
        assert text.startswith("anomalies (3 harmonics of the year) / standard")
        x = normalizer.encode(values.astype(np.float32), times)
        np.testing.assert_allclose(normalizer.scale, weather.std(), rtol=0.05)
        for day in (0, 100, 200, 300):  # no season is left
            window = [slice(day + 365 * k, day + 365 * k + 60) for k in range(2)]
            assert abs(np.mean([x[w].mean() for w in window])) < 0.35
        assert x.mean() == pytest.approx(0, abs=0.01)

    def test_missing_values(self):
        values = cube_files.values(50, (3, 4, 2))
        values[:, 0, 0, 1] = np.nan
        values[4, 1, 1, 0] = np.nan
        normalizer, _ = self.fit(values)
        assert np.argwhere(~normalizer.counted).tolist() == [[0, 0, 1]]
        x = normalizer.encode(np.nan_to_num(values), None)
        assert np.isnan(x[:, 0, 0, 1]).all()  # never observed in training
        assert np.isnan(normalizer.encode(values, None)[4, 1, 1, 0])
        std = np.nanstd(values[..., 0])
        np.testing.assert_allclose(normalizer.scale[0], std, rtol=1e-5)

    @pytest.mark.parametrize(
        ("change", "anomalies", "message"),
        [
            (
                lambda x: np.where(np.arange(2) == 1, np.nan, x),
                0,
                "'P' has no value at",
            ),
            (lambda x: np.where(np.arange(2) == 0, 7, x), 0, "'T' is 7 everywhere in"),
            (
                lambda x: x,
                1,
                "needs dates and a training period of a year.*2001-02-19, 5",
            ),
        ],
    )
    def test_refused(self, change, anomalies, message):
        values = change(cube_files.values(50, (3, 4, 2)))
        with pytest.raises(ValueError, match=message):
            self.fit(values, anomalies=bool(anomalies))


class TestSample:
    def test_all(self):
        data = cube(cube_files.values(50, (3, 4, 2)))
        values, times = sample(data, 10, 40)
        np.testing.assert_array_equal(values, data.frames.values[10:40])
        np.testing.assert_array_equal(times, data.minutes[10:40])

    def test_part(self):
        """Pieces all over the period, within the limit, the same every time."""
        values = np.arange(5000.0)[:, None, None, None] * np.ones((1, 2, 2, 1))
        data = cube(values)
        part, times = sample(data, 1000, 4000, limit=600 * 16)
        frames = part[:, 0, 0, 0].astype(int)
        assert 300 < len(frames) <= 600
        assert np.all(np.diff(frames) > 0)
        assert 1000 <= frames[0] < 1100 and 3900 < frames[-1] < 4000
        np.testing.assert_array_equal(times, data.minutes[frames])
        again, _ = sample(data, 1000, 4000, limit=600 * 16)
        np.testing.assert_array_equal(part, again)

    def test_one_frame_is_too_much(self):
        data = cube(cube_files.values(50, (3, 4, 2)))
        assert len(sample(data, 0, 50, limit=1)[0]) == 1

    def test_statistics_of_a_part_say_so(self, monkeypatch):
        monkeypatch.setattr(statistics, "SAMPLE_BYTES", 40 * 96)
        monkeypatch.setattr(
            statistics.sample, "__defaults__", (statistics.SAMPLE_BYTES,)
        )
        data = cube(cube_files.values(500, (3, 4, 2)))
        _, text = statistics.fit_normalizer(data, (0, 500), False)
        assert "of the training period of 40 frames" in text
        without = dataclasses.replace(data, times=None, cadence=0.0)
        assert sample(without, 0, 500)[1] is None
