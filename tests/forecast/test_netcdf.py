"""Forecasts in NetCDF files."""

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.forecasting.beginnings import Beginnings, Variable
from earthformer_jax.data.readers import decoding
from earthformer_jax.forecast import netcdf

DAY = 86400.0
HEIGHT, WIDTH, STEPS = 3, 4, 2
SHAPE = (STEPS, HEIGHT, WIDTH, 1)


def beginnings(count, calendar="standard", dated=True, **changes):
    last = np.arange(5, 5 + count)

    def following(window, steps):
        days = last[window] + np.arange(1, steps + 1)
        return decoding.of_seconds(DAY * days, calendar)

    given = {
        "label": "days.nc",
        "windows": [{}] * count,
        "last": last,
        "reference": decoding.of_seconds(DAY * last, calendar) if dated else None,
        "following": following if dated else None,
        "variables": (Variable("t", "K"),),
        "decode": lambda x, minutes: np.where(x < -0.9, np.nan, 10 * x + 280),
        "latitude": np.linspace(-10, 10, HEIGHT),
        "longitude": np.linspace(0, 90, WIDTH),
    }
    return Beginnings(**given | changes)


@pytest.fixture
def forecasts():
    values = np.random.default_rng(0).uniform(0, 1, (3, *SHAPE)).astype("f4")
    values[:, :, 0, 0] = -1  # never observed
    return values


def write(path, found, forecasts):
    netcdf.write(path, found, iter(forecasts), SHAPE, {"title": "a test"})
    with xr.open_dataset(path) as dataset:
        return dataset.load()


def test_one_forecast(tmp_path, forecasts):
    made = write(tmp_path / "new" / "one.nc", beginnings(1), forecasts[:1])
    assert made["t"].dims == ("time", "lat", "lon")
    assert made["time"].values.astype("datetime64[D]").astype(str).tolist() == [
        "1970-01-07",
        "1970-01-08",
    ]
    assert str(made["forecast_reference_time"].values)[:10] == "1970-01-06"
    assert made["lead_time"].values.tolist() == [24, 48]
    assert made["t"].attrs == {"units": "K", "long_name": "t"}
    assert (made.attrs["Conventions"], made.attrs["title"]) == ("CF-1.11", "a test")
    want = 10 * forecasts[0, ..., 0] + 280
    want[:, 0, 0] = np.nan
    np.testing.assert_array_equal(made["t"].values, want.astype("f4"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["one.nc"]


def test_many_forecasts(tmp_path, forecasts):
    made = write(tmp_path / "all.nc", beginnings(3), forecasts)
    assert made["t"].dims == ("forecast_reference_time", "lead_time", "lat", "lon")
    lead = made["valid_time"] - made["forecast_reference_time"]
    assert (lead == np.array([1, 2], "timedelta64[D]")).all()
    assert made["t"].isel(lat=1).equals(made["t"].isel(lat=1).dropna("lon"))
    np.testing.assert_allclose(
        made["t"].values[:, :, 1:], 10 * forecasts[:, :, 1:, :, 0] + 280, rtol=1e-6
    )


def test_other_calendars_and_grids(tmp_path, forecasts):
    plane = np.zeros((HEIGHT, WIDTH)) + np.linspace(0, 9, WIDTH)
    found = beginnings(1, "360_day", latitude=plane, longitude=plane)
    made = write(tmp_path / "one.nc", found, forecasts[:1])
    assert made["t"].dims == ("time", "y", "x")
    assert made["time"].dt.calendar == "360_day"
    np.testing.assert_array_equal(made["t"]["lat"].values, plane)


@pytest.mark.parametrize("count", [1, 3])
def test_without_dates(tmp_path, forecasts, count):
    found = beginnings(count, dated=False, latitude=None, longitude=None)
    made = write(tmp_path / "one.nc", found, forecasts[:count])
    assert made["t"].dims == ("last_frame", "step", "y", "x")[count == 1 :]
    assert made["step"].values.tolist() == [1, 2]
    assert made["last_frame"].values.tolist() == ([5, 6, 7] if count > 1 else 5)


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path, forecasts):
    def stumbling():
        yield forecasts[0]
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        netcdf.write(tmp_path / "all.nc", beginnings(3), stumbling(), SHAPE, {})
    assert not list(tmp_path.iterdir())


def test_names():
    names = ["Grid/rain", "Grid_rain", "t at 500 hPa", "2t", "/", "t"]
    assert netcdf.variable_names(names) == [
        "Grid_rain",
        "Grid_rain_2",
        "t_at_500_hPa",
        "v_2t",
        "value",
        "t",
    ]
