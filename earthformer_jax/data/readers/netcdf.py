"""Fields of named variables in a NetCDF file or Zarr store."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.data.readers import cf, time_axis
from earthformer_jax.data.readers.joining import matching
from earthformer_jax.data.readers.layout import (
    MIN_DIMENSIONS,
    NUMBERS,
    Layout,
    Undecided,
    UnusedLevel,
    Wanted,
    check_numbers,
    nearest,
    no_variable,
)
from earthformer_jax.data.readers.values import missing

# The dimension of ERA5 in recent months: 1 is ERA5, 5 the preliminary ERA5T.
VERSIONS = "expver"


@dataclasses.dataclass(frozen=True)
class Field:
    """One channel: a variable at fixed positions along its further dimensions.

    Attributes:
        name: of the channel.
        variable: its name in the file.
        units: of the variable.
        standard_name: of the variable; "" if unknown.
        long_name: of the variable; "" if unknown.
        fixed: positions along further dimensions.
        versions: positions along `VERSIONS`, of which the first that has a value gives
            it; () if the variable has no such dimension, or it is in `fixed`.
    """

    name: str
    variable: str
    units: str
    standard_name: str
    long_name: str
    fixed: Mapping[str, int]
    versions: tuple[int, ...] = ()

    @property
    def places(self) -> list[dict[str, int]]:
        """Positions along further dimensions, the ones that come first first."""
        versions = [{VERSIONS: place} for place in self.versions] or [{}]
        return [{**self.fixed, **version} for version in versions]


class NamedFile:
    """A NetCDF file or Zarr store; `layout` describes its contents."""

    def __init__(self, path: Path, wanted: Wanted):
        """Reads everything but the fields.

        Raises:
            ValueError: if the file cannot be read or lacks the requested variables.
        """
        if wanted.axes:
            raise ValueError(
                f"axes={wanted.axes} has no effect on {path}: its "
                "dimensions have names; leave it empty"
            )
        self._path, self._missing = path, wanted.missing
        with self.open() as stored:
            dataset = cf.decoded(stored, path)
            dataset = dataset.set_coords(cf.supporting(dataset))
            self._axes, self._fields, notes = find_fields(dataset, wanted, path)
            first = dataset[self._fields[0].variable]
            latitude, longitude = cf.find_coordinates(first, self._axes, path)
            variables = [field.variable for field in self._fields]
            fixed = [set(field.fixed.items()) for field in self._fields]
            times, more = time_axis.find(
                dataset,
                variables,
                self._axes.time,
                path,
                dict(set.intersection(*fixed)),
            )
            arrays = [stored[field.variable] for field in self._fields]
            codings = [missing.coding(array.attrs, array.dtype) for array in arrays]
            notes += _coding_notes(arrays, codings)
        sizes = [first.sizes.get(dim, 1) for dim in self._axes.plane]
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
            codings=tuple(codings),
            notes=notes + more,
            single=sizes[0] == 1,
            standard_names=tuple(field.standard_name for field in self._fields),
            long_names=tuple(field.long_name for field in self._fields),
        )

    def open(self) -> xr.Dataset:
        """The open file, not decoded, which the caller closes."""
        return cf.opened_stored(self._path)

    def read(
        self, handle: xr.Dataset, sequence: int, steps, rows, columns
    ) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        del sequence  # there is only one
        cut = dict(zip(self._axes.plane, (steps, rows, columns), strict=True))
        channels = [
            _first_known(
                coding.decode(
                    self._stored(handle[field.variable], place | cut), self._missing
                )
                for place in field.places
            )
            for field, coding in zip(self._fields, self.layout.codings, strict=True)
        ]
        return np.stack(channels, axis=-1)

    def _stored(self, array: xr.DataArray, cut: Mapping) -> np.ndarray:
        """`[t, h, w]` of a variable, cut along all dimensions."""
        part = array.isel(cut, missing_dims="ignore")
        plane = time_axis.with_dimension(part, self._axes.time)
        return cf.loaded(plane.transpose(*self._axes.plane), self._path)


def find_fields(
    dataset: xr.Dataset, wanted: Wanted, path: Path
) -> tuple[cf.Dimensions, list[Field], tuple[str, ...]]:
    """The requested channels, the dimensions they share, and notes.

    Raises:
        ValueError: if a variable is missing, not numeric or on another grid, or if a
            level must be chosen.
    """
    gridded = _gridded(dataset)
    if path.is_dir():  # Zarr lists variables in the order of the file system
        gridded.sort()
    notes: tuple[str, ...] = ()
    asked: dict[str, str] = {}  # the name that was requested, by name in the file
    if wanted.variables:
        names = list(wanted.variables)
        if wanted.alike is not None:
            there = {n: str(dataset[n].attrs.get("standard_name", "")) for n in gridded}
            there |= {n: "" for n in names if n in dataset.variables}
            names, notes = matching.all_alike(names, wanted.alike, there)
        asked = dict(zip(names, wanted.variables, strict=True))
        timed = any(cf.has_time(dataset[name]) for name in gridded)
        for name in names:
            if name not in dataset.variables:
                raise no_variable(path, name, gridded)
            check_numbers(name, dataset[name].dtype, path)
            untimed = dataset[name].ndim >= MIN_DIMENSIONS and timed
            if untimed and not cf.has_time(dataset[name]):
                raise cf.no_time(dataset[name], path)
    elif wanted.quantity is not None:
        attributes = {name: dataset[name].attrs for name in gridded}
        names = [wanted.quantity.find(attributes, path)]
    else:
        names, notes = _all_on_one_grid(dataset, gridded, path)
    axes = {name: cf.find_dimensions(dataset[name], path) for name in names}
    shapes = {name: _shape(dataset[name], axes[name]) for name in names}
    first = names[0]
    for name in names:
        if shapes[name] != shapes[first]:
            raise ValueError(
                f"{path}: {first!r} has {cf.sizes_text(shapes[first])} and {name!r} "
                f"{cf.sizes_text(shapes[name])}; variables must share time and grid"
            )
    further = {dim for name in names for dim in axes[name].further}
    if wanted.level and not further:
        raise UnusedLevel(
            f"level={','.join(wanted.level)} has no effect: the variables "
            f"of {path} have no dimension other than time and grid; leave it empty"
        )
    fields = [
        field
        for name in names
        for field in _at_levels(
            dataset[name].rename(asked.get(name, name)),
            name,
            axes[name].further,
            wanted.level,
            further,
            path,
        )
    ]
    return axes[first], fields, notes + _version_notes(dataset, fields)


def _gridded(dataset: xr.Dataset) -> list[str]:
    """Variables of three or more dimensions, or of two if there are no others."""
    fields = dataset.data_vars
    least = MIN_DIMENSIONS
    if all(array.ndim < MIN_DIMENSIONS for array in fields.values()):
        least = MIN_DIMENSIONS - 1
    return [str(name) for name, array in fields.items() if array.ndim >= least]


def _all_on_one_grid(
    dataset: xr.Dataset, gridded: list[str], path: Path
) -> tuple[list[str], tuple[str, ...]]:
    """All numeric variables on the grid that most of them share.

    Those with a time, and on a plane, go before others.

    Raises:
        ValueError: if there are none.
        Undecided: if as many variables are on one grid as on another.
    """
    numeric = [name for name in gridded if dataset[name].dtype.kind in NUMBERS]
    if not numeric:
        for name in gridded[:1]:
            check_numbers(name, dataset[name].dtype, path)
        there = ", ".join(
            f"{name} ({', '.join(map(str, array.dims))})"
            for name, array in dataset.data_vars.items()
        )
        raise ValueError(
            f"{path} has no variable of two or more dimensions; there are: "
            f"{there or 'none'}"
        )
    usable = [n for n in numeric if cf.has_time(dataset[n])] or numeric
    axes = {name: cf.horizontal_axes(dataset[name]) for name in usable}
    if max(axes.values()) == 2:  # sections and zonal means are not fields
        usable = [name for name in usable if axes[name] != 1]
    groups: dict[tuple, list[str]] = {}
    for name in usable:
        shape = _shape(dataset[name], cf.find_dimensions(dataset[name], path))
        groups.setdefault(tuple(shape.items()), []).append(name)
    names = max(groups.values(), key=len)
    equal = [",".join(x) for x in groups.values() if len(x) == len(names)]
    if len(equal) > 1:
        raise Undecided(
            f"{path}: {' and '.join(equal)} have different grids or times; choose what "
            f"to forecast, variables={' or variables='.join(equal)}",
            [{"variables": text} for text in equal],
        )
    plane = set(cf.find_dimensions(dataset[names[0]], path).plane)
    beside = [  # such as flags and standard errors on the same grid
        str(name)
        for name, array in dataset.coords.items()
        if plane <= set(array.dims) and not cf.is_position(array)
    ]
    left = [name for name in gridded if name not in names] + beside
    return names, ((f"left out: {', '.join(left)}",) if left else ())


def _coding_notes(
    arrays: Sequence[xr.DataArray], codings: Sequence[missing.Coding]
) -> tuple[str, ...]:
    """What the way in which numbers are stored decides."""
    notes = {}  # without repetitions: several levels are of one variable
    for array, coding in zip(arrays, codings, strict=True):
        if coding.limited:
            notes[
                f"values of {array.name!r} outside its valid range, "
                f"{coding.valid_text()}, are missing"
            ] = None
        if array.encoding.get(cf.ZERO_FILL):
            notes[
                f"0 is a number in {array.name!r}, although Zarr fills empty chunks "
                "with it"
            ] = None
    return tuple(notes)


def _shape(array: xr.DataArray, axes: cf.Dimensions) -> dict[str, int]:
    return {dim: array.sizes.get(dim, 1) for dim in axes.plane}


def _at_levels(
    array: xr.DataArray,
    variable: str,
    further: tuple[str, ...],
    level: tuple[str, ...],
    known: set[str],
    path: Path,
) -> list[Field]:
    """One field for each combination of positions along the further dimensions.

    Args:
        array: the variable, with the name that its fields get.
        variable: its name in the file.
        further: its dimensions other than time and grid.
        level: the levels that the user chose.
        known: further dimensions of all variables.
        path: of the file.
    """
    long = [dim for dim in further if array.sizes[dim] > 1]
    versions: tuple[int, ...] = ()
    asked = {item.partition("=")[0].strip() for item in level if "=" in item}
    asked |= {VERSIONS} if level and not asked and long == [VERSIONS] else set()
    if VERSIONS in long and VERSIONS not in asked:
        long.remove(VERSIONS)
        versions = tuple(map(int, np.argsort(_labels(array, VERSIONS), kind="stable")))
    chosen: dict[str, list[str]] = {dim: [] for dim in long}
    for item in level:
        dim, equals, value = item.partition("=")
        if not equals:
            dim, value = (long[0] if len(long) == 1 else ""), item
        if dim.strip() in chosen:
            chosen[dim.strip()].append(value.strip())
        elif equals and dim.strip() not in known:
            raise ValueError(
                f"level={item}: {path} has no such dimension other than time "
                f"and grid{nearest(dim, known)}; there are: {', '.join(sorted(known))}"
            )
    if not all(chosen.values()):
        labels = {dim: _labels(array, dim) for dim in long}
        there = " and ".join(
            f"{len(x)} levels along {dim} ({_some(x)})" for dim, x in labels.items()
        )
        example = ",".join(f"{dim}={x[0]}" for dim, x in labels.items())
        example = example.partition("=")[2] if len(long) == 1 else example
        raise Undecided(
            f"`level` is needed: {array.name!r} of {path} has {there}; "
            f"choose, for example level={example}",
            [{"level": example}],
        )
    fixed = {dim: 0 for dim in further if array.sizes[dim] == 1}
    fields = []
    for values in itertools.product(*chosen.values()):
        places = dict(zip(chosen, values, strict=True))
        indices = {dim: _place(array, dim, v, path) for dim, v in places.items()}
        several = [v for dim, v in places.items() if len(chosen[dim]) > 1]
        name = "_".join([str(array.name), *several])
        units, standard_name, long_name = (
            str(array.attrs.get(key, "")).strip()
            for key in ("units", "standard_name", "long_name")
        )
        fields.append(
            Field(
                name,
                variable,
                units,
                standard_name,
                long_name,
                fixed | indices,
                versions,
            )
        )
    return fields


def _version_notes(dataset: xr.Dataset, fields: Sequence[Field]) -> tuple[str, ...]:
    """What `Field.versions` means for the values, if there are any."""
    merged = [field for field in fields if field.versions]
    if not merged:
        return ()
    labels = _labels(dataset[merged[0].variable], VERSIONS)
    first, *others = (labels[i] for i in merged[0].versions)
    return (
        f"values are those of {VERSIONS}={first}, and where it has none, of "
        f"{VERSIONS}={', '.join(others)}; level={VERSIONS}={first} reads one alone",
    )


def _first_known(versions: Iterable[np.ndarray]) -> np.ndarray:
    """Values of the first version, and of the next where it has none."""
    return functools.reduce(lambda a, b: np.where(np.isnan(a), b, a), versions)


def _place(array: xr.DataArray, dim: str, value: str, path: Path) -> int:
    """Index of a level by its coordinate, or by its number if there is none."""
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
        f"level={value}: {dim!r} of {array.name!r} in {path} has no such "
        f"value; there are: {_some(labels)}"
    )


def _labels(array: xr.DataArray, dim: str) -> list[str]:
    """The positions along a dimension, as a user writes them."""
    if dim not in array.coords:
        return [str(i) for i in range(array.sizes[dim])]
    values = array.coords[dim].values
    if values.dtype.kind in "fiu":
        return [f"{value:g}" for value in values]
    return [v.decode() if isinstance(v, bytes) else str(v) for v in values]


def _some(labels: list[str], most: int = 12) -> str:
    return ", ".join(labels[:most]) + (", ..." if len(labels) > most else "")
