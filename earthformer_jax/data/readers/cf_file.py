"""Reading one monthly variable from a CF-style NetCDF file or Zarr store."""

import contextlib
import dataclasses
import difflib
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import cftime
import numpy as np
import scipy.io
import xarray as xr

from earthformer_jax.data.readers.grid import order_latitude, order_longitude
from earthformer_jax.data.readers.months import format_month

STANDARD_NAMES = (
    "sea_surface_temperature",
    "sea_surface_temperature_anomaly",
    "surface_temperature_anomaly",
    "sea_surface_foundation_temperature",
    "sea_surface_skin_temperature",
    "sea_surface_subskin_temperature",
    "surface_temperature",
)
WELL_KNOWN_NAMES = (
    "sst",
    "ssta",
    "tos",
    "sst_anomaly",
    "anom",
    "analysed_sst",
    "sea_surface_temperature",
)
# Units whose degree is one kelvin.
KELVIN = ("k", "kelvin", "degk", "deg_k", "degree_kelvin", "degrees_kelvin")
CELSIUS = ("c", "°c", "degc", "deg_c", "celsius", "degree_c", "degrees_c")
CELSIUS += ("degree_celsius", "degrees_celsius", "deg c", "degrees c")

_AXES = {
    "time": ({"time"}, "T", ("time", "t"), r"\bsince\b"),
    "latitude": ({"latitude"}, "Y", ("lat", "latitude", "y"), r"^degrees?_?n"),
    "longitude": ({"longitude"}, "X", ("lon", "longitude", "x"), r"^degrees?_?e"),
}


@dataclasses.dataclass(frozen=True)
class MonthlyVariable:
    """One variable on a regular grid, one field a month without gaps in time.

    Attributes:
        name: the variable's name in the file.
        values: float32 `[m, h, w]`, K or degrees Celsius; NaN where missing.
        latitude: degrees north `[h]`, ascending.
        longitude: degrees east `[w]`, ascending from 0..360.
        first_month: month number of the first field (`data.readers.months`).
    """

    name: str
    values: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    first_month: int


def read(path: Path, variable: str = "") -> MonthlyVariable:
    """Reads a monthly variable; the latitudes may run either way.

    Args:
        path: a NetCDF file or a Zarr directory.
        variable: its name; empty to find it by standard name, usual name or units.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if the file cannot be read, the variable is not there, its grid is
            not regular or its time axis not monthly. The message says what to do.
    """
    with opened(path) as dataset:
        name = find_variable(dataset, variable, path)
        array, axes = _squeezed(dataset[name], path)
        array = array.transpose(axes["time"], axes["latitude"], axes["longitude"])
        _check_units(array, path)
        latitude, longitude = (
            _coordinate(array, axes[axis], axis, path)
            for axis in ("latitude", "longitude")
        )
        months = _month_numbers(_coordinate_array(array, axes["time"], path), path)
        values = loaded(array, path).astype(np.float32)
    try:
        rows = order_latitude(latitude)
        columns, longitude = order_longitude(longitude)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return MonthlyVariable(
        name=name,
        values=values[:, rows][:, :, columns],
        latitude=latitude[rows],
        longitude=longitude,
        first_month=int(months[0]),
    )


@contextlib.contextmanager
def opened(path: Path) -> Iterator[xr.Dataset]:
    """Opens a NetCDF file or Zarr store, times left as numbers.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if it is no such file, or a broken one.
    """
    if not path.exists():
        raise FileNotFoundError(f"config.data.path={path} does not exist{_near(path)}")
    options = {"engine": "zarr", "consolidated": False} if path.is_dir() else {}
    try:
        if not path.is_dir():
            _check_classic_size(path)
            options = {"engine": "netcdf4"}
        with warnings.catch_warnings():  # of attributes that xarray mends
            warnings.simplefilter("ignore", xr.SerializationWarning)
            dataset = xr.open_dataset(path, decode_times=False, **options)
    except Exception as error:  # each backend has its own exceptions
        raise ValueError(_unreadable(path, error)) from error
    with dataset:
        yield dataset


def loaded(array: xr.DataArray, path: Path) -> np.ndarray:
    """The values of an array of an open file; a broken file is named as such."""
    try:
        return array.values
    except Exception as error:  # each backend has its own exceptions
        raise ValueError(_unreadable(path, error)) from error


def find_variable(dataset: xr.Dataset, variable: str, path: Path) -> str:
    """The variable asked for, or the only one that can be meant.

    Raises:
        ValueError: if it is not there, or if several could be meant.
    """
    gridded = [
        str(name) for name, array in dataset.data_vars.items() if array.ndim >= 3
    ]
    there = ", ".join(gridded) or "none"
    if variable:
        if variable in dataset.variables:
            return variable
        raise ValueError(
            f"{path} has no variable {variable!r} (config.data.variable)"
            f"{_suggestion(variable, map(str, dataset.variables))} "
            f"Its variables of three or more dimensions are: {there}"
        )
    standard = [
        name
        for name in gridded
        if dataset[name].attrs.get("standard_name") in STANDARD_NAMES
    ]
    known = [name for name in gridded if name.lower() in WELL_KNOWN_NAMES]
    by_units = [name for name in gridded if _units(dataset[name]) in KELVIN + CELSIUS]
    for candidates in (standard, known, by_units):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise ValueError(
                f"{path} has several temperatures: {', '.join(candidates)}; "
                "choose one with config.data.variable"
            )
    raise ValueError(
        f"{path} has no variable that is a sea surface temperature by standard_name, "
        f"name ({', '.join(WELL_KNOWN_NAMES)}) or units; its variables of three or "
        f"more dimensions are: {there}. Name one with config.data.variable"
    )


def _squeezed(array: xr.DataArray, path: Path) -> tuple[xr.DataArray, dict[str, str]]:
    """Drops axes of length one that are not time, latitude, longitude; finds those."""
    axes = {}
    for axis in _AXES:
        found = [dim for dim in array.dims if is_axis(array, str(dim), axis)]
        if found:
            axes[axis] = found[0]
    extra = [d for d in array.dims if d not in axes.values() and array.sizes[d] == 1]
    array = array.squeeze(extra, drop=True)
    plain = set(axes) == set(_AXES) and set(array.dims) == set(axes.values())
    for coordinate in array.coords.values():
        along = coordinate.attrs.get("standard_name", str(coordinate.name)).lower()
        if coordinate.ndim == 2 and along.removeprefix("nav_").startswith("lat"):
            raise ValueError(
                f"{path}: {array.name!r} lies on a curvilinear grid (its latitude "
                f"{coordinate.name!r} has dimensions {coordinate.dims}); interpolate "
                "it to a regular latitude-longitude grid first"
            )
    if not plain:
        sizes = ", ".join(f"{name}={size}" for name, size in array.sizes.items())
        missing = ", ".join(axis for axis in _AXES if axis not in axes)
        problem = f"no {missing} axis was recognised" if missing else "one too many"
        raise ValueError(
            f"{path}: {array.name!r} has dimensions ({sizes}); expected time, latitude "
            f"and longitude, but {problem}"
        )
    return array, axes


def is_axis(array: xr.DataArray, dim: str, axis: str) -> bool:
    """Whether a dimension is an axis, by its coordinate's attributes or by its name."""
    standard_names, letter, names, units = _AXES[axis]
    attributes = array[dim].attrs if dim in array.coords else {}
    return (
        attributes.get("standard_name") in standard_names
        or attributes.get("axis") == letter
        or dim.lower() in names
        or re.search(units, str(attributes.get("units", "")).lower()) is not None
    )


def _coordinate_array(array: xr.DataArray, dim: str, path: Path) -> xr.DataArray:
    if dim not in array.coords:
        raise ValueError(
            f"{path}: dimension {dim!r} of {array.name!r} has no coordinate variable"
        )
    return array.coords[dim]


def _coordinate(array: xr.DataArray, dim: str, axis: str, path: Path) -> np.ndarray:
    values = loaded(_coordinate_array(array, dim, path), path).astype(np.float64)
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{path}: {axis} {dim!r} has missing values")
    return values


def _units(array: xr.DataArray) -> str:
    return str(array.attrs.get("units", "")).strip().lower()


def _check_units(array: xr.DataArray, path: Path) -> None:
    """Refuses units whose degree is not a kelvin; none at all are let through."""
    units = _units(array)
    if units and units not in KELVIN + CELSIUS:
        raise ValueError(
            f"{path}: {array.name!r} has units {array.attrs['units']!r}; expected K or "
            "degC"
        )


def _month_numbers(time: xr.DataArray, path: Path) -> np.ndarray:
    """Month number of each time step, checked to rise by one.

    Raises:
        ValueError: if times cannot be decoded, are not monthly, or have a gap.
    """
    units = str(time.attrs.get("units", ""))
    values = loaded(time, path)
    since = re.match(r"\s*months?\s+since\s+(\d+)-(\d+)", units, re.IGNORECASE)
    try:
        if since:  # not a CF unit, but a common one; mid-month values end in .5
            base = 12 * int(since[1]) + int(since[2]) - 1
            months = base + np.floor(values.astype(np.float64) + 1e-6).astype(np.int64)
        else:
            calendar = str(time.attrs.get("calendar", "standard"))
            dates = cftime.num2date(values, units, calendar)
            months = np.array([12 * d.year + d.month - 1 for d in dates], np.int64)
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError(
            f"{path}: the times in {time.name!r} cannot be decoded (units {units!r}, "
            f"values from {values[:1]}): {error}. Expected CF units such as "
            "'days since 1800-01-01'"
        ) from None
    _check_monthly(months, path)
    return months


def _check_monthly(months: np.ndarray, path: Path) -> None:
    """Refuses month numbers that do not rise by one."""
    steps = np.diff(months)
    if np.all(steps == 1):
        return
    at = int(np.argmax(steps < 0 if np.any(steps < 0) else steps != 1))
    before, after = format_month(months[at]), format_month(months[at + 1])
    if steps[at] < 0:
        problem = f"it goes back from {before} to {after}"
        remedy = "sort it"
    elif steps[at] == 0:
        problem = f"steps {at} and {at + 1} are both in {before}"
        remedy = "average the data to months, or drop what is double"
    elif np.median(steps) != 1:
        problem = f"{before} is followed by {after}"
        remedy = "a file of monthly means is needed"
    else:
        missing = format_month(months[at] + 1)
        problem = f"{before} is followed by {after}: {missing} is missing"
        if steps[at] > 2:
            problem += f" and {steps[at] - 2} more after it"
        remedy = "fill the gap, or cut the file to the months after it"
    raise ValueError(
        f"{path}: the time axis is not monthly without gaps: {problem}; {remedy}"
    )


def _check_classic_size(path: Path) -> None:
    """Refuses a truncated NetCDF-3 file, which the NetCDF library reads as zeros."""
    with path.open("rb") as file:
        signature = file.read(4)
    if signature in (b"CDF\x01", b"CDF\x02"):
        # Mapped, not read; an array that ends behind the end of the file is an error.
        scipy.io.netcdf_file(path, mmap=True).close()


def _unreadable(path: Path, error: Exception) -> str:
    if path.is_dir():
        return (
            f"config.data.path={path} is a directory but not a Zarr store that can be "
            f"read ({error}); expected a NetCDF file, a Zarr directory, or a directory "
            "that holds CMIP_train.nc or SODA_train.nc"
        )
    with path.open("rb") as file:
        start = file.read(8)
    size = path.stat().st_size
    if start[:3] == b"CDF" or start[1:4] == b"HDF":
        return (
            f"config.data.path={path} is a NetCDF file that cannot be read: it is "
            f"truncated or damaged ({size} bytes; {error}). Download or write it again"
        )
    return (
        f"config.data.path={path} is not a NetCDF file ({size} bytes starting with "
        f"{start!r})"
    )


def _suggestion(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else "."


def _near(path: Path) -> str:
    """A similar name in the same directory, or the directory that is missing."""
    if not path.parent.is_dir():
        return f" (nor does its directory {path.parent})"
    return _suggestion(path.name, (entry.name for entry in path.parent.iterdir()))
