"""What forecasts of El Nino begin from: the latest months of any usable file."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from earthformer_jax import data
from earthformer_jax.data.enso import twin
from earthformer_jax.data.forecasting.beginnings import Starts, Variable
from tests.data import sst_files

MONTHS = 12 * 12
CONFIG = dict(
    name="enso",
    in_len=6,
    out_len=4,
    train_until="2008-12",
    validate_until="2009-12",
    simulated=False,
    calendar=True,
)
SEASON = 3 * np.cos(2 * np.pi * np.arange(MONTHS) / 12).astype(np.float32)


@pytest.fixture(scope="module")
def whole():
    """Temperatures in degC with some missing months in the test period."""
    dataset = sst_files.dataset(MONTHS)
    dataset["sst"][-5:-1, 3, 4] = np.nan  # the last of these is not carried any more
    return dataset


def trained_on(dataset, folder, **changes):
    """The config, data set and state of a training on a file."""
    path = sst_files.write(dataset, folder / "trained.nc")
    config = CONFIG | changes | {"path": path}
    loaded = data.load(config)
    assert loaded.data.state is not None
    return config, loaded, loaded.data.state()


@pytest.fixture(scope="module")
def trained(whole, tmp_path_factory):
    return trained_on(whole, tmp_path_factory.mktemp("trained"))


def begin(trained, path, *starts, **changes):
    config, _, state = trained
    return data.beginnings(config | {"path": path} | changes, state, Starts(*starts))


def following(found, number=0):
    """Minutes of the months after a window."""
    assert found.following is not None
    return found.following(number, 4).minutes


def anomalies_of(found, x):
    assert found.anomalies is not None
    return found.anomalies(x)[..., 0]


def advanced(found, *arrays):
    assert found.advance is not None
    return found.advance(*arrays)


def test_they_are_the_inputs_of_the_test_windows(trained, whole):
    config, loaded, _ = trained
    found = begin(trained, config["path"], "2010-01", "2011-12")
    for number in (0, 7, len(loaded.data.test) - 6):
        # Targets of the first test window begin in 2010-01; its last input is before.
        expected = loaded.data.test[number + 1]
        window = found.windows[number]
        np.testing.assert_array_equal(window["inputs"], expected["inputs"])
        valid = following(found, number)
        observed = expected["observed"][..., 0]
        values = found.decode(expected["targets"], valid)[..., 0]
        first = 12 * 10 + number + 1
        truth = whole["sst"].values[first : first + 4]
        np.testing.assert_allclose(values[observed], truth[observed], atol=1e-5)
        assert np.isnan(values[:, 0, 0]).all()  # land


def test_variable_and_indices(trained):
    config, loaded, _ = trained
    found = begin(trained, config["path"])
    assert found.variables == (Variable("sst", "degC", "sea_surface_temperature"),)
    assert list(found.indices) == ["nino34"]  # the grid ends before the others
    example = loaded.data.test[2]
    anomalies = anomalies_of(found, example["targets"])
    weights = found.indices["nino34"]
    index = np.sum(np.where(weights, anomalies * weights, 0), axis=(1, 2))
    np.testing.assert_allclose(index, example["nino34"], atol=1e-5)


def test_regions_that_a_grid_covers(tmp_path):
    longitude = np.arange(152.5, 288, 5.0)
    dataset = sst_files.dataset(MONTHS, longitude=longitude)
    config, _, state = trained_on(dataset, tmp_path)
    found = data.beginnings(config, state)
    assert list(found.indices) == ["nino34", "nino12", "nino3", "nino4"]
    for weights in found.indices.values():
        assert weights.sum() == pytest.approx(1)


def other_forms(whole):
    cut = whole.isel(time=slice(-8, None))
    kelvin = cut.copy(deep=True)
    kelvin["sst"] = (cut["sst"] + 273.15).astype(np.float32)
    kelvin["sst"].attrs["units"] = "K"
    west = cut.assign_coords(lon=("lon", cut["lon"].values - 360, cut["lon"].attrs))
    wide = sst_files.dataset(
        MONTHS, latitude=np.arange(-22.5, 23, 5.0), longitude=np.arange(2.5, 360, 5.0)
    )
    wide["sst"].loc[dict(lat=whole["lat"], lon=whole["lon"])] = whole["sst"].values
    wide = wide.isel(time=slice(-9, None))
    fine = np.repeat(np.repeat(cut["sst"].values, 2, axis=1), 2, axis=2)
    lat, lon = (
        (cut[name].values[:, None] + np.array([-1.25, 1.25])).ravel()
        for name in ("lat", "lon")
    )
    finer = xr.Dataset(
        {"sst": (("time", "lat", "lon"), fine, {"units": "degC"})},
        coords={
            "time": cut["time"],
            "lat": ("lat", lat, {"units": "degrees_north"}),
            "lon": ("lon", lon, {"units": "degrees_east"}),
        },
    )
    return {
        "cut.nc": cut,
        "cut.zarr": cut,
        "kelvin.nc": kelvin,
        "north_first.nc": cut.isel(lat=slice(None, None, -1)),
        "west.nc": west,
        "wide.nc": wide,
        "finer.nc": finer,
    }


def test_other_forms_of_the_same_months(trained, whole, tmp_path):
    config, _, _ = trained
    expected = begin(trained, config["path"]).windows[0]
    for name, dataset in other_forms(whole).items():
        path = sst_files.write(dataset, tmp_path / name)
        window = begin(trained, path).windows[0]
        np.testing.assert_allclose(
            window["inputs"], expected["inputs"], atol=1e-4, err_msg=name
        )
        assert window["filled"] == expected["filled"], name


def test_units_are_those_of_the_file(trained, whole, tmp_path):
    path = sst_files.write(other_forms(whole)["kelvin.nc"], tmp_path / "kelvin.nc")
    celsius, kelvin = begin(trained, trained[0]["path"]), begin(trained, path)
    assert kelvin.variables[0].units == "K"
    x = np.zeros((4, 6, 16, 1), np.float32)
    minutes = following(celsius)
    difference = kelvin.decode(x, minutes) - celsius.decode(x, minutes)
    np.testing.assert_allclose(difference[:, 1:], 273.15, atol=1e-4)


@pytest.mark.parametrize(
    ("stated", "note"),
    [
        ("K", "'sst': its units are 'K'; its values are in degC"),
        ("", "'sst': it has no units; its values are in degC"),
    ],
)
def test_units_that_are_wrong(trained, whole, tmp_path, stated, note):
    """The mean of the values tells, as in training."""
    wrong = whole.copy(deep=True)
    wrong["sst"].attrs = {"units": stated} if stated else {}
    found = begin(trained, sst_files.write(wrong, tmp_path / "wrong.nc"))
    assert found.variables[0].units == "degC"
    assert note in found.notes


def test_gaps(trained, whole, tmp_path):
    """A value before the window is carried into it, for three months."""
    scale = trained[2].fitted["scale"].item()
    found = begin(trained, trained[0]["path"])
    inputs = found.windows[0]["inputs"][:, 3, 4, 0]
    assert inputs[1] == inputs[2] == inputs[3] == inputs[0] != 0
    assert inputs[4] == 0 != inputs[5]
    ocean = 6 * 16 - 1
    assert found.windows[0]["filled"] == pytest.approx(4 / (6 * ocean))
    later = begin(trained, trained[0]["path"], "2011-12", in_len=3).windows[0]
    np.testing.assert_array_equal(later["inputs"][0, 3, 4, 0], inputs[3])
    assert 0.2 < scale < 2


def test_its_own_forecast_is_fed_back(trained):
    """With the truth as a forecast, the next inputs are those of a later window."""
    config, loaded, _ = trained
    found = begin(trained, config["path"], "2010-01")
    truth = loaded.data.test[1]
    minutes = following(found)
    moved = advanced(found, found.windows[0]["inputs"], truth["targets"], minutes)
    np.testing.assert_allclose(moved, loaded.data.test[5]["inputs"], atol=1e-6)


def test_anomalies_are_not_temperatures(trained, whole, tmp_path):
    anomalies = whole["sst"] - whole["sst"].mean("time") - SEASON[:, None, None] / 2
    anomalies = anomalies.astype(np.float32).to_dataset(name="anom")
    anomalies["anom"].attrs["units"] = "K"
    path = sst_files.write(anomalies, tmp_path / "anomalies.nc")
    with pytest.raises(ValueError, match="are anomalies, but the model was trained on"):
        begin(trained, path)
    other = trained_on(anomalies, tmp_path)
    found = data.beginnings(other[0], other[2])
    name = "sea surface temperature anomaly"
    assert found.variables == (Variable("anom", "K", "", name),)
    assert "same base period" in found.notes[-1]
    with pytest.raises(ValueError, match="temperatures in degC, but .* on anomalies"):
        begin(other, trained[0]["path"])
    shifted = sst_files.write(anomalies + 0.5, tmp_path / "shifted.nc")
    with pytest.raises(ValueError, match=r"\+0.50 K from .* another base period"):
        begin(other, shifted)
    # Without the training months it cannot be told.
    assert begin(
        other,
        sst_files.write(anomalies[dict(time=slice(-9, None))], tmp_path / "late.nc"),
    )


def daily(whole):
    days = np.datetime64("2011-01-01", "ns") + np.arange(9) * np.timedelta64(1, "D")
    return whole.isel(time=slice(9)).assign_coords(time=days)


def with_value(whole, value):
    changed = whole.copy(deep=True)
    changed["sst"][-2, 2, 5] = value
    return changed


def with_month(whole, value):
    changed = whole.copy(deep=True)
    changed["sst"][-2] = value
    return changed


REFUSED = {
    "a month is missing": (
        lambda x: x.isel(time=np.delete(np.arange(MONTHS), -3)),
        "up to 2011-12; there are 2 since the gap before 2011-11",
    ),
    "too few months": (
        lambda x: x.isel(time=slice(-5, None)),
        "in_len=6 frames without a gap are needed up to 2011-12; there are 5",
    ),
    "days": (daily, "time is not monthly .* average the data to months"),
    "without the cells": (
        lambda x: x.isel(lon=slice(2, None)),
        "grid: 6 x 16 cells .*, now 6 x 14 cells",
    ),
    "coarser": (lambda x: x.isel(lon=slice(0, None, 2)), "now 6 x 8 cells"),
    "no temperature": (lambda x: x + 70, "the mean over Nino3.4 .* is 97"),
    "too cold": (
        lambda x: with_value(x, 0.0),
        "1 values are more than 20 K from the climatology .* in 2011-11",
    ),
    "fill value": (lambda x: with_value(x, -999.0), "-999 is not a temperature"),
    "an empty month": (
        lambda x: with_month(x, np.nan),
        r"1 of 6 months have no values \(2011-11\); choose another `start`",
    ),
    "a flat month": (
        lambda x: with_month(x, 27.5),
        "1 of 6 months have the same value everywhere",
    ),
    "other variable": (
        lambda x: x.rename(sst="u10").assign(
            u10=lambda x: x["u10"].assign_attrs(units="m s-1")
        ),
        "no variable that is a sea surface temperature",
    ),
    "units": (
        lambda x: x.assign(sst=lambda x: x["sst"].assign_attrs(units="degF")),
        "has units 'degF'; expected K or degC",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(trained, whole, tmp_path, case):
    change, message = REFUSED[case]
    with xr.set_options(keep_attrs=True):
        path = sst_files.write(change(whole), tmp_path / "x.nc")
    with pytest.raises(ValueError, match=message):
        begin(trained, path)


def test_old_gaps_do_not_matter(trained, whole, tmp_path):
    months = np.delete(np.arange(MONTHS), [30, 100])
    path = sst_files.write(whole.isel(time=months), tmp_path / "x.nc")
    expected = begin(trained, trained[0]["path"]).windows[0]["inputs"]
    np.testing.assert_array_equal(begin(trained, path).windows[0]["inputs"], expected)


def test_the_variable_by_another_name(trained, whole, tmp_path):
    """By what it is; of several, by the name it had in training."""
    expected = begin(trained, trained[0]["path"]).windows[0]["inputs"]
    renamed = sst_files.write(whole.rename(sst="tos"), tmp_path / "tos.nc")
    for settings in ({}, {"variable": "sst"}):
        found = begin(trained, renamed, **settings)
        np.testing.assert_array_equal(found.windows[0]["inputs"], expected)
    assert "'sst' is the variable 'tos' of the file" in found.notes
    with pytest.raises(ValueError, match="has no variable 'ssd'"):
        begin(trained, renamed, variable="ssd")
    two = whole.assign(anom=whole["sst"] - 27)
    two["anom"].attrs["units"] = "K"
    found = begin(trained, sst_files.write(two, tmp_path / "two.nc"))
    np.testing.assert_array_equal(found.windows[0]["inputs"], expected)


def test_another_grid_is_impossible(trained):
    config, _, state = trained
    with pytest.raises(ValueError, match="another grid cannot be used"):
        data.beginnings(config, state, allow_other_grid=True)


def test_state_of_an_earlier_version(trained):
    config, _, state = trained
    old = dataclasses.replace(state, fitted=xr.Dataset())
    with pytest.raises(ValueError, match="an earlier version began it"):
        data.beginnings(config, old)


def test_encoding(trained, whole):
    """Its arrays give the inputs of a window, gaps and calendar aside."""
    config, loaded, state = trained
    encoding = data.encoding(config, state)
    assert (encoding.calendar, encoding.most_carried, encoding.targets) == (
        "month",
        3,
        1,
    )
    # The inputs of the third test window.
    values = whole["sst"].values[12 * 9 + 8 : 12 * 9 + 14, ..., None]
    month = (np.arange(6) + 8) % 12
    assert encoding.climatology is not None
    means = encoding.climatology.coefficients[month]
    x = (values - encoding.offset - means) / encoding.scale
    x = np.where(encoding.counted & np.isfinite(x), x, encoding.fill)
    np.testing.assert_allclose(x, loaded.data.test[2]["inputs"][..., :1], atol=1e-5)


def test_twin():
    config = dict(name="enso", in_len=6, out_len=4, calendar=True)
    config |= dict(twin_train=2, twin_validation=2, twin_test=3)
    loaded = data.load(config)
    assert loaded.data.state is not None
    state = loaded.data.state()
    assert len(state.fitted) == 4  # what is learned from the twin follows from its seed
    found = data.beginnings(config, state, Starts("all"))
    assert len(found.windows) == 3 and found.reference is None
    for number in (0, 2):
        np.testing.assert_array_equal(
            found.windows[number]["inputs"], loaded.data.test[number]["inputs"]
        )
    example = found.windows[2]["inputs"]
    moved = advanced(found, example, np.zeros((4, 24, 48, 1), np.float32), None)
    angle = np.arctan2(moved[:, 0, 0, 2], moved[:, 0, 0, 1]) * 6 / np.pi
    np.testing.assert_allclose(np.diff(angle) % 12, 1, atol=1e-4)
    targets = loaded.data.test[2]["targets"]
    anomalies = found.decode(targets, None)
    assert np.isnan(anomalies[:, ~twin.OCEAN_MASK]).all()
    expected = loaded.data.normalization.decode(targets)
    np.testing.assert_allclose(
        anomalies[:, twin.OCEAN_MASK], expected[:, twin.OCEAN_MASK], atol=1e-5
    )
    assert len(data.beginnings(config, state).windows) == 1
    with pytest.raises(ValueError, match="have no dates; use last or all"):
        data.beginnings(config, state, Starts("2010"))
