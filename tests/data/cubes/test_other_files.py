"""Files of another form than that of the training: used alike, or refused."""

import re

import numpy as np
import pytest
import xarray as xr

from tests.data import cube_files
from tests.data.cubes.other_forms import (
    IN_LEN,
    days,
    find,
    finer,
    globe,
    holes,
    kelvin,
    steps,
    trained,
    units,
    without_coordinates,
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("train") / "train.nc", days())


FORMS = {
    "the same": (days, ""),
    "other order of variables": (lambda: days()[["P", "T"]], "in the order T, P"),
    "another variable": (
        lambda: days().assign(Q=days()["T"]),
        "left out, .* do not know|left out, since the model does not know them: Q",
    ),
    "other case": (lambda: days().rename(T="t", P="p"), "'T' is the variable 't'"),
    "standard names": (
        lambda: days().rename(T="t2m", P="pr"),
        "'P' is the variable 'pr'",
    ),
    "degC": (
        lambda: units(days(), T=(1, -273.15, "degC")),
        "'T' is converted from degC to K",
    ),
    "degF": (
        lambda: units(days(), T=(1.8, -459.67, "degF")),
        "'T' is converted from degF to K",
    ),
    "kg m-2 s-1": (
        lambda: units(days(), P=(1 / 86400, 0, "kg m-2 s-1")),
        "'P' is converted from kg m-2 s-1 to mm/day",
    ),
    "m s-1": (
        lambda: units(days(), P=(1 / 86400e3, 0, "m s-1")),
        "'P' is converted from m s-1 to mm/day",
    ),
    "another spelling of units": (
        lambda: units(days(), P=(1, 0, "mm d-1"), T=(1, 0, "kelvin")),
        "",
    ),
    "no units": (
        lambda: units(days(), T=(1, 0, "")),
        "'T' has no units and is taken to be in K",
    ),
    "latitudes reversed": (
        lambda: days().isel(lat=slice(None, None, -1)),
        "latitudes run the other way",
    ),
    "longitudes reversed": (
        lambda: days().isel(lon=slice(None, None, -1)),
        "columns are put in the order",
    ),
    "longitudes -180..180": (
        lambda: days().assign_coords(lon=(days().lon + 180) % 360 - 180),
        "longitudes are counted from 340",
    ),
    "longitudes sorted": (lambda: days().sortby("lon"), "columns are put in the order"),
    "the globe": (globe, "4 x 5 of the 4 x 36 cells are used"),
    "the globe from -180": (
        lambda: (
            globe().assign_coords(lon=(globe().lon + 180) % 360 - 180).sortby("lon")
        ),
        "4 x 5 of the 4 x 36 cells are used",
    ),
    "the globe with the meridian twice": (
        lambda: xr.concat(
            [globe(), globe().isel(lon=[0]).assign_coords(lon=[360])], dim="lon"
        ),
        "4 x 5 of the 4 x 37",
    ),
    "two times finer": (lambda: finer(days()), "2 x 2 cells are averaged"),
    "three times finer, the globe, reversed": (
        lambda: finer(globe(), 3).isel(lon=slice(None, None, -1)),
        "12 x 15 of the 12 x 108.*3 x 3 cells are averaged",
    ),
    "finer, with the trained cells": (
        lambda: (
            days()
            .interp(lat=10 + 1.25 * np.arange(7), method="linear")
            .isel()
            .pipe(
                lambda x: x.isel(lon=np.repeat(range(5), 2)[:9]).assign_coords(
                    lon=(340 + 5.0 * np.arange(9)) % 360
                )
            )
        ),
        r"every 2\. row and column is used",
    ),
    "only the last frames": (lambda: days().isel(time=slice(-IN_LEN, None)), ""),
    "all of it": (
        lambda: units(
            finer(globe(), 2)
            .isel(lat=slice(None, None, -1))
            .pipe(lambda x: x.assign_coords(lon=(x.lon + 180) % 360 - 180))
            .sortby("lon")
            .rename(T="t2m")[["P", "t2m"]],
            t2m=(1, -273.15, "celsius"),
        ),
        "'T' is converted",
    ),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_the_same_inputs(tmp_path, state, name, suffix):
    """In whatever form they come; what is changed is said."""
    make, note = FORMS[name]
    found = find(tmp_path / f"x{suffix}", state, make())
    expected = cube_files.stacked(days())[-IN_LEN:]
    np.testing.assert_allclose(kelvin(found), expected, atol=1e-4, rtol=0)
    assert [v.name for v in found.variables] == ["T", "P"]
    assert [v.units for v in found.variables] == ["K", "mm/day"]
    notes = "; ".join(found.notes)
    assert re.search(note, notes), notes


def test_packed(tmp_path, state):
    how = dict(dtype="i2", scale_factor=0.001, add_offset=290.0, _FillValue=-32768)
    cube_files.write(days(), tmp_path / "x.nc", encoding={"T": how})
    found = find(tmp_path / "x.nc", state)
    expected = cube_files.stacked(days())[-IN_LEN:]
    np.testing.assert_allclose(kelvin(found), expected, atol=1e-4, rtol=0)


REFUSED = {
    "a variable is missing": (
        lambda: days()[["T"]],
        {},
        r"variables: T, P, now T \(there is no P\)",
    ),
    "all variables are missing": (
        lambda: days().rename(T="a", P="b").drop_attrs(),
        {},
        r"variables: T, P, now a, b \(there is no T and no P\)",
    ),
    "two variables could be meant": (
        lambda: days().assign(t=days()["T"], t_=days()["T"])[["t", "t_", "P"]],
        {},
        r"there is no T\)",
    ),
    "other units": (
        lambda: units(days(), P=(1, 0, "W m-2")),
        {},
        "units of 'P': 'mm/day', now 'W m-2', which cannot be converted",
    ),
    "not a unit": (
        lambda: units(days(), T=(1, 0, "furlongs per fortnight")),
        {},
        "units of 'T': 'K', now 'furlongs per fortnight', which cannot",
    ),
    "degrees Celsius without a unit": (
        lambda: units(days(), T=(1, -273.15, "")),
        {},
        r"values of 'T' are far from .* below its mean, which were in K; give .* units",
    ),
    "a part of the region": (
        lambda: days().isel(lat=slice(3)),
        {},
        r"grid: 4 x 5 cells .*, now 3 x 5 cells",
    ),
    "another region of this size": (
        lambda: days().assign_coords(lat=days().lat + 10),
        {},
        r"grid: 4 x 5 cells 10N..17.5N .*, now 4 x 5 cells 20N..27.5N",
    ),
    "the other hemisphere": (
        lambda: days().assign_coords(lon=(days().lon + 180) % 360),
        {},
        r"grid: .* 340E..380E, now .* 160E..200E",
    ),
    "a grid that is half a cell off": (
        lambda: globe().assign_coords(lon=globe().lon + 5),
        {},
        r"grid: 4 x 5 cells",
    ),
    "a coarser grid": (
        lambda: days().coarsen(lat=2, lon=5).mean(),
        {},
        r"now 2 x 1 cells",
    ),
    "finer in one direction": (
        lambda: finer(days()).coarsen(lat=2).mean().assign_attrs(),
        {},
        r"now 4 x 10 cells",
    ),
    "another size without coordinates": (
        lambda: without_coordinates(days().isel(lat=slice(3))),
        {},
        r"grid: .*, now 3 x 5 cells",
    ),
    "hours instead of days": (
        lambda: steps(days(), "1h"),
        {},
        "time from frame to frame: 1 day, now 1 hour",
    ),
    "months instead of days": (
        lambda: steps(days(), "1M", "2001-01"),
        {},
        "time from frame to frame: 1 day, now 1 month",
    ),
    "every other day": (
        lambda: days().isel(time=slice(None, None, 2)),
        {},
        "time from frame to frame: 1 day, now 2 days",
    ),
    "too few frames": (
        lambda: days().isel(time=slice(-3, None)),
        {},
        r"in_len=4 frames without a gap are needed .* there are 3 ",
    ),
    "a gap in the frames": (
        lambda: holes(days(), 37),
        {},
        r"in_len=4 frames without a gap are needed up to 2001-02-09; there are 2 ",
    ),
    "two frames on a day": (
        lambda: days().isel(time=[*range(38), 37, 38]),
        {},
        "are both at 2001-02-07",
    ),
    "frames in another order": (
        lambda: days().isel(time=slice(None, None, -1)),
        {},
        "time goes back",
    ),
    "no value": (
        lambda: days().where(days().time < np.datetime64("2001-02-06")),
        {},
        r"all values of 'T' and 'P' are missing in the 4 frames 2001-02-06\.\.2001",
    ),
    "no value of a variable": (
        lambda: days().assign(P=days()["P"] * np.nan),
        {},
        r"all values of 'P' are missing in the 4 frames",
    ),
    "the wrong unit": (
        lambda: units(days(), T=(1, 0, "degC")),
        {},
        "after they were converted from degC to K; correct the attribute units",
    ),
    "no dates": (
        lambda: days().drop_vars("time"),
        {"calendar": True},
        "calendar=True needs dates; x.nc has none",
    ),
    "everything": (
        lambda: units(
            steps(days().isel(lat=slice(3)).rename(P="Q").drop_attrs(), "1h"),
            T=(1, 0, "mm"),
        ),
        {},
        r"variables: .*; units of 'T': .*; time from frame .*; grid: ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path, state, name):
    """With everything that is missing, and the name of the file."""
    make, settings, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        find(tmp_path / "x.nc", state, make(), **settings)
    assert "x.nc" in str(error.value)
