"""The reference forecast "extrapolation", in any units and where values are missing."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data import load
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.nowcasting import references as lib
from earthformer_jax.data.nowcasting.rain import Rain
from earthformer_jax.data.nowcasting.references import references

SIZE = (32, 32)


def moving_rain(frames, seed=0):
    """Smooth rain in mm/h that moves by 1 row and 2 columns per frame and wraps."""
    rng = np.random.default_rng(seed)
    waves = np.hypot(*np.meshgrid(*[np.fft.fftfreq(n) for n in SIZE], indexing="ij"))
    noise = np.fft.fft2(rng.normal(size=SIZE)) * np.exp(-((waves / 0.08) ** 2))
    rain = np.maximum(np.fft.ifft2(noise).real * 60, 0)
    return np.stack([np.roll(rain, (t, 2 * t), (0, 1)) for t in range(frames)])


@dataclasses.dataclass(frozen=True)
class Seasonal:
    """Model units are departures from a mean that changes from frame to frame."""

    def encode(self, values, minutes=None):
        assert minutes is not None
        return (values - 2 * minutes[..., None, None, None]) / 3

    def decode(self, x, minutes=None):
        assert minutes is not None
        return x * 3 + 2 * minutes[..., None, None, None]


@pytest.fixture(scope="module")
def rain():
    return moving_rain(8)[None, ..., None].astype(np.float32)


@pytest.mark.parametrize("normalization", [Affine(4.0, 1.0), Seasonal()])
def test_rain_moves_on(rain, normalization):
    minutes = np.arange(8)[None] * 5
    x = normalization.encode(rain, minutes).astype(np.float32)
    found = references(5, 3, 1, normalization, Rain(0.1))["extrapolation"](
        {"inputs": x[:, :5], "time": minutes.astype(np.int32)}
    )
    assert found.dtype == np.float32 and found.shape == (1, 3, *SIZE, 1)
    values = normalization.decode(found, minutes[:, 5:])
    middle = (..., slice(6, -6), slice(10, -6), slice(None))
    error = np.abs(values - rain[:, 5:])[middle].mean()
    assert error < 0.15 * np.abs(rain[:, 4:5] - rain[:, 5:])[middle].mean()


def test_what_is_unknown_does_not_count(rain):
    """Nonsense where nothing is observed changes nothing that comes from elsewhere."""
    observed = np.ones(rain.shape, bool)
    observed[:, :, :8, :8] = False
    spoilt = np.where(observed, rain, 77 * np.arange(8)[:, None, None, None])
    forecast = references(5, 3, 1, Affine(), Rain(0.1))["extrapolation"]
    found = [
        forecast(
            {
                "inputs": x[:, :5].astype(np.float32),
                "inputs_observed": observed[:, :5],
            }
        )
        for x in (np.where(observed, rain, 0), spoilt)
    ]
    np.testing.assert_array_equal(found[0][:, :, 14:, 17:], found[1][:, :, 14:, 17:])
    true = rain[:, 5:, 14:-4, 17:-4]
    error = np.abs(found[1][:, :, 14:-4, 17:-4] - true).mean()
    assert error < 0.25 * np.abs(rain[:, 4:5, 14:-4, 17:-4] - true).mean()


@pytest.mark.parametrize("rain_of", [Rain(0.1), Rain(-10.0, 1.0)])
def test_s_prog_in_any_units(rain, rain_of):
    """Rates and decibels, with less error than the last frame; and what is unknown."""
    rates = rain[:, :, :16, :16].repeat(2, axis=0)
    x = rates if rain_of.decibels is None else 10 * np.log10(np.maximum(rates, 0.1))
    observed = np.ones(x.shape, bool)
    observed[1, :, :, :5] = False
    batch = dict(inputs=x[:, :5], inputs_observed=observed[:, :5])
    batch["inputs"] = np.where(batch["inputs_observed"], batch["inputs"], 99)
    found = references(5, 3, 1, Affine(), rain_of)
    for name in ("s_prog", "steps_mean"):
        forecast = found[name](batch)
        assert forecast.shape == (2, 3, 16, 16, 1) and forecast.dtype == np.float32
        assert forecast.min() >= x.min() - 1e-5
        assert forecast.max() < x[:, 4].max() + 0.5
        errors = np.abs(forecast - x[:, 5:]), np.abs(x[:, 4:5] - x[:, 5:])
        assert errors[0][0].mean() < 0.75 * errors[1][0].mean()
        other = found[name]({key: value[1:] for key, value in batch.items()})
        np.testing.assert_allclose(other, forecast[1:], atol=1e-4)


def test_the_motion_of_a_batch_is_found_once(rain, monkeypatch):
    """And anew for other values, also if they are written into the same array."""
    found = []
    monkeypatch.setattr(lib, "_motion", lambda *x: found.append(x))
    monkeypatch.setattr(lib, "_carry", lambda steps, values, *_: values[:, -1:])
    monkeypatch.setattr(lib, "_expected", lambda rain, steps, values, *_: values)
    forecasts = references(4, 1, 1, Affine(2.0), Rain(0.1))
    batch = {"inputs": rain[:, :4].copy()}
    for name in ("extrapolation", "s_prog", "extrapolation"):
        forecasts[name](batch)
    assert len(found) == 1
    batch["inputs"][0, -1] += 1
    made = forecasts["extrapolation"](batch)
    np.testing.assert_allclose(made, batch["inputs"][:, -1:], rtol=1e-6)
    forecasts["extrapolation"](batch | {"inputs_observed": batch["inputs"] < 1})
    assert len(found) == 3


def test_what_few_frames_show():
    """One shows no motion, and two do not show how rain changes."""
    found = [list(references(n, 3, 1, Affine(), Rain(0.1))) for n in (1, 2, 3)]
    assert found == [[], ["extrapolation"], ["extrapolation", "s_prog", "steps_mean"]]


@pytest.mark.parametrize("units, minutes, there", [("mm/h", 5, True), ("K", 5, False)])
def test_a_file_of_rain_has_it(tmp_path, units, minutes, there):
    frames = moving_rain(60)
    step = np.timedelta64(minutes, "m")
    times = np.datetime64("2020-01-01", "ns") + step * np.arange(60)
    data = xr.DataArray(
        frames.astype(np.float32) + (0 if there else 280),
        dims=("time", "y", "x"),
        coords={"time": times},
        name="field",
        attrs={"units": units},
    )
    data.to_netcdf(tmp_path / "field.nc")
    settings = dict(name="custom", path=str(tmp_path / "field.nc"), in_len=4, out_len=2)
    dataset = load(settings)
    assert ("extrapolation" in dataset.task.references) == there
    if there:
        batch = {k: np.asarray(v)[None] for k, v in dataset.data.test[0].items()}
        error = {
            name: np.square(dataset.task.references[name](batch) - batch["targets"])
            for name in ("extrapolation", "persistence")
        }
        assert error["extrapolation"].mean() < 0.5 * error["persistence"].mean()
