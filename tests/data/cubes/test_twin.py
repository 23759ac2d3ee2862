"""The synthetic climate: what it looks like, and what can be predicted."""

import numpy as np
import pytest

from earthformer_jax.data.cubes import twin as twin_lib
from earthformer_jax.data.readers import times


@pytest.fixture(scope="module")
def twin():
    return twin_lib.make(6, seed=0)


def anomalies(twin):
    phase = 2 * np.pi * times.season(twin.minutes)
    return twin_lib.weather(phase, 3)


def test_layout(twin):
    assert twin.frames.shape == (2191, 16, 24, 3)
    assert twin.frames.values.dtype == np.float32
    assert times.text(twin.minutes[0]) == "2001-01-01"
    assert times.text(twin.minutes[-1]) == "2006-12-31"
    assert np.all(np.diff(twin.minutes) == 1440)
    assert twin.names == ("t2m", "msl", "tp")


def test_the_seed_decides(twin):
    same, other = twin_lib.make(6, seed=0), twin_lib.make(6, seed=1)
    np.testing.assert_array_equal(same.frames.values, twin.frames.values)
    assert np.any(other.frames.values[0] != twin.frames.values[0])


def test_a_longer_twin_has_the_same_weather():
    """Up to the spread of the whole, which the anomalies are divided by."""
    phase = 2 * np.pi * np.arange(1200) / 365
    short, long = (twin_lib.weather(phase[:n], 0) for n in (700, 1200))
    factor = np.median(short / long[:700], axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(factor, 1, atol=0.1)
    np.testing.assert_allclose(short, factor * long[:700], atol=1e-4)


def test_looks_like_weather(twin):
    t2m, msl, rain = np.moveaxis(twin.frames.values, -1, 0)
    assert 220 < t2m.min() < 260 and 300 < t2m.max() < 330  # K
    assert 940 < msl.min() < 990 and 1035 < msl.max() < 1070  # hPa
    assert rain.min() == 0 and 30 < rain.max() < 120  # mm/day
    assert 0.5 < np.mean(rain == 0) < 0.8
    south, north = t2m[:, 0].mean(), t2m[:, -1].mean()
    assert south - north > 15
    month = np.floor(12 * times.season(twin.minutes))
    winter, summer = (t2m[month == m].mean() for m in (0, 6))
    assert 12 < summer - winter < 25


def test_anomalies_have_spread_1(twin):
    fields = anomalies(twin)
    np.testing.assert_allclose(fields.std(axis=(0, 2, 3)), 1, rtol=1e-4)
    assert np.abs(fields.mean(axis=(0, 2, 3))).max() < 0.1


def test_weather_travels_eastwards(twin):
    """Two days later the field is like itself some columns to the west."""
    p = anomalies(twin)[:, 0, 7:9]
    likeness = []
    for shift in range(6):
        now, later = p[:-2, :, : 24 - shift], p[2:, :, shift:]
        likeness.append(np.corrcoef(now.ravel(), later.ravel())[0, 1])
    assert np.argmax(likeness) in (2, 3)
    assert likeness[np.argmax(likeness)] > likeness[0] + 0.15


def test_one_variable_foretells_another(twin):
    """A rise of pressure to the east is a wind from the south: warmer tomorrow."""
    p, warm, moist = np.moveaxis(anomalies(twin), 1, 0)
    wind = (p[..., 2:] - p[..., :-2])[:-1]
    for later in (warm, moist):
        change = (later[1:] - later[:-1])[..., 1:-1]
        assert np.corrcoef(wind.ravel(), change.ravel())[0, 1] > 0.3


def test_it_forgets(twin):
    """Anomalies a month apart have nothing in common."""
    fields = anomalies(twin)
    for row in range(3):
        x = fields[:, row]
        assert abs(np.corrcoef(x[:-30].ravel(), x[30:].ravel())[0, 1]) < 0.1
