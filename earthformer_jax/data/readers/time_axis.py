"""The times of a variable with named dimensions: where they are, and what they mean.

Dates may be in the coordinate of the time dimension, in an auxiliary coordinate along
it (`valid_time`, `XTIME`, the strings `Times` of WRF), or in one number beside fields
that have no such dimension. A time at an edge of the interval that its bounds name is
replaced by the middle of the interval.
"""

import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.data.readers import decoding
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.times import Times

# When a forecast began, and how long it had run: not the time of the fields.
REFERENCE, PERIOD = "forecast_reference_time", "forecast_period"
# Variables of numbers like 20160928, and of the parts of a date.
DIGIT_NAMES = ("date", "dates", "datetime", "time", "times", "yyyymm", "yyyymmdd")
PARTS = ("year", "month", "day", "hour", "minute")
# Of bounds that the attribute `bounds` does not name.
BOUNDS_SUFFIXES = ("_bnds", "_bounds", "_bound")


def marked(dataset: xr.Dataset) -> xr.Dataset:
    """The same data set, in which every variable that may hold dates is a coordinate.

    Dimensions of length one are removed from them, unless they are those of a field.
    """
    names = [
        str(name)
        for name, variable in dataset.variables.items()
        if _may_be_dates(str(name), variable)
        or (str(name).lower() in (*DIGIT_NAMES, *PARTS) and variable.ndim <= 1)
    ]
    dataset = dataset.set_coords(names)
    fields = [array for array in dataset.data_vars.values() if array.ndim > 2]
    of_fields = {dim for array in fields for dim in array.dims}
    for name in names:
        variable = dataset[name]
        alone = [d for d, n in variable.sizes.items() if n == 1 and d not in of_fields]
        if name in alone:
            dataset = dataset.isel({name: 0})
            continue
        short = [d for d, n in variable.sizes.items() if n == 1 and d != name]
        if short:
            dataset = dataset.assign_coords({name: variable.variable.squeeze(short)})
    return dataset


def single_time(array: xr.DataArray) -> str | None:
    """Name of the number that dates a field without a time dimension, if any."""
    alone = [c for c in array.coords.values() if c.ndim == 0 and _is_valid_time(c)]
    alone.sort(key=lambda c: c.attrs.get("standard_name") != "time")
    if array.ndim == 2:
        alone += [c for c in array.coords.values() if c.ndim == 0 and _is_reference(c)]
    return str(alone[0].name) if alone else None


def with_dimension(array: xr.DataArray, dim: str) -> xr.DataArray:
    """The array, with a dimension of length one if it has no such dimension."""
    return array if dim in array.dims else array.expand_dims(dim)


def preferred(
    array: xr.DataArray, known: Sequence[str], free: Sequence[str]
) -> list[str]:
    """Dimensions that may be time, the best first.

    Args:
        array: the variable.
        known: dimensions that attributes and names say are time, the best first.
        free: dimensions that are not those of another axis.

    Returns:
        those along which a coordinate gives dates follow the others; if the first has
        length one, those along which the forecast runs come before it.
    """
    dated = [
        str(coordinate.dims[0])
        for coordinate in array.coords.values()
        if coordinate.ndim == 1
        and coordinate.dims[0] in free
        and _is_valid_time(coordinate)
    ]
    order = list(dict.fromkeys([*known, *dated]))
    if not order or array.sizes[order[0]] > 1:
        return order
    period = [
        dim
        for dim in free
        if dim in dated or (dim in array.coords and _is_reference(array.coords[dim]))
    ]
    long = [dim for dim in period if array.sizes[dim] > 1]
    return list(dict.fromkeys([*long, *order]))


def find(
    dataset: xr.Dataset,
    names: Sequence[str],
    dim: str,
    path: Path,
    fixed: Mapping[str, int] = types.MappingProxyType({}),
) -> tuple[Times | None, tuple[str, ...]]:
    """Times of variables along a dimension, and notes.

    Args:
        dataset: as `marked` returns it.
        names: of the variables.
        dim: their time dimension, or the name of a single time.
        path: of the file, for messages.
        fixed: positions along further dimensions that all of them have.

    Raises:
        ValueError: if there are times that cannot be decoded, or several coordinates
            give different dates.
    """
    array = dataset[names[0]].isel(fixed, missing_dims="ignore")
    notes = []
    for group in _candidates(array, dim):
        found = {}
        for coordinate in group:
            times, note = _decoded(coordinate, path)
            if times is None:
                notes += [note] if coordinate.name == dim else []
            else:
                found[str(coordinate.name)] = times
        if not found:
            continue
        _check_agreement(found, dim, path)
        name, times = next(iter(found.items()))
        notes = [] if name == dim else [f"dates are those of {name!r}"]
        notes += _other_dates(array, name, times, dim, path)
        methods = [str(dataset[n].attrs.get("cell_methods", "")) for n in names]
        times, more = _in_the_middle(dataset, array.coords[name], times, methods)
        return times, (*notes, *more)
    for found in (_of_parts(array, dim), _since_the_beginning(array, dim, path)):
        if found is not None:
            return found
    steps = array.sizes.get(dim, 1)
    attributes = {**dataset.attrs, **array.attrs}
    dated = decoding.of_attributes(attributes) if steps == 1 else None
    if dated is not None:
        return dated[0], (f"dates are those of the attribute {dated[1]!r}",)
    if not notes and steps > 1:
        notes = [f"{dim!r} has no times: steps are assumed to be equal"]
    return None, tuple(notes)


def _decoded(coordinate: xr.DataArray, path: Path) -> tuple[Times | None, str]:
    """The dates of a coordinate, or a note about what it holds instead."""
    name = str(coordinate.name)
    values, units, calendar = _contents(coordinate)
    try:
        times = decoding.decode(values, units, calendar)
    except ValueError as error:
        raise ValueError(
            f"{path}: the time axis {name!r} cannot be used: {error}"
        ) from None
    return times, "" if times else decoding.not_understood(name, values, units)


def _other_dates(
    array: xr.DataArray, name: str, times: Times, dim: str, path: Path
) -> list[str]:
    """Notes about coordinates with standard_name 'time' that give other dates."""
    notes = []
    for coordinate in array.coords.values():
        if coordinate.dims != (dim,) or coordinate.name == name:
            continue
        if coordinate.attrs.get("standard_name") == "time":
            others, _ = _decoded(coordinate, path)
            if others and not np.array_equal(others.minutes, times.minutes):
                other = str(coordinate.name)
                notes.append(
                    f"dates are those of {name!r}; {other!r} has others, from "
                    f"{times_lib.text(others.minutes[0])}"
                )
    return notes


def _check_agreement(found: Mapping[str, Times], dim: str, path: Path) -> None:
    """Rejects coordinates that give different dates."""
    (name, times), *others = found.items()
    for other, differing in others:
        if not np.array_equal(times.minutes, differing.minutes):
            raise ValueError(
                f"{path}: {name!r} and {other!r} give different dates along {dim!r} "
                f"(first {times_lib.text(times.minutes[0])} and "
                f"{times_lib.text(differing.minutes[0])}); give the one that dates the "
                "fields the attribute standard_name='time', or remove the other"
            )


def _of_parts(array: xr.DataArray, dim: str) -> tuple[Times, tuple[str, ...]] | None:
    """Times of coordinates for year and month, and perhaps day, hour and minute."""
    parts = {
        str(name).lower(): coordinate
        for name, coordinate in array.coords.items()
        if str(name).lower() in PARTS and coordinate.dims == (dim,)
    }
    if not {"year", "month"} <= set(parts):
        return None
    columns = [
        parts[name].values if name in parts else np.full(array.sizes[dim], least)
        for name, least in zip(PARTS, (1, 1, 1, 0, 0), strict=True)
    ]
    if any(x.dtype.kind not in "iuf" or np.any(x != np.floor(x)) for x in columns):
        return None
    rows = np.stack(columns, axis=1).astype(np.int64).tolist()
    times = decoding.decode(
        np.array(["{:04d}-{:02d}-{:02d}T{:02d}:{:02d}".format(*row) for row in rows])
    )
    if times is None:
        return None
    return times, (f"dates are those of {', '.join(map(repr, parts))}",)


def _since_the_beginning(
    array: xr.DataArray, dim: str, path: Path
) -> tuple[Times, tuple[str, ...]] | None:
    """Times of a forecast: when it began, and the hours since then along `dim`."""
    start = [
        coordinate
        for coordinate in array.coords.values()
        if coordinate.ndim == 0 and coordinate.attrs.get("standard_name") == REFERENCE
    ]
    period = array.coords.get(dim)
    if not start or period is None or period.attrs.get("standard_name") != PERIOD:
        return None
    values, units, _ = _contents(period)
    unit = decoding.UNITS.get(units.strip().lower().removesuffix("s"))
    began, _ = _decoded(start[0], path)
    if unit is None or began is None or values.dtype.kind not in "iuf":
        return None
    seconds = began.seconds[0] + values.astype(np.float64) * unit
    if not np.all(np.isfinite(seconds)):
        return None
    return decoding.of_seconds(seconds, began.calendar), (
        f"dates are {str(start[0].name)!r} and {dim!r} after it",
    )


def _may_be_dates(name: str, variable: xr.Variable) -> bool:
    if sum(size > 1 for size in variable.shape) > 2:
        return False
    named = name.lower().startswith(("time", "date", "xtime"))
    return (
        variable.attrs.get("standard_name") in ("time", REFERENCE)
        or _has_origin(variable)
        or (named and variable.dtype.kind in "SUO")
    )


def _has_origin(variable) -> bool:
    return " since " in str(variable.attrs.get("units", "")).lower()


def _is_valid_time(coordinate: xr.DataArray) -> bool:
    return not _is_reference(coordinate) and _may_be_dates(
        str(coordinate.name), coordinate.variable
    )


def _is_reference(coordinate: xr.DataArray) -> bool:
    return coordinate.attrs.get("standard_name") in (REFERENCE, PERIOD)


def _candidates(array: xr.DataArray, dim: str) -> list[list[xr.DataArray]]:
    """Coordinates that may date the steps, in groups, the best group first."""
    own = [array.coords[dim]] if dim in array.coords else []
    beside = [
        coordinate
        for name, coordinate in array.coords.items()
        if name != dim
        and (coordinate.dims == (dim,) or _dates_one_step(array, coordinate, dim))
        and (_is_valid_time(coordinate) or str(name).lower() in DIGIT_NAMES)
    ]
    standard = [c for c in beside if c.attrs.get("standard_name") == "time"]
    others = [c for c in beside if c.attrs.get("standard_name") != "time"]
    late = bool(own) and _is_reference(own[0])
    groups = [standard, others, own] if late else [own, standard, others]
    return [group for group in groups if group]


def _dates_one_step(array: xr.DataArray, coordinate: xr.DataArray, dim: str) -> bool:
    return coordinate.ndim == 0 and array.sizes.get(dim) == 1


def _contents(coordinate: xr.DataArray) -> tuple[np.ndarray, str, str]:
    """Values `[t]`, units and calendar."""
    units, calendar = (
        str(coordinate.attrs.get(key, "")) for key in ("units", "calendar")
    )
    return np.atleast_1d(coordinate.values), units, calendar


def _in_the_middle(
    dataset: xr.Dataset, coordinate: xr.DataArray, times: Times, methods: Sequence[str]
) -> tuple[Times, tuple[str, ...]]:
    """Times in the middle of their intervals where they are at an edge, and notes.

    CF 1.12, 7.3: a value whose cell method is other than "point" belongs to the whole
    interval. A time inside the interval is a choice of those who wrote the file, and
    stays; bounds of a climatology (attribute `climatology`) are not intervals.
    """
    name = str(coordinate.name)
    edges = str({**coordinate.encoding, **coordinate.attrs}.get("bounds", ""))
    if edges and edges not in dataset.variables:
        return times, (
            f"the bounds {edges!r} of {name!r} are not in the file: a time at the end "
            "of its interval cannot be recognised",
        )
    there = (name + suffix for suffix in BOUNDS_SUFFIXES)
    edges = edges or next((n for n in there if n in dataset.variables), "")
    if not edges or "climatology" in coordinate.attrs:
        return times, ()
    points = [is_point(text, name) for text in methods]
    if all(points):
        return times, ()
    bounds = dataset[edges].transpose(*coordinate.dims, ..., missing_dims="ignore")
    _, units, calendar = _contents(coordinate)
    found = None
    if bounds.dims[: coordinate.ndim] == coordinate.dims and bounds.size == 2 * len(
        times
    ):
        found = decoding.middle(
            times,
            np.reshape(bounds.values, (len(times), 2)),
            str(bounds.attrs.get("units", units)),
            str(bounds.attrs.get("calendar", calendar)),
        )
    if found is None:
        return times, (
            f"the bounds {edges!r} of {name!r} are ignored: they do not enclose it",
        )
    moved, which = found
    if which and any(points):
        return times, (
            f"{name!r} is the {which} of the interval in {edges!r}: dates are as "
            "stored, since some variables are instantaneous and others are not",
        )
    return moved, ((middle_note(name, which, edges),) if which else ())


def middle_note(name: str, which: str, edges: str) -> str:
    """A note that times are the middle of intervals.

    Args:
        name: of the times.
        which: edge at which they are stored, "end" or "beginning".
        edges: name of the bounds.
    """
    return (
        f"{name!r} is the {which} of the interval in {edges!r}: frames are dated by "
        "its middle"
    )


def is_point(cell_methods: str, name: str) -> bool:
    """Whether values belong to the times rather than to the intervals around them.

    Args:
        cell_methods: attribute of the variable.
        name: of the time axis.
    """
    found = re.findall(rf"\b(?:time|{re.escape(name)})\s*:\s*(\w+)", cell_methods)
    return bool(found) and set(found) == {"point"}
