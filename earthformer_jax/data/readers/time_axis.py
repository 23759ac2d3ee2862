"""The times of a variable with named dimensions: where they are, and what they mean.

Dates may be in the coordinate of the time dimension, in an auxiliary coordinate along
it (`valid_time`, `XTIME`, the strings `Times` of WRF), or in one number beside fields
that have no such dimension. A time at an edge of the interval that its bounds name is
replaced by the middle of the interval.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.data.readers import decoding
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.times import Times

# When a forecast began, and how long it had run: not the time of the fields.
REFERENCE, PERIOD = "forecast_reference_time", "forecast_period"
# Of bounds that the attribute `bounds` does not name.
BOUNDS_SUFFIXES = ("_bnds", "_bounds", "_bound")


def marked(dataset: xr.Dataset) -> xr.Dataset:
    """The same data set, in which every variable that may hold dates is a coordinate.

    Dimensions of length one are removed from them, unless they are their own.
    """
    for name, variable in dataset.variables.items():
        if not _may_be_dates(str(name), variable):
            continue
        dataset = dataset.set_coords(name)
        short = [d for d, size in variable.sizes.items() if size == 1 and d != name]
        if short:
            dataset = dataset.assign_coords({name: variable.squeeze(short)})
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
    dataset: xr.Dataset, names: Sequence[str], dim: str, path: Path
) -> tuple[Times | None, tuple[str, ...]]:
    """Times of variables along a dimension, and notes.

    Args:
        dataset: as `marked` returns it.
        names: of the variables.
        dim: their time dimension, or the name of a single time.
        path: of the file, for messages.

    Raises:
        ValueError: if there are times that cannot be decoded, or several coordinates
            give different dates.
    """
    array = dataset[names[0]]
    notes = []
    for group in _candidates(array, dim):
        found = {}
        for coordinate in group:
            values, units, calendar = _contents(coordinate)
            try:
                times = decoding.decode(values, units, calendar)
            except ValueError as error:
                raise ValueError(
                    f"{path}: the time axis {str(coordinate.name)!r} cannot be used: "
                    f"{error}"
                ) from None
            if times is None:
                name = str(coordinate.name)
                notes.append(decoding.not_understood(name, values, units))
            else:
                found[str(coordinate.name)] = times
        if not found:
            continue
        (name, times), *others = found.items()
        for other, differing in others:
            if not np.array_equal(times.minutes, differing.minutes):
                raise ValueError(
                    f"{path}: {name!r} and {other!r} give different dates along "
                    f"{dim!r} (first {times_lib.text(times.minutes[0])} and "
                    f"{times_lib.text(differing.minutes[0])}); give the one that dates "
                    "the fields the attribute standard_name='time', or remove the other"
                )
        notes = [] if name == dim else [f"dates are those of {name!r}"]
        methods = [str(dataset[n].attrs.get("cell_methods", "")) for n in names]
        times, more = _in_the_middle(dataset, array.coords[name], times, methods)
        return times, (*notes, *more)
    return None, tuple(
        notes or [f"{dim!r} has no times: steps are assumed to be equal"]
    )


def _may_be_dates(name: str, variable: xr.Variable) -> bool:
    if sum(size > 1 for size in variable.shape) > 1:
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
        and _is_valid_time(coordinate)
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
    stays; bounds of a climatology (attribute `climatology`) are no intervals.
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
    if any(_is_point(text, name) for text in methods):
        return times, ()
    ignored = (f"the bounds {edges!r} of {name!r} are ignored: they do not enclose it",)
    bounds = dataset[edges]
    values = bounds.values
    if bounds.dims[: coordinate.ndim] != coordinate.dims or values.shape[-1] != 2:
        return times, ignored
    values = np.reshape(values, (len(times), 2))
    _, units, calendar = _contents(coordinate)
    units = str(bounds.attrs.get("units", units))
    calendar = str(bounds.attrs.get("calendar", calendar))
    if not np.all(np.isfinite(values)):
        return times, ignored
    limits = decoding.decode(values.ravel(), units, calendar)
    if limits is None or limits.calendar != times.calendar:
        return times, ignored
    low, high = np.sort(limits.seconds.reshape(-1, 2), axis=1).T
    if np.any((times.seconds < low - 1) | (times.seconds > high + 1)):
        return times, ignored
    at_edge = np.minimum(times.seconds - low, high - times.seconds) <= 1
    if not np.any(at_edge & (high > low)):
        return times, ()
    which = "end" if np.any(times.seconds > low + 1) else "beginning"
    return decoding.of_seconds((low + high) / 2, times.calendar), (
        f"{name!r} is the {which} of the interval in {edges!r}: frames are dated by "
        "its middle",
    )


def _is_point(cell_methods: str, name: str) -> bool:
    found = re.findall(rf"\b(?:time|{re.escape(name)})\s*:\s*(\w+)", cell_methods)
    return bool(found) and set(found) == {"point"}
