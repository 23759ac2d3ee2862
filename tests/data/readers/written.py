"""One small series of fields, written in many ways.

A `Way` is a choice of format, type, packing, names, calendar, and so on. `write` writes
the series in that way, and `Series` holds the numbers, dates and coordinates that must
come back.
"""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

import cftime
import h5py
import netCDF4
import numpy as np
import zarr
from xarray.backends.zarr import FillValueCoder

NETCDF: dict[str, Any] = {
    "netcdf3": "NETCDF3_CLASSIC",
    "netcdf3_64": "NETCDF3_64BIT_OFFSET",
    "netcdf4": "NETCDF4",
    "netcdf4_classic": "NETCDF4_CLASSIC",
}
ZARR: dict[str, Any] = {"zarr2": 2, "zarr3": 3}
HDF5 = ("hdf5_scales", "hdf5_names", "hdf5_plain")
# Least and greatest stored number, scale, offset, share of zeros.
FIELDS = {
    "temperature": (1, 2000, 0.01, 273.15, 0.0),
    "rain": (0, 200, 0.1, 0.0, 0.7),
    "anomaly": (-1000, 1000, 0.005, 0.0, 0.0),
    "flux": (1, 2000, 1e-9, 1e-7, 0.0),
    "column": (1, 200, 1e13, 1e15, 0.0),
    "count": (1, 200, 1.0, 0.0, 0.1),
}
LATITUDE = {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"}
LONGITUDE = {"units": "degrees_east", "standard_name": "longitude", "axis": "X"}


@dataclasses.dataclass(frozen=True)
class Way:
    """How a series is written; see `ways` in test_fuzz.py for the choices."""

    format: str
    sizes: tuple[int, int, int] = (12, 5, 7)
    order: str = "thw"
    names: tuple[str, str, str] = ("time", "lat", "lon")
    attributes: str = "all"  # of coordinates: "all", "units", "axis" or "none"
    field: str = "temperature"
    dtype: str = "f4"
    big_endian: bool = False
    packed: bool = False
    fill: str = (
        "none"  # "_FillValue", "missing_value", "both", "nan", "undeclared", ...
    )
    code: float = -9999.0
    valid: str = "none"  # "valid_range", "valid_min" or "valid_max"
    cadence: str = "1D"
    start: tuple[int, ...] = (2001, 1, 1, 0)
    calendar: str = "standard"
    time: str = "days since 1900-01-01"  # or "digits", "iso", "none"
    time_dtype: str = "f8"
    descending: bool = False
    west: float = 30.0
    signed: bool = False  # longitudes -180..180 rather than 0..360
    files: str = "one"  # "parts", "shuffled", "steps", "scalar" or "variables"
    chunked: bool = False
    decoys: tuple[str, ...] = ()  # "bounds", "area", "vertices", "level"


@dataclasses.dataclass(frozen=True)
class Series:
    """What must come back.

    Attributes:
        values: float64 `[t, h, w]`, rows from south to north; NaN where missing.
        minutes: int64 `[t]` since 1970 of the dates in the Gregorian calendar.
        latitude: `[h]` ascending.
        longitude: `[w]` from 0 to 360.
        step: difference of neighbouring stored numbers, in the units of the values.
    """

    values: np.ndarray
    minutes: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    step: float


@dataclasses.dataclass(frozen=True)
class Stored:
    """A variable of a file."""

    name: str
    dims: tuple[str, ...]
    values: np.ndarray
    attributes: dict


def dates(way: Way) -> list[cftime.datetime]:
    """The dates of the frames, in the calendar of the file."""
    start = cftime.datetime(*way.start, calendar=way.calendar)
    count, unit = int(way.cadence[:-1]), way.cadence[-1]
    if unit == "M":
        months = [way.start[1] - 1 + count * i for i in range(way.sizes[0])]
        return [
            start.replace(year=way.start[0] + m // 12, month=m % 12 + 1) for m in months
        ]
    seconds = {"D": 86400, "h": 3600, "m": 60}[unit] * count
    steps = range(way.sizes[0])
    return [start + datetime.timedelta(seconds=seconds * i) for i in steps]


def minutes_of(date: cftime.datetime) -> int:
    """Minutes since 1970; a day that does not exist is the last of its month."""
    month = np.datetime64(f"{date.year:04d}-{date.month:02d}", "M")
    last = ((month + 1).astype("datetime64[D]") - 1).astype(object).day
    day = month.astype("datetime64[D]") + min(date.day, last) - 1
    return int(day.astype(np.int64)) * 1440 + date.hour * 60 + date.minute


def series(way: Way) -> tuple[Series, np.ndarray]:
    """What must come back, and the stored numbers with rows as in the file."""
    rng = np.random.default_rng(7)
    low, high, scale, offset, zeros = FIELDS[way.field]
    numbers = rng.integers(low, high + 1, way.sizes)
    numbers[rng.random(way.sizes) < zeros] = max(low, 0)
    numbers[0, 0, 0], numbers[-1, -1, -1] = low, high
    values = numbers * scale + offset
    stored = numbers.astype(float) if way.packed else values.copy()
    missing = rng.random(way.sizes) < 0.04
    missing[:, 1, 2] = True
    if way.fill != "none":
        values[missing] = np.nan
        stored[missing] = np.nan if way.fill == "nan" else way.code
    if way.valid != "none":
        beyond = (rng.random(way.sizes) < 0.05) & ~missing
        beyond[0, 0, 0] = beyond[-1, -1, -1] = False
        ends = low - 40, high + 40
        if not way.packed:
            ends = ends[0] * scale + offset, ends[1] * scale + offset
        stored[beyond] = ends[0] if way.valid == "valid_min" else ends[1]
        values[beyond] = np.nan
    latitude = -10.0 + 2.5 * np.arange(way.sizes[1])
    longitude = (way.west + 2.5 * np.arange(way.sizes[2])) % 360
    minutes = np.array([minutes_of(date) for date in dates(way)])
    if way.descending:
        stored = stored[:, ::-1]
    step = scale if low != high else 1.0
    return Series(values, minutes, latitude, longitude, step), stored


def times(way: Way) -> tuple[np.ndarray, dict]:
    """Numbers or strings of the time axis, and their attributes."""
    moments = dates(way)
    if way.time == "digits":
        pattern = {"M": "%Y%m", "D": "%Y%m%d"}.get(way.cadence[-1], "%Y%m%d%H%M")
        numbers = np.array([int(m.strftime(pattern)) for m in moments])
        fits = numbers.max() < 2**31
        return numbers.astype("i4" if fits else "f8"), {}
    if way.time == "iso":
        return np.array([m.strftime("%Y-%m-%dT%H:%M:%S") for m in moments]), {}
    attributes = {"units": way.time, "calendar": way.calendar}
    if way.time.startswith("months"):
        year, month = map(int, way.time.split()[-1].split("-")[:2])
        numbers = [12 * (m.year - year) + m.month - month for m in moments]
    else:
        numbers = cftime.date2num(moments, way.time, way.calendar)
    numbers = np.asarray(numbers)
    stored = numbers.astype(way.time_dtype)
    if not np.array_equal(stored.astype(float), numbers):
        stored = numbers.astype("f8")  # not exact in the type
    return stored, attributes


def coordinates(way: Way) -> list[Stored]:
    """Time, latitude and longitude."""
    expected = series(way)[0]
    time, rows, columns = way.names
    latitude, longitude = expected.latitude, expected.longitude
    if way.descending:
        latitude = latitude[::-1]
    if way.signed:
        longitude = (longitude + 180) % 360 - 180
    keys = {"all": set(LATITUDE), "units": {"units"}, "axis": {"axis"}}
    keys = keys.get(way.attributes, set())
    found = []
    if way.time != "none":
        numbers, attributes = times(way)
        if way.attributes in ("all", "axis"):
            attributes = {**attributes, "axis": "T"}
        found.append(Stored(time, (time,), numbers, attributes))
    for name, values, attributes in (
        (rows, latitude, LATITUDE),
        (columns, longitude, LONGITUDE),
    ):
        chosen = {k: v for k, v in attributes.items() if k in keys}
        if "bounds" in way.decoys and name == rows:
            chosen["bounds"] = f"{rows}_bnds"
        found.append(Stored(name, (name,), values, chosen))
    return found


def field(way: Way, name: str = "v") -> Stored:
    """The field as it is stored."""
    _, stored = series(way)
    dtype = np.dtype(way.dtype)
    if dtype.kind in "iu":
        stored = np.round(stored)
    stored = stored.astype(dtype)
    low, high, scale, offset, _ = FIELDS[way.field]
    attributes: dict = {"units": "units of v"}
    if way.packed:
        attributes |= {"scale_factor": scale, "add_offset": offset}
    for key in ("_FillValue", "missing_value"):
        if way.fill in (key, "both"):
            attributes[key] = dtype.type(way.code)
    if way.valid != "none":
        slack = 0.5 if dtype.kind == "f" else 1
        ends = np.array(
            [max(low - slack, 0) if dtype.kind == "u" else low - slack, high + slack]
        )
        if not way.packed:
            ends = ends * scale + offset
        ends = ends.astype(dtype)
        attributes |= {
            "valid_min": {"valid_min": ends[0]},
            "valid_max": {"valid_max": ends[1]},
            "valid_range": {"valid_range": ends},
        }[way.valid]
    if "area" in way.decoys:
        attributes["cell_measures"] = "area: area"
    dims = dict(zip("thw", way.names, strict=True))
    if "level" in way.decoys:
        stored = stored[:, None]
        order = [0, 1, 2, 3] if way.order == "thw" else [1, 0, 2, 3]
        names = np.array([dims["t"], "level", dims["h"], dims["w"]])
        return Stored(name, tuple(names[order]), stored.transpose(order), attributes)
    stored = stored.transpose(["thw".index(axis) for axis in way.order])
    return Stored(name, tuple(dims[a] for a in way.order), stored, attributes)


def decoys(way: Way) -> list[Stored]:
    """Variables that are not fields to forecast."""
    time, rows, columns = way.names
    t, h, w = way.sizes
    found = []
    if "bounds" in way.decoys:
        edges = np.arange(h)[:, None] + np.array([0.0, 1])
        found.append(Stored(f"{rows}_bnds", (rows, "bnds"), edges, {}))
    if "area" in way.decoys:
        found.append(Stored("area", (rows, columns), np.ones((h, w)), {"units": "m2"}))
    if "vertices" in way.decoys:
        corners = np.arange(h * w * 4.0).reshape(h, w, 4)
        for name in ("vertices_latitude", "vertices_longitude"):
            found.append(Stored(name, (rows, columns, "vertices"), corners, {}))
    if "scalar" in way.decoys:
        found.append(Stored("height", (), np.array(2.0), {"units": "m"}))
    return found


def write(way: Way, folder: Path) -> str:
    """Writes the series; returns the path, or the pattern of the files."""
    time = way.names[0]
    shared = coordinates(way)
    values = field(way)
    rest = decoys(way)
    if way.files == "variables":
        backwards = np.flip(values.values, values.dims.index(time))
        other = dataclasses.replace(values, name="u", values=backwards)
        write_file(way, folder / "b", [values, *shared, *rest])
        write_file(way, folder / "a", [other, *shared, *rest])
        return f"{folder}/*{suffix(way)}"
    if way.files == "one":
        return str(write_file(way, folder / "series", [values, *shared, *rest]))
    count = way.sizes[0]
    cuts = [slice(0, 4), slice(4, 5), slice(5, count)]
    if way.files in ("steps", "scalar"):
        cuts = [slice(i, i + 1) for i in range(count)]
    for number, cut in enumerate(cuts):
        if way.files == "shuffled":
            number = (5 * number + 2) % 7
        part = [_cut(v, time, cut, way.files == "scalar") for v in (values, *shared)]
        write_file(way, folder / f"part_{number}", [*part, *rest])
    return f"{folder}/part_*{suffix(way)}"


@dataclasses.dataclass(frozen=True)
class ArrayWay:
    """How a series is written to an array whose axes have no names."""

    format: str  # "npy", "hdf5" or "mat"
    axes: str = "thw"
    sizes: tuple[int, int, int] = (12, 9, 10)
    sequences: int = 3
    channels: int = 2
    told: bool = True  # whether the axes are given
    dtype: str = "f4"
    big_endian: bool = False
    fortran: bool = False


def array(way: ArrayWay) -> np.ndarray:
    """The values `[n, t, h, w, c]`."""
    n, c = (
        size if axis in way.axes else 1
        for axis, size in zip("nc", (way.sequences, way.channels), strict=True)
    )
    rng = np.random.default_rng(3)
    return rng.integers(1, 250, (n, *way.sizes, c)).astype(float)


def write_array(way: ArrayWay, folder: Path) -> str:
    """Writes the array; returns the path."""
    values = array(way)
    letters = "".join(axis for axis in "nthwc" if axis in way.axes)
    values = values.reshape(
        [
            size
            for size, axis in zip(values.shape, "nthwc", strict=True)
            if axis in way.axes
        ]
    )
    values = values.transpose([letters.index(axis) for axis in way.axes])
    dtype = np.dtype(way.dtype)
    values = values.astype(dtype.newbyteorder() if way.big_endian else dtype)
    if way.fortran:
        values = np.asfortranarray(values)
    path = folder / f"series.{'npy' if way.format == 'npy' else 'h5'}"
    if way.format == "npy":
        np.save(path, values)
    else:
        with h5py.File(path, "w") as file:
            file["v"] = values
    return str(path)


def suffix(way: Way) -> str:
    """Of the names of the files."""
    if way.format in NETCDF:
        return ".nc"
    return ".zarr" if way.format in ZARR else ".h5"


def write_file(way: Way, stem: Path, variables: list[Stored]) -> Path:
    """Writes variables to a file, in the format of `way`."""
    path = stem.with_name(stem.name + suffix(way))
    if way.big_endian and (way.format in HDF5 or way.format in ("netcdf4", "zarr2")):
        variables = [
            dataclasses.replace(
                v, values=v.values.astype(v.values.dtype.newbyteorder())
            )
            if v.values.dtype.kind in "iuf"
            else v
            for v in variables
        ]
    writer = _netcdf if way.format in NETCDF else _zarr
    if way.format in HDF5:
        writer = _hdf5
    writer(way, path, variables)
    return path


def _cut(variable: Stored, time: str, cut: slice, scalar: bool) -> Stored:
    """The variable at some times; without the dimension time if `scalar`."""
    if time not in variable.dims:
        return variable
    axis = variable.dims.index(time)
    values = variable.values[(slice(None),) * axis + (cut,)]
    if not scalar:
        return dataclasses.replace(variable, values=values)
    dims = tuple(dim for dim in variable.dims if dim != time)
    attributes = variable.attributes
    if dims:  # the field names its scalar coordinate
        attributes = {**attributes, "coordinates": time}
    return Stored(variable.name, dims, values.take(0, axis), attributes)


def _dims(variables: list[Stored]) -> dict[str, int]:
    sizes = {}
    for v in variables:
        sizes |= dict(zip(v.dims, v.values.shape, strict=True))
    return sizes


def _chunks(way: Way, variable: Stored) -> tuple[int, ...] | None:
    """About two along every dimension, if the file is chunked."""
    if not way.chunked or not variable.dims:
        return None
    return tuple(1 + size // 2 for size in variable.values.shape)


def _netcdf(way: Way, path: Path, variables: list[Stored]) -> None:
    with netCDF4.Dataset(path, "w", format=NETCDF[way.format]) as file:
        file.set_fill_off()
        for dim, size in _dims(variables).items():
            file.createDimension(dim, size)
        for v in variables:
            attributes = dict(v.attributes)
            text = v.values.dtype.kind == "U"
            kind: Any = str if text else v.values.dtype
            endian: Any = {">": "big", "<": "little"}.get(
                v.values.dtype.byteorder, "native"
            )
            made = file.createVariable(
                v.name,
                kind,
                v.dims,
                fill_value=attributes.pop("_FillValue", None),
                endian=endian,
                chunksizes=_chunks(way, v) if way.format == "netcdf4" else None,
            )
            made.set_auto_maskandscale(False)
            made.setncatts(attributes)
            made[...] = v.values.astype(object) if text else v.values


def _zarr(way: Way, path: Path, variables: list[Stored]) -> None:
    version = ZARR[way.format]
    group = zarr.open_group(str(path), mode="w", zarr_format=version)
    for v in variables:
        attributes = {
            key: value.tolist() if isinstance(value, np.generic | np.ndarray) else value
            for key, value in v.attributes.items()
        }
        options: dict = {"dimension_names": v.dims} if version == 3 else {}
        if "_FillValue" in attributes and version == 2:
            options["fill_value"] = attributes.pop("_FillValue")
        if "_FillValue" in attributes:
            code = v.attributes["_FillValue"]
            attributes["_FillValue"] = FillValueCoder.encode(code, code.dtype)
        made = group.create_array(
            v.name,
            shape=v.values.shape,
            dtype=v.values.dtype,
            chunks=_chunks(way, v) or "auto",
            **options,
        )
        made[...] = v.values
        if version == 2:
            attributes["_ARRAY_DIMENSIONS"] = list(v.dims)
        made.attrs.update(attributes)


def _hdf5(way: Way, path: Path, variables: list[Stored]) -> None:
    with h5py.File(path, "w") as file:
        group: Any = file.create_group("Grid") if way.format == "hdf5_names" else file
        for v in variables:
            values = v.values
            if values.dtype.kind == "U":
                values = values.astype("S")
            made = group.create_dataset(
                v.name,
                data=values,
                chunks=_chunks(way, v),
            )
            made.attrs.update(v.attributes)
            if way.format == "hdf5_names":
                made.attrs["DimensionNames"] = np.bytes_(",".join(v.dims))
        if way.format != "hdf5_scales":
            return
        names = {v.name for v in variables}
        for dim, size in _dims(variables).items():
            if dim not in names:
                group.create_dataset(dim, data=np.arange(size))
            group[dim].make_scale(dim)
        for v in variables:
            if v.dims != (v.name,):
                for i, dim in enumerate(v.dims):
                    group[v.name].dims[i].attach_scale(group[dim])
