"""Cycles, means and spreads of a training period."""

import dataclasses

import numpy as np
import pytest

from earthformer_jax.data.cubes import statistics
from earthformer_jax.data.cubes.statistics import sample
from earthformer_jax.data.readers.times import DAY
from tests.data import cube_files
from tests.data.cube_files import cube, minutes

HOUR = 60


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
                "all values of 'P' are missing",
            ),
            (lambda x: np.where(np.arange(2) == 0, 7, x), 0, "'T' is 7 everywhere in"),
            (
                lambda x: x,
                1,
                "needs dates and a training period of at least a year.*2001-02-19, 5",
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
