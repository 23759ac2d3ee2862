"""The latest frames of a series, and the times of what follows them."""

import dataclasses

import cftime
import numpy as np
import pytest

from earthformer_jax.data.cubes import beginnings, cube
from earthformer_jax.data.forecasting.beginnings import Variable
from earthformer_jax.data.readers import decoding
from tests.data import cube_files

FRAMES = 40


def find(path, dataset, **settings):
    """What forecasts begin from in a data set that was also trained on."""
    cube_files.write(dataset, path)
    chosen = cube.Settings(path=str(path), in_len=4, out_len=3, **settings)
    load_state = cube.load(chosen).data.state
    assert load_state is not None
    return beginnings.find(chosen, load_state())


def following(path, units, values, calendar="standard"):
    """Dates of the frames after a last one, in the calendar of the file."""
    data = cube_files.dataset(len(values))
    attributes = {"units": units, "calendar": calendar}
    data = data.assign_coords(time=("time", np.asarray(values), attributes))
    found = find(path, data)
    assert found.following is not None
    valid = found.following(0, 3)
    assert valid.calendar == calendar
    dates = cftime.num2date(valid.seconds, decoding.EPOCH, calendar)
    return [date.strftime("%Y-%m-%d %H") for date in dates]


@pytest.mark.parametrize(
    ("calendar", "expected"),
    [
        ("standard", ["2004-02-29 00", "2004-03-01 00", "2004-03-02 00"]),
        ("noleap", ["2004-03-01 00", "2004-03-02 00", "2004-03-03 00"]),
        ("360_day", ["2004-02-29 00", "2004-02-30 00", "2004-03-01 00"]),
    ],
)
def test_days_after_the_28th_of_february(tmp_path, calendar, expected):
    days = np.arange(1 - FRAMES, 1)
    units = "days since 2004-02-28"
    assert following(tmp_path / "x.nc", units, days, calendar) == expected


def test_six_hours(tmp_path):
    hours = 6 * np.arange(1 - FRAMES, 1)
    expected = ["2004-02-28 18", "2004-02-29 00", "2004-02-29 06"]
    units = "hours since 2004-02-28 12:00"
    assert following(tmp_path / "x.nc", units, hours) == expected


@pytest.mark.parametrize("day", [1, 16, 31])
def test_months(tmp_path, day):
    """The same day of the month, or its last one."""
    month = np.datetime64("2003-12") + np.arange(1 - FRAMES, 1)
    last = (month + 1).astype("datetime64[D]") - 1
    moments = np.minimum(month.astype("datetime64[D]") + day - 1, last)
    days = (moments - np.datetime64("2000-01-01")).astype(int)
    expected = [f"2004-01-{day:02}", f"2004-02-{min(day, 29):02}", f"2004-03-{day:02}"]
    found = following(tmp_path / "x.nc", "days since 2000-01-01", days)
    assert [date[:10] for date in found] == expected


def test_windows(tmp_path):
    """Inputs are in the units of the training, and `decode` undoes that."""
    data = cube_files.dataset(FRAMES)
    found = find(tmp_path / "x.nc", data, targets=("P",), anomalies=False)
    inputs = found.windows[0]["inputs"]
    assert found.variables == (Variable("P", "mm/day"),)
    assert inputs.shape == (4, 4, 5, 2)
    values = found.decode(inputs[..., :1], None)[..., 0]
    np.testing.assert_allclose(values, data["P"].values[-4:], atol=1e-5)


def test_a_model_that_restores_its_inputs(tmp_path):
    cube_files.write(cube_files.dataset(FRAMES), tmp_path / "x.nc")
    chosen = cube.Settings(path=str(tmp_path / "x.nc"), in_len=4, out_len=0)
    load_state = cube.load(chosen).data.state
    assert load_state is not None
    with pytest.raises(ValueError, match="out_len=0: .* cannot forecast"):
        beginnings.find(chosen, load_state())


@pytest.mark.parametrize("step", ["D", "h"])
def test_feeding_a_forecast_back(tmp_path, step):
    """The inputs after a forecast are those of a file that holds it."""
    data = cube_files.dataset(FRAMES, step=step)
    data = data.where(data["lat"] > 11)  # the southern row is never observed
    whole = find(tmp_path / "whole.nc", data, calendar=True)
    chosen = cube.Settings(
        path=str(tmp_path / "whole.nc"), in_len=4, out_len=3, calendar=True
    )
    load_state = cube.load(chosen).data.state
    assert load_state is not None
    cube_files.write(data.isel(time=slice(-3)), tmp_path / "cut.nc")
    cut = dataclasses.replace(chosen, path=str(tmp_path / "cut.nc"))
    found = beginnings.find(cut, load_state())
    assert found.advance is not None and found.following is not None
    inputs = whole.windows[0]["inputs"]
    assert inputs.shape[-1] == 2 + (4 if step == "h" else 2)
    forecast = np.where(data["lat"].values[:, None, None] > 11, inputs[-3:, ..., :2], 9)
    minutes = found.following(0, 3).minutes
    after = found.advance(found.windows[0]["inputs"], forecast, minutes)
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, inputs, atol=1e-6)


def test_names_in_the_file(tmp_path):
    data = cube_files.dataset(FRAMES)
    data["T"].attrs |= {"standard_name": "air_temperature", "long_name": "at 2 m"}
    found = find(tmp_path / "x.nc", data)
    assert found.variables == (
        Variable("T", "K", "air_temperature", "at 2 m"),
        Variable("P", "mm/day"),
    )
