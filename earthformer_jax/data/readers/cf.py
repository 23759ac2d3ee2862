"""Opens NetCDF files and Zarr stores, and identifies their axes by CF attributes."""

import base64
import dataclasses
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from xarray.backends import ZarrStore

from earthformer_jax.data.readers import time_axis
from earthformer_jax.data.readers.layout import MIN_DIMENSIONS, NUMBERS
from earthformer_jax.data.readers.values import missing

if TYPE_CHECKING:
    import zarr  # slow; xarray imports it for stores


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


# Whether an array of integers in Zarr's format 2 fills chunks with 0, where xarray may
# have meant missing values: an entry of `encoding`.
ZERO_FILL = "zero_fill"
# Attributes that name variables which describe others, rather than fields.
ROLES = (
    "bounds",
    "climatology",
    "coordinates",
    "grid_mapping",
    "cell_measures",
    "ancillary_variables",
)


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
    return decoded(opened_stored(path), path)


def decoded(stored: xr.Dataset, path: Path) -> xr.Dataset:
    """What `opened` returns, of a file opened with `opened_stored`.

    Raises:
        ValueError: if attributes contradict each other.
    """
    try:
        with warnings.catch_warnings():  # about attributes that xarray corrects
            warnings.simplefilter("ignore", xr.SerializationWarning)
            return time_axis.marked(xr.decode_cf(stored, decode_times=False))
    except Exception as error:  # xarray has several
        stored.close()
        raise ValueError(_unreadable(path, error)) from error


def opened_stored(path: Path) -> xr.Dataset:
    """Opens a file as `opened` does, but without decoding anything.

    The attributes declare only such fill values as mark missing data: not the 0 that
    Zarr fills chunks with by default, and none of a coordinate that is 0.

    Raises:
        ValueError: if it is neither, or damaged.
    """
    try:
        if path.is_dir():
            # All fill values become attributes, so that none is decoded, wrongly or in
            # vain; those that count are put back.
            store = ZarrStore.open_group(
                path, mode="r", consolidated=False, use_zarr_fill_value_as_mask=True
            )
            dataset = xr.open_dataset(store, decode_cf=False)
            _correct_zarr_fills(dataset, store.zarr_group)
        else:
            _check_classic_size(path)
            dataset = xr.open_dataset(path, decode_cf=False, engine="netcdf4")
    except Exception as error:  # each backend has its own exceptions
        raise ValueError(_unreadable(path, error)) from error
    for variable in dataset.variables.values():
        if variable.ndim <= 1:
            for name in missing.FILL_ATTRIBUTES:
                if 0 in missing.numbers(variable.attrs.get(name)):
                    del variable.attrs[name]
    return dataset


def loaded(array: xr.DataArray, path: Path) -> np.ndarray:
    """The values of an array of an open file.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        return array.values
    except Exception as error:  # each backend has its own exceptions
        raise ValueError(_unreadable(path, error)) from error


def supporting(dataset: xr.Dataset) -> set[str]:
    """Variables that describe others: no fields, unless the user names them.

    What an attribute of another variable names (bounds, coordinates, cell measures,
    ancillary variables), latitudes and longitudes, and flags, which are codes without
    units, if there is anything else.
    """
    named = {
        word
        for variable in dataset.variables.values()
        for role in ROLES
        for word in re.findall(r"[^\s:]+", str(variable.attrs.get(role, "")))
    }
    arrays = {str(name): array for name, array in dataset.data_vars.items()}
    found = {name for name in arrays if name in named or is_position(arrays[name])}
    flags = {name for name in arrays if _is_flag(arrays[name])} - found
    left = [
        name
        for name, array in arrays.items()
        if name not in found | flags
        and array.ndim >= MIN_DIMENSIONS
        and array.dtype.kind in NUMBERS
    ]
    return found | flags if left else found


def has_time(array: xr.DataArray) -> bool:
    """Whether a dimension is recognised as time, or a number dates the whole field."""
    dims = [str(dim) for dim in array.dims]
    found = _recognised(array, dims, "time")
    return bool(found) or time_axis.single_time(array) is not None


def horizontal_axes(array: xr.DataArray) -> int:
    """How many of rows and columns are recognised: 1 of a section or a zonal mean."""
    dims = [str(dim) for dim in array.dims]
    rows = _recognised(array, dims, "latitude")
    columns = _recognised(array, [d for d in dims if d not in rows[:1]], "longitude")
    return bool(rows) + bool(columns)


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
    for name in AXES:
        free = [dim for dim in dims if dim not in found.values()]
        found[name] = next(iter(_recognised(array, free, name)), None)
    rows, columns, time = found.values()
    if rows is None or columns is None:
        rows, columns = [dim for dim in dims if dim != time][-2:]
    further = [dim for dim in dims if dim not in (time, rows, columns)]
    if time is None:
        time = time_axis.single_time(array) or ("time" if len(dims) == 2 else None)
    if time is None:
        if len(further) != 1:
            raise no_time(array, path)
        time = further.pop()
    return Dimensions(time, rows, columns, tuple(further))


def no_time(array: xr.DataArray, path: Path) -> ValueError:
    """The error for a variable without a dimension that is time."""
    return ValueError(
        f"{path}: none of the dimensions {sizes_text(array.sizes)} of "
        f"{array.name!r} is recognised as time; give it the attribute axis='T' "
        "or the name 'time'"
    )


def find_coordinates(
    array: xr.DataArray, dimensions: Dimensions, path: Path
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Latitude and longitude in degrees, both 1-D or both 2-D; None if unknown.

    Those of every row and column may be written for every time, if they do not change.

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
        still = (
            _without_time(coordinate, dimensions.time)
            for coordinate in array.coords.values()
            if set(plane) <= set(coordinate.dims) <= set(dimensions.plane)
        )
        fields = [
            coordinate.transpose(*plane)
            for coordinate in still
            if coordinate is not None and _in_degrees(coordinate, axis)
        ]
        found.append(loaded(fields[0], path).astype(float) if fields else None)
    known = all(x is not None for x in found) and found[0].ndim == found[1].ndim
    return (found[0], found[1]) if known else (None, None)


def sizes_text(sizes: Mapping) -> str:
    """ "(time: 12, lat: 4, lon: 5)" """
    return "(" + ", ".join(f"{name}: {size}" for name, size in sizes.items()) + ")"


def _recognised(array: xr.DataArray, dims: list[str], name: str) -> list[str]:
    """The dimensions that may be an axis, the most likely first."""
    axis = AXES[name]
    known = [dim for dim in dims if _has_attributes_of(array, dim, name, axis)]
    known += [dim for dim in dims if dim.lower() in axis.names[:3]]
    known += [dim for dim in dims if dim.lower() in axis.names]
    return time_axis.preferred(array, known, dims) if name == "time" else known


def is_position(array: xr.DataArray) -> bool:
    """Whether a variable is a latitude or longitude, by its attributes."""
    units = str(array.attrs.get("units", "")).lower()
    return any(
        array.attrs.get("standard_name") == name or re.match(AXES[name].units, units)
        for name in ("latitude", "longitude")
    )


def _is_flag(array: xr.DataArray) -> bool:
    """Whether the values are codes; a measurement with some codes has units."""
    attributes = array.attrs
    flagged = any(f"flag_{x}" in attributes for x in ("values", "masks", "meanings"))
    return flagged and not str(attributes.get("units", "")).strip(" 1")


def _without_time(coordinate: xr.DataArray, time: str) -> xr.DataArray | None:
    """A coordinate at the first time; None if it changes in time."""
    if time not in coordinate.dims:
        return coordinate
    middle, last = coordinate.sizes[time] // 2, -1
    first = coordinate.isel({time: 0}, drop=True)
    same = (
        np.array_equal(first, coordinate.isel({time: at}), equal_nan=True)
        for at in (middle, last)
    )
    return first if all(same) else None


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


def _correct_zarr_fills(dataset: xr.Dataset, group: "zarr.Group") -> None:
    """Restores `_FillValue`, which xarray replaces by the fill value of the chunks.

    The fill value of the chunks marks missing data (xarray declares it in this way),
    unless it is 0, the default.
    """
    form = group.metadata.zarr_format
    for name, variable in dataset.variables.items():
        array = group[str(name)]
        declared = array.attrs.get("_FillValue")
        if isinstance(declared, str) and variable.dtype.kind == "f":
            declared = _float_of_text(declared)
        if declared is None and array.fill_value:  # type: ignore[union-attr]
            continue
        if declared is None and form == 2 and variable.dtype.kind in "iu":
            variable.encoding[ZERO_FILL] = True
        variable.attrs.pop("_FillValue", None)
        if declared is not None:
            variable.attrs["_FillValue"] = declared


def _float_of_text(text: str) -> float:
    """A number, or as xarray writes it to Zarr: the bytes of a float64 in base64."""
    try:
        return float(text)
    except ValueError:
        return float(np.frombuffer(base64.standard_b64decode(text), "<f8")[0])


def _check_classic_size(path: Path) -> None:
    """Rejects a truncated NetCDF-3 file, which the NetCDF library reads as zeros."""
    with path.open("rb") as file:
        signature = file.read(4)
    if signature in (b"CDF\x01", b"CDF\x02"):
        import scipy.io  # slow, and rarely needed

        # Mapped, not read; an array that extends past the end of the file is an error.
        scipy.io.netcdf_file(path, mmap=True).close()


def _unreadable(path: Path, error: Exception) -> str:
    if path.is_dir():
        return f"path={path} cannot be read as a Zarr store ({error})"
    return (
        f"path={path} is a NetCDF file that cannot be read: it is truncated or damaged "
        f"({path.stat().st_size} bytes; {error}). Download or write it again"
    )
