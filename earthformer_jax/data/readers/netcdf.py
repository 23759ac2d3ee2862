"""Fields of named variables in a NetCDF file or Zarr store."""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.data.readers import cf_file
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.layout import (
    MIN_DIMENSIONS,
    NUMBERS,
    Layout,
    Wanted,
    check_numbers,
    nearest,
    no_variable,
    to_float,
)

# Names of dimensions without attributes that say what they are.
TIME_NAMES = ("time", "t", "times", "valid_time", "date", "datetime", "record", "frame")
TIME_NAMES += ("year", "month", "day", "hour", "step")
ROW_NAMES = ("lat", "latitude", "y", "j", "nj", "nlat", "rlat", "south_north", "row")
COLUMN_NAMES = ("lon", "longitude", "x", "i", "ni", "nlon", "rlon", "west_east")
COLUMN_NAMES += ("column", "col")
DEGREES = {"latitude": (-90.0, 90.0), "longitude": (-360.0, 720.0)}
DEGREE_UNITS = {"latitude": r"degrees?_?n", "longitude": r"degrees?_?e"}


class LevelNeeded(ValueError):
    """A variable has a further dimension; `example` is a level that can be chosen."""

    def __init__(self, message: str, example: str):
        super().__init__(message)
        self.example = example


@dataclasses.dataclass(frozen=True)
class Field:
    """One channel: a variable at fixed places of its further dimensions."""

    name: str
    variable: str
    units: str
    fixed: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Axes:
    """Which dimension of a variable is which; `further` are those beside."""

    time: str
    rows: str
    columns: str
    further: tuple[str, ...]

    @property
    def plane(self) -> tuple[str, str, str]:
        """The dimensions of a channel, in the order it is read."""
        return self.time, self.rows, self.columns


class NamedFile:
    """A NetCDF file or Zarr store; `layout` says what was found in it."""

    def __init__(self, path: Path, wanted: Wanted):
        """Reads everything but the fields.

        Raises:
            ValueError: if the file cannot be read or holds nothing that was asked for.
        """
        if wanted.axes:
            raise ValueError(
                f"config.data.axes={wanted.axes} has no effect on {path}: its "
                "dimensions have names; leave it empty"
            )
        self._path, self._missing = path, wanted.missing
        with contextlib.closing(self.open()) as handle:
            self._axes, self._fields, notes = find_fields(handle.dataset, wanted, path)
            first = handle.dataset[self._fields[0].variable]
            latitude, longitude = _coordinates(first, self._axes, path)
            times, note = _times(first, self._axes.time, path)
        sizes = [first.sizes[dim] for dim in self._axes.plane]
        self.layout = Layout(
            path=path,
            format="Zarr" if path.is_dir() else "NetCDF",
            names=tuple(field.name for field in self._fields),
            units=tuple(field.units for field in self._fields),
            sequences=1,
            steps=sizes[0],
            size=(sizes[1], sizes[2]),
            times=times,
            latitude=latitude,
            longitude=longitude,
            notes=notes + ((note,) if note else ()),
        )

    def open(self) -> "Handle":
        """The open file; to be closed."""
        return Handle(self._path)

    def read(self, handle: "Handle", sequence: int, steps, rows, columns) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        del sequence  # there is one
        cut = dict(zip(self._axes.plane, (steps, rows, columns), strict=True))
        channels = [
            to_float(
                cf_file.loaded(
                    handle.dataset[field.variable]
                    .isel({**field.fixed, **cut})
                    .transpose(*self._axes.plane),
                    self._path,
                ),
                self._missing,
            )
            for field in self._fields
        ]
        return np.stack(channels, axis=-1)


class Handle:
    """An open data set."""

    def __init__(self, path: Path):
        self._stack = contextlib.ExitStack()
        self.dataset = self._stack.enter_context(cf_file.opened(path))

    def close(self) -> None:
        """Closes the file."""
        self._stack.close()


def find_fields(
    dataset: xr.Dataset, wanted: Wanted, path: Path
) -> tuple[Axes, list[Field], tuple[str, ...]]:
    """The channels asked for, the dimensions they share, and notes.

    Raises:
        ValueError: if a variable is missing, is not numeric, lies on another grid, or
            if a level has to be chosen.
    """
    gridded = [
        str(name)
        for name, array in dataset.data_vars.items()
        if array.ndim >= MIN_DIMENSIONS
    ]
    if path.is_dir():  # Zarr lists variables in the order of the file system
        gridded.sort()
    notes: tuple[str, ...] = ()
    if wanted.variables:
        names = list(wanted.variables)
        for name in names:
            if name not in dataset.variables:
                raise no_variable(path, name, gridded)
            check_numbers(name, dataset[name].dtype, path)
    else:
        names, notes = _all_on_one_grid(dataset, gridded, path)
    axes = {name: axes_of(dataset[name], path) for name in names}
    shapes = {name: _shape(dataset[name], axes[name]) for name in names}
    first = names[0]
    for name in names:
        if shapes[name] != shapes[first]:
            raise ValueError(
                f"{path}: {first!r} has {_sizes(shapes[first])} and {name!r} "
                f"{_sizes(shapes[name])}; variables must share time and grid"
            )
    further = {dim for name in names for dim in axes[name].further}
    if wanted.level and not further:
        raise ValueError(
            f"config.data.level={','.join(wanted.level)} has no effect: the variables "
            f"of {path} have no dimension beside time and grid; leave it empty"
        )
    fields = [
        field
        for name in names
        for field in _at_levels(
            dataset[name], axes[name].further, wanted.level, further, path
        )
    ]
    return axes[first], fields, notes


def axes_of(array: xr.DataArray, path: Path) -> Axes:
    """Time, rows and columns of a variable, by attributes, names, or order.

    Raises:
        ValueError: if it has too few dimensions, or time cannot be told.
    """
    dims = [str(dim) for dim in array.dims]
    if len(dims) < MIN_DIMENSIONS:
        raise ValueError(
            f"{path}: {array.name!r} has {_sizes(dict(array.sizes))}; expected time, "
            "rows and columns"
        )

    def find(axis: str, names: tuple[str, ...], taken: Iterable[str | None]):
        free = [dim for dim in dims if dim not in taken]
        known = [dim for dim in free if cf_file.is_axis(array, dim, axis)]
        return (known + [d for d in free if d.lower() in names] + [None])[0]

    rows = find("latitude", ROW_NAMES, ())
    columns = find("longitude", COLUMN_NAMES, (rows,))
    time = find("time", TIME_NAMES, (rows, columns))
    if rows is None or columns is None:
        left = [dim for dim in dims if dim != time]
        rows, columns = left[-2:]
    further = [dim for dim in dims if dim not in (time, rows, columns)]
    if time is None:
        if len(further) != 1:
            raise ValueError(
                f"{path}: none of {_sizes(dict(array.sizes))} of {array.name!r} is "
                "known as time; give it the attribute axis='T' or the name 'time'"
            )
        time, further = further[0], []
    return Axes(time, rows, columns, tuple(further))


def _all_on_one_grid(
    dataset: xr.Dataset, gridded: list[str], path: Path
) -> tuple[list[str], tuple[str, ...]]:
    """All numeric variables on the grid that most of them share."""
    numeric = [name for name in gridded if dataset[name].dtype.kind in NUMBERS]
    if not numeric:
        for name in gridded[:1]:
            check_numbers(name, dataset[name].dtype, path)
        there = ", ".join(
            f"{name} ({', '.join(map(str, array.dims))})"
            for name, array in dataset.data_vars.items()
        )
        raise ValueError(
            f"{path} has no variable of three or more dimensions; there are: "
            f"{there or 'none'}"
        )
    groups: dict[tuple, list[str]] = {}
    for name in numeric:
        shape = _shape(dataset[name], axes_of(dataset[name], path))
        groups.setdefault(tuple(shape.items()), []).append(name)
    names = max(groups.values(), key=len)  # the first of the largest
    left = [name for name in gridded if name not in names]
    return names, ((f"left out: {', '.join(left)}",) if left else ())


def _shape(array: xr.DataArray, axes: Axes) -> dict[str, int]:
    return {dim: array.sizes[dim] for dim in axes.plane}


def _at_levels(
    array: xr.DataArray,
    further: tuple[str, ...],
    level: tuple[str, ...],
    known: set[str],
    path: Path,
) -> list[Field]:
    """One field for each choice of places along the further dimensions.

    Args:
        array: the variable.
        further: its dimensions beside time and grid.
        level: what the user chose.
        known: further dimensions of all variables.
        path: of the file.
    """
    long = [dim for dim in further if array.sizes[dim] > 1]
    chosen: dict[str, list[str]] = {dim: [] for dim in long}
    for item in level:
        dim, equals, value = item.partition("=")
        if not equals:
            dim, value = (long[0] if len(long) == 1 else ""), item
        if dim.strip() in chosen:
            chosen[dim.strip()].append(value.strip())
        elif equals and dim.strip() not in known:
            raise ValueError(
                f"config.data.level={item}: {path} has no such dimension beside time "
                f"and grid{nearest(dim, known)}; there are: {', '.join(sorted(known))}"
            )
    if not all(chosen.values()):
        labels = {dim: _labels(array, dim) for dim in long}
        there = ", ".join(f"{dim}={len(x)} ({_some(x)})" for dim, x in labels.items())
        example = ",".join(f"{dim}={x[0]}" for dim, x in labels.items())
        example = example.partition("=")[2] if len(long) == 1 else example
        raise LevelNeeded(
            f"config.data.level is needed: {array.name!r} of {path} has {there}; "
            f"choose, for example config.data.level={example}",
            example,
        )
    fixed = {dim: 0 for dim in further if dim not in long}
    fields = []
    for values in itertools.product(*chosen.values()):
        places = dict(zip(chosen, values, strict=True))
        indices = {dim: _place(array, dim, v, path) for dim, v in places.items()}
        several = [v for dim, v in places.items() if len(chosen[dim]) > 1]
        name = "_".join([str(array.name), *several])
        units = str(array.attrs.get("units", "")).strip()
        fields.append(Field(name, str(array.name), units, fixed | indices))
    return fields


def _place(array: xr.DataArray, dim: str, value: str, path: Path) -> int:
    """Index of a level by its coordinate, or by its number where there is none."""
    labels = _labels(array, dim)
    if value in labels:
        return labels.index(value)
    try:
        distance = np.abs(np.array([float(label) for label in labels]) - float(value))
        if distance.min() <= 1e-6 * max(1.0, abs(float(value))):
            return int(np.argmin(distance))
    except ValueError:
        pass
    raise ValueError(
        f"config.data.level={value}: {dim!r} of {array.name!r} in {path} has no such "
        f"value; there are: {_some(labels)}"
    )


def _labels(array: xr.DataArray, dim: str) -> list[str]:
    """The places along a dimension, as a user writes them."""
    if dim not in array.coords:
        return [str(i) for i in range(array.sizes[dim])]
    values = array.coords[dim].values
    if values.dtype.kind in "fiu":
        return [f"{value:g}" for value in values]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _some(labels: list[str], most: int = 12) -> str:
    return ", ".join(labels[:most]) + (", ..." if len(labels) > most else "")


def _sizes(shape: Mapping) -> str:
    return "(" + ", ".join(f"{name}={size}" for name, size in shape.items()) + ")"


def _times(
    array: xr.DataArray, dim: str, path: Path
) -> tuple[times_lib.Times | None, str]:
    """Times of a variable, and a note if they are unknown."""
    if dim not in array.coords:
        return None, f"{dim!r} has no times: steps are taken as equal"
    time = array.coords[dim]
    try:
        times = times_lib.decode(
            cf_file.loaded(time, path),
            str(time.attrs.get("units", "")),
            str(time.attrs.get("calendar", "")),
        )
    except ValueError as error:
        raise ValueError(
            f"{path}: the time axis {dim!r} cannot be used: {error}"
        ) from None
    if times is None:
        return None, (
            f"{dim!r} has no units like 'days since 1900-01-01': steps are taken as "
            "equal"
        )
    return times, ""


def _coordinates(
    array: xr.DataArray, axes: Axes, path: Path
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Latitude and longitude, of one dimension each or of two; or None."""
    found = []
    for axis, dim in (("latitude", axes.rows), ("longitude", axes.columns)):
        plain = array.coords[dim] if dim in array.coords else None
        if plain is not None and _in_degrees(plain, axis):
            values = cf_file.loaded(plain, path).astype(np.float64)
            if not np.all(np.isfinite(values)):
                raise ValueError(f"{path}: {axis} {dim!r} has missing values")
            steps = np.diff(values)
            if axis == "latitude" and not (np.all(steps > 0) or np.all(steps < 0)):
                raise ValueError(
                    f"{path}: latitude {dim!r} goes up and down; sort the rows"
                )
            found.append(values)
            continue
        plane = [
            coordinate.transpose(axes.rows, axes.columns)
            for coordinate in array.coords.values()
            if set(coordinate.dims) == {axes.rows, axes.columns}
            and _in_degrees(coordinate, axis)
        ]
        found.append(cf_file.loaded(plane[0], path).astype(float) if plane else None)
    known = all(x is not None for x in found) and found[0].ndim == found[1].ndim
    return (found[0], found[1]) if known else (None, None)


def _in_degrees(coordinate: xr.DataArray, axis: str) -> bool:
    """Whether a coordinate is a latitude or longitude, not a row number or metres."""
    if coordinate.dtype.kind not in "fiu" or not coordinate.size:
        return False
    name = str(coordinate.name).lower().removeprefix("nav_").removeprefix("x")
    units = str(coordinate.attrs.get("units", "")).lower()
    named = coordinate.attrs.get("standard_name") == axis or name.startswith(axis[:3])
    named |= re.match(DEGREE_UNITS[axis], units) is not None
    low, high = DEGREES[axis]
    values = np.asarray(coordinate.values, np.float64)
    return named and not np.any((values < low) | (values > high))
