"""Opens NetCDF files and Zarr stores, and identifies their axes by CF attributes."""

import dataclasses
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import xarray as xr

from earthformer_jax.data.readers import time_axis


@dataclasses.dataclass(frozen=True)
class Axis:
    """How an axis is recognised: by CF attributes, or by the name of its dimension.

    Attributes:
        letter: of the attribute `axis`.
        units: regular expression that its units match.
        names: of dimensions without attributes, the most common first.
        limits: lowest and highest value of a coordinate in degrees.
    """

    letter: str
    units: str
    names: tuple[str, ...]
    limits: tuple[float, float] = (-np.inf, np.inf)


AXES = {
    "latitude": Axis(
        "Y",
        r"^degrees?_?n",
        ("lat", "latitude", "y", "j", "nj", "nlat", "rlat", "south_north", "row"),
        (-90.0, 90.0),
    ),
    "longitude": Axis(
        "X",
        r"^degrees?_?e",
        ("lon", "longitude", "x", "i", "ni", "nlon", "rlon", "west_east")
        + ("column", "col"),
        (-360.0, 720.0),
    ),
    "time": Axis(
        "T",
        r"\bsince\b",
        ("time", "t", "times", "valid_time", "date", "datetime", "record", "frame")
        + ("year", "month", "day", "hour", "step"),
    ),
}


@dataclasses.dataclass(frozen=True)
class Dimensions:
    """Names of the dimensions of a variable; `further` are all others."""

    time: str
    rows: str
    columns: str
    further: tuple[str, ...]

    @property
    def plane(self) -> tuple[str, str, str]:
        """The dimensions of a channel, in the order in which they are read."""
        return self.time, self.rows, self.columns


def opened(path: Path) -> xr.Dataset:
    """Opens a NetCDF file or Zarr store without decoding times; the caller closes it.

    Raises:
        ValueError: if it is neither, or damaged.
    """
    options: dict[str, Any] = {"engine": "netcdf4"}
    if path.is_dir():
        options = {"engine": "zarr", "consolidated": False}
    try:
        if not path.is_dir():
            _check_classic_size(path)
        with warnings.catch_warnings():  # about attributes that xarray corrects
            warnings.simplefilter("ignore", xr.SerializationWarning)
            dataset = xr.open_dataset(path, decode_times=False, **options)
            return time_axis.marked(dataset)
    except Exception as error:  # each backend has its own exceptions
        raise ValueError(_unreadable(path, error)) from error


def loaded(array: xr.DataArray, path: Path) -> np.ndarray:
    """The values of an array of an open file.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        return array.values
    except Exception as error:  # each backend has its own exceptions
        raise ValueError(_unreadable(path, error)) from error


def find_dimensions(array: xr.DataArray, path: Path) -> Dimensions:
    """Time, rows and columns of a variable, by attributes, names, or order.

    For a field without a time dimension, `time` is the name of the number that dates
    it, or "time" if it has only two dimensions.

    Raises:
        ValueError: if it has too few dimensions, or none can be identified as time.
    """
    dims = [str(dim) for dim in array.dims]
    if len(dims) < 2:
        raise ValueError(
            f"{path}: {array.name!r} has {sizes_text(array.sizes)}; expected time, "
            "rows and columns"
        )
    found: dict[str, str | None] = {}
    for name, axis in AXES.items():
        free = [dim for dim in dims if dim not in found.values()]
        known = [dim for dim in free if _has_attributes_of(array, dim, name, axis)]
        known += [dim for dim in free if dim.lower() in axis.names[:3]]
        known += [dim for dim in free if dim.lower() in axis.names]
        if name == "time":
            known = time_axis.preferred(array, known)
        found[name] = known[0] if known else None
    rows, columns, time = found.values()
    if rows is None or columns is None:
        rows, columns = [dim for dim in dims if dim != time][-2:]
    further = [dim for dim in dims if dim not in (time, rows, columns)]
    if time is None:
        time = time_axis.single_time(array) or ("time" if len(dims) == 2 else None)
    if time is None:
        if len(further) != 1:
            raise ValueError(
                f"{path}: none of the dimensions {sizes_text(array.sizes)} of "
                f"{array.name!r} is recognised as time; give it the attribute axis='T' "
                "or the name 'time'"
            )
        time = further.pop()
    return Dimensions(time, rows, columns, tuple(further))


def find_coordinates(
    array: xr.DataArray, dimensions: Dimensions, path: Path
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Latitude and longitude in degrees, both 1-D or both 2-D; None if unknown.

    Raises:
        ValueError: if a coordinate has missing values, or latitudes are not monotonic.
    """
    plane = dimensions.rows, dimensions.columns
    found = []
    for axis, dim in zip(("latitude", "longitude"), plane, strict=True):
        plain = array.coords[dim] if dim in array.coords else None
        if plain is not None and _in_degrees(plain, axis):
            values = loaded(plain, path).astype(np.float64)
            if not np.all(np.isfinite(values)):
                raise ValueError(f"{path}: {axis} {dim!r} has missing values")
            steps = np.diff(values)
            if axis == "latitude" and not (np.all(steps > 0) or np.all(steps < 0)):
                raise ValueError(
                    f"{path}: latitude {dim!r} is not monotonic; sort the rows"
                )
            found.append(values)
            continue
        fields = [
            coordinate.transpose(*plane)
            for coordinate in array.coords.values()
            if set(coordinate.dims) == set(plane) and _in_degrees(coordinate, axis)
        ]
        found.append(loaded(fields[0], path).astype(float) if fields else None)
    known = all(x is not None for x in found) and found[0].ndim == found[1].ndim
    return (found[0], found[1]) if known else (None, None)


def sizes_text(sizes: Mapping) -> str:
    """ "(time: 12, lat: 4, lon: 5)" """
    return "(" + ", ".join(f"{name}: {size}" for name, size in sizes.items()) + ")"


def _has_attributes_of(array: xr.DataArray, dim: str, name: str, axis: Axis) -> bool:
    attributes = array[dim].attrs if dim in array.coords else {}
    return (
        attributes.get("standard_name") == name
        or attributes.get("axis") == axis.letter
        or re.search(axis.units, str(attributes.get("units", "")).lower()) is not None
    )


def _in_degrees(coordinate: xr.DataArray, axis: str) -> bool:
    """Whether a coordinate is a latitude or longitude, not a row number or metres."""
    if coordinate.dtype.kind not in "fiu" or not coordinate.size:
        return False
    name = str(coordinate.name).lower().removeprefix("nav_").removeprefix("x")
    units = str(coordinate.attrs.get("units", "")).lower()
    named = coordinate.attrs.get("standard_name") == axis or name.startswith(axis[:3])
    named |= re.match(AXES[axis].units, units) is not None
    low, high = AXES[axis].limits
    values = np.asarray(coordinate.values, np.float64)
    return named and not np.any((values < low) | (values > high))


def _check_classic_size(path: Path) -> None:
    """Rejects a truncated NetCDF-3 file, which the NetCDF library reads as zeros."""
    with path.open("rb") as file:
        signature = file.read(4)
    if signature in (b"CDF\x01", b"CDF\x02"):
        # Mapped, not read; an array that extends past the end of the file is an error.
        scipy.io.netcdf_file(path, mmap=True).close()


def _unreadable(path: Path, error: Exception) -> str:
    if path.is_dir():
        return f"path={path} cannot be read as a Zarr store ({error})"
    return (
        f"path={path} is a NetCDF file that cannot be read: it is truncated or damaged "
        f"({path.stat().st_size} bytes; {error}). Download or write it again"
    )
