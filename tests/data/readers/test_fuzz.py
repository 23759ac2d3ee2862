"""The same series written in many ways comes back the same, or is refused.

More ways: FUZZ_EXAMPLES=5000 python -m pytest tests/data/readers/test_fuzz.py
"""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from earthformer_jax.data.cubes.opening import open_series
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.readers import series
from tests.data.readers import written
from tests.data.readers.written import HDF5, NETCDF, ZARR, Way

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "120"))
profile = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

NAMES = (
    ("time", "lat", "lon"),
    ("time", "latitude", "longitude"),
    ("Time", "Latitude", "Longitude"),
    ("t", "y", "x"),
    ("T", "Y", "X"),
    ("valid_time", "nlat", "nlon"),
    ("time", "j", "i"),
    ("record", "rows", "columns"),
    ("dim_0", "dim_1", "dim_2"),
)
PLAIN_NAMES = NAMES[:3]  # the names alone say what the axes are
SIZES = ((9, 5, 7), (6, 6, 6), (7, 12, 5), (14, 5, 5), (6, 4, 30), (8, 7, 12))
CODES = {
    "u1": (255.0,),
    "u2": (65535.0, 9999.0),
    "i1": (-128.0, -99.0),
    "i2": (-32768.0, -32767.0, -9999.0, -12345.0),
    "i4": (-9999.0, -2147483648.0, 99999999.0),
    "f4": (-9999.0, 1e20, -30000.0, 9.969209968386869e36, -32767.0, 123456.0),
}
CODES["f8"] = CODES["f4"]
TIMES = (
    "days since 1900-01-01",
    "days since 1850-1-1",
    "hours since 1970-01-01 00:00:00",
    "hours since 1900-01-01 00:00:0.0",
    "minutes since 2000-01-01T00:00:00Z",
    "seconds since 1970-01-01 00:00:00 UTC",
    "days since 1990-06-15 12:00",
    "hours since 2000-01-01 06:00:00 +02:00",
)


@st.composite
def ways(draw) -> Way:
    """Ways to write files whose dimensions have names."""

    def choose(*options):
        return draw(st.sampled_from(options))

    form = choose(*NETCDF, *ZARR, *HDF5)
    names = choose(*(PLAIN_NAMES if form == "hdf5_plain" else NAMES))
    attributes = choose("all", "units", "axis", "none")
    sizes = choose(*SIZES)
    known = names in PLAIN_NAMES or attributes in ("all", "axis")
    named = form != "hdf5_plain"
    order = choose("thw", "htw", "wht", "hwt", "twh") if known and named else "thw"
    field = choose(*written.FIELDS)
    dtypes = ["f4", "f8"]
    if form != "netcdf3" and form != "netcdf3_64" and form != "netcdf4_classic":
        dtypes += ["u1", "u2"]
    dtypes += ["i2", "i4"]
    dtype = choose(*dtypes)
    whole = np.dtype(dtype).kind in "iu"
    if whole and dtype[1] == "1":
        field = choose("rain", "column", "count")
    if dtype[0] == "u" and field == "anomaly":
        field = "temperature"
    packed = (whole and field != "count") or draw(st.booleans())
    fills = ["none", "_FillValue", "missing_value", "both", "undeclared", "option"]
    fill = choose(*fills, *([] if whole else ["nan"]))
    code = choose(*CODES[dtype])
    if fill == "undeclared" and (dtype == "u1" or (field, packed) == ("column", False)):
        fill = "both"
    cadence = choose("1D", "1M", "6h", "5m", "1h")
    time = choose(*TIMES, "digits", "iso", "months", "none")
    if time == "months":
        time = "months since 1960-01-01" if cadence == "1M" else TIMES[0]
    if time == "iso" and form not in ("netcdf4", *HDF5):
        time = "digits"
    calendar = choose("standard", "gregorian", "proleptic_gregorian")
    start = choose((2001, 1, 1), (1999, 12, 28), (2004, 2, 20), (1955, 7, 1))
    if cadence == "1M":
        start = (*start[:2], choose(1, 15))
        if time.startswith("months") or time == "digits":
            start = (*start[:2], 1)
    if "since" in time and "months" not in time:
        calendar = choose(calendar, "noleap", "365_day", "360_day", "all_leap")
    if time in ("none", "digits", "iso") and names[0] not in ("time", "Time"):
        time = TIMES[0]
    files = choose(
        "one", "one", "one", "parts", "shuffled", "steps", "scalar", "variables"
    )
    if time == "none" or not named:
        files = "one"
    if files == "scalar" and not (known and "since" in time):
        files = "steps"
    valid = choose("none", "none", "none", "valid_range", "valid_min", "valid_max")
    if valid == "valid_min" and dtype[0] == "u":
        valid = "valid_max"  # no number is below 0
    if files in ("steps", "scalar"):
        sizes = choose((4, 5, 7), (3, 4, 4), (4, 4, 4))
    decoy = ["bounds", "area", "scalar"]
    if files != "scalar" and (form != "hdf5_names" or files == "one"):
        decoy.append("vertices")  # where a field cannot be taken for them
    if known:
        decoy.append("level")
    return Way(
        format=form,
        sizes=sizes,
        order=order,
        names=names,
        attributes=attributes,
        field=field,
        dtype=dtype,
        big_endian=draw(st.booleans()),
        packed=packed,
        fill=fill,
        code=code,
        valid=valid,
        cadence=cadence,
        start=(*start, choose(0, 12) if cadence in ("6h", "5m", "1h") else 0),
        calendar=calendar,
        time=time,
        time_dtype=choose("f8", "i4", "f4"),
        descending=draw(st.booleans()),
        west=choose(0.0, 30.0, 172.5, 352.5),
        signed=draw(st.booleans()),
        files=files,
        chunked=draw(st.booleans()),
        decoys=tuple(sorted(draw(st.sets(st.sampled_from(decoy), max_size=2))))
        if named
        else (),
    )


def options(way: Way, path: str) -> Settings:
    """The settings a user gives with this file."""
    missing = ()
    if way.fill == "option":
        _, _, scale, offset, _ = written.FIELDS[way.field]
        missing = (way.code * scale + offset if way.packed else way.code,)
    return Settings(path=path, missing=missing)


def difference(way: Way, path: str) -> str:
    """How the series differs from what was written; "" if it does not.

    Raises:
        ValueError: if it is refused.
    """
    expected, _ = written.series(way)
    cube, _ = open_series(options(way, path))
    values = series.in_memory(cube).frames.read(0, cube.frames.shape[0])
    wanted = {"v": expected.values}
    if way.files == "variables":
        wanted["u"] = expected.values[::-1]
    names = [name.removeprefix("Grid/") for name in cube.names]
    if set(names) != set(wanted):
        return f"variables {cube.names}"
    declared = way.attributes in ("all", "units") or way.names in PLAIN_NAMES
    for axis in ("latitude", "longitude"):
        found = getattr(cube, axis)
        if found is None:
            if declared:
                return f"{axis} is not known"
            continue
        apart = found - getattr(expected, axis)
        if axis == "longitude":
            apart = (apart + 180) % 360 - 180
        if np.abs(apart).max() > 1e-4:
            return f"{axis} {found}"
    if cube.minutes is None:
        if way.time != "none":
            return f"no dates, {cube.notes}"
    elif not np.array_equal(cube.minutes, expected.minutes):
        return f"dates {cube.minutes[:3]} for {expected.minutes[:3]}"
    for place, name in enumerate(names):
        got, right = values[..., place].astype(np.float64), wanted[name]
        if cube.latitude is None and way.descending:
            right = right[:, ::-1]
        if got.shape != right.shape:
            return f"shape {got.shape}"
        if not np.array_equal(np.isnan(got), np.isnan(right)):
            return f"{np.isnan(got).sum()} missing for {np.isnan(right).sum()}"
        if np.nanmax(np.abs(got - right)) > 0.1 * expected.step:
            return f"values off by up to {np.nanmax(np.abs(got - right)):g}"
        if cube.units[place] != "units of v":
            return f"units {cube.units[place]!r}"
    return ""


def may_be_refused(way: Way) -> bool:
    """Whether a refusal is right."""
    grouped_frames = way.format == "hdf5_names" and way.files == "scalar"
    return way.fill == "undeclared" or grouped_frames


@profile
@given(ways())
def test_the_same_or_refused(way):
    with tempfile.TemporaryDirectory() as folder:
        path = written.write(way, Path(folder))
        try:
            found = difference(way, path)
        except ValueError as error:
            if may_be_refused(way):
                assert len(str(error)) > 20
                return
            pytest.fail(f"{way}\nis refused: {error}")
    assert not found, f"{way}\n{found}"


ARRAYS = ("thw", "hwt", "twh", "wht", "thwc", "tchw", "cthw", "hwtc", "nthw", "nhwt")
ARRAYS += ("nthwc", "ntchw", "nhwtc", "cnthw")
CONVENTIONS = ("thw", "thwc", "tchw", "nthw", "nthwc", "ntchw")  # common without words


@st.composite
def array_ways(draw) -> written.ArrayWay:
    """Ways to write arrays whose axes have no names."""

    def choose(*options):
        return draw(st.sampled_from(options))

    told = draw(st.booleans())
    sizes = [(12, 9, 10), (20, 16, 16), (9, 9, 9)]
    if told:  # otherwise an axis of at most 8 is channels
        sizes += [(5, 9, 9), (6, 4, 5), (9, 1, 12)]
    return written.ArrayWay(
        format=choose("npy", "hdf5"),
        axes=choose(*(ARRAYS if told else CONVENTIONS)),
        sizes=choose(*sizes),
        sequences=choose(3, 12, 20),
        channels=choose(1, 2, 3, 8),
        told=told,
        dtype=choose("u1", "i2", "i4", "f4", "f8"),
        big_endian=draw(st.booleans()),
        fortran=draw(st.booleans()),
    )


def array_difference(way: written.ArrayWay, path: str) -> str:
    """How an array differs from what was written; "" if it does not.

    Raises:
        ValueError: if it is refused.
    """
    right = written.array(way)
    right = right.reshape(-1, *right.shape[2:])
    given = Settings(path=path, axes=way.axes if way.told else "")
    cube, _ = open_series(given)
    values = series.in_memory(cube).frames.read(0, cube.frames.shape[0])
    if values.shape != right.shape:
        return f"shape {values.shape}"
    return "" if np.array_equal(values, right) else "other values"


@settings(profile, max_examples=max(100, EXAMPLES // 5))
@given(array_ways())
def test_arrays_the_same_or_refused(way):
    with tempfile.TemporaryDirectory() as folder:
        path = written.write_array(way, Path(folder))
        try:
            found = array_difference(way, path)
        except ValueError as error:
            assert not way.told, f"{way}\nis refused: {error}"
            assert "axes" in str(error)
            return
    assert not found, f"{way}\n{found}"


def test_axes_by_attributes(tmp_path):
    """Found by trying more ways: a square grid stored with columns first."""
    names = ("dim_0", "dim_1", "dim_2")
    way = Way("hdf5_names", (9, 5, 5), "twh", names, "axis", field="flux")
    assert not difference(way, written.write(way, tmp_path))


@pytest.mark.parametrize("number", [1e40, 1e46, -1e300])
def test_a_missing_value_beyond_float32(tmp_path, number):
    """Found by trying more ways: no value is that, so none is missing."""
    np.save(tmp_path / "a.npy", np.ones((20, 9, 10), np.float32) * np.arange(10))
    given = Settings(path=f"{tmp_path}/a.npy", missing=(number,))
    cube, _ = open_series(given)
    assert np.isfinite(cube.frames.read(0, 20)).all()
