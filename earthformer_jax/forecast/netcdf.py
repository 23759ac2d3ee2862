"""Writes forecasts into a NetCDF file with CF conventions."""

import dataclasses
import itertools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import netCDF4
import numpy as np

from earthformer_jax.data.forecasting.beginnings import Beginnings
from earthformer_jax.data.readers.times import Times

MISSING = np.float32(netCDF4.default_fillvals["f4"])
HOUR = 3600.0
COORDINATES = {
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
}


@dataclasses.dataclass(frozen=True)
class _Axes:
    """Dimensions of the forecast variables, and names of their coordinates."""

    time: tuple[str, ...]
    plane: tuple[str, str]
    coordinates: str


def write(
    path: Path,
    beginnings: Beginnings,
    forecasts: Iterable[np.ndarray],
    shape: tuple[int, ...],
    attributes: Mapping[str, str],
) -> None:
    """Writes forecasts in the units of the input, completely or not at all.

    A single forecast has the dimension `time`; several have `forecast_reference_time`
    and `lead_time`, with their `valid_time`. Without dates, times are the numbers of
    frames. Memory does not grow with the number of forecasts.

    Args:
        path: of the file; its folder is created.
        beginnings: what the forecasts begin from.
        forecasts: `[k, h, w, c]` in model units, in the order of `beginnings.windows`.
        shape: (k, h, w, c) of a forecast.
        attributes: global attributes of the file.

    Raises:
        OSError: if it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with netCDF4.Dataset(os.fspath(unfinished), "w") as file:
            file.setncatts({"Conventions": "CF-1.11", **attributes})
            axes = _add_coordinates(file, beginnings, shape)
            variables = _add_variables(file, beginnings, axes)
            for i, forecast in enumerate(forecasts):
                minutes = None
                if beginnings.following is not None:
                    minutes = beginnings.following(i, shape[0]).minutes
                values = beginnings.decode(np.asarray(forecast), minutes)
                values = np.where(np.isfinite(values), values, MISSING)
                where = slice(None) if len(axes.time) == 1 else i
                for c, variable in enumerate(variables):
                    variable[where] = values[..., c]
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def variable_names(names: Iterable[str]) -> list[str]:
    """Names that CF allows, all different: "Grid_rain" for "Grid/rain"."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
        plain = plain if plain[0].isalpha() else f"v_{plain}"
        others = itertools.chain([plain], (f"{plain}_{i}" for i in itertools.count(2)))
        found.append(next(other for other in others if other not in found))
    return found


def _add_variables(
    file: netCDF4.Dataset, beginnings: Beginnings, axes: _Axes
) -> list[netCDF4.Variable]:
    variables = []
    plain = variable_names(variable.name for variable in beginnings.variables)
    for name, described in zip(plain, beginnings.variables, strict=True):
        variable = file.createVariable(
            name, "f4", (*axes.time, *axes.plane), zlib=True, fill_value=MISSING
        )
        variable.long_name = described.long_name or described.name
        if described.units:
            variable.units = described.units
        if axes.coordinates:
            variable.coordinates = axes.coordinates
        variables.append(variable)
    return variables


def _add_coordinates(
    file: netCDF4.Dataset, beginnings: Beginnings, shape: tuple[int, ...]
) -> _Axes:
    plane, further = _add_plane(file, beginnings, shape[1:3])
    if beginnings.reference is None or beginnings.following is None:
        time, more = _add_frames(file, beginnings.last, shape[0])
    else:
        valid = [beginnings.following(i, shape[0]) for i in range(len(beginnings.last))]
        time, more = _add_times(file, beginnings.reference, valid, shape[0])
    return _Axes(time, plane, " ".join([*more, *further]))


def _add_plane(
    file: netCDF4.Dataset, beginnings: Beginnings, size: tuple[int, ...]
) -> tuple[tuple[str, str], list[str]]:
    """Dimensions of rows and columns, and the names of 2-D coordinates."""
    found = {"lat": beginnings.latitude, "lon": beginnings.longitude}
    known = {name: values for name, values in found.items() if values is not None}
    regular = [values.ndim for values in known.values()] == [1, 1]
    plane = ("lat", "lon") if regular else ("y", "x")
    for name, length in zip(plane, size, strict=True):
        file.createDimension(name, length)
    for name, values in known.items():
        row_or_column = plane[list(found).index(name)]
        dims = plane if values.ndim == 2 else (row_or_column,)
        variable = file.createVariable(name, "f8", dims)
        variable.setncatts(COORDINATES[name])
        variable[:] = values
    return plane, [] if regular else list(known)


def _add_times(
    file: netCDF4.Dataset, reference: Times, valid: list[Times], steps: int
) -> tuple[tuple[str, ...], list[str]]:
    """Dimensions of time, and the names of further coordinates."""
    hours = np.stack([times.seconds for times in valid]) / HOUR
    start = reference.seconds / HOUR
    single = len(reference) == 1
    dims = ("time",) if single else ("forecast_reference_time", "lead_time")
    for name, length in zip(dims[::-1], (steps, len(reference)), strict=False):
        file.createDimension(name, length)

    def add(name: str, dimensions: tuple[str, ...], values, **attributes: str) -> None:
        variable = file.createVariable(name, "f8", dimensions)
        variable.setncatts(attributes)
        variable[...] = values

    date = {"units": "hours since 1970-01-01", "calendar": reference.calendar}
    name = "forecast_reference_time"
    add(name, dims[:-1], start[0] if single else start, standard_name=name, **date)
    moments = hours[0] if single else hours
    add("time" if single else "valid_time", dims, moments, standard_name="time", **date)
    # Steps of months differ in length: as a dimension, the lead is that of the first.
    lead = hours[0] - start[0]
    add("lead_time", dims[-1:], lead, standard_name="forecast_period", units="hours")
    return dims, [name, "lead_time"] if single else ["valid_time"]


def _add_frames(
    file: netCDF4.Dataset, last: np.ndarray, steps: int
) -> tuple[tuple[str, ...], list[str]]:
    """As `_add_times`, for series without dates: numbers of frames."""
    single = len(last) == 1
    dims = ("step",) if single else ("last_frame", "step")
    for name, length in zip(dims[::-1], (steps, len(last)), strict=False):
        file.createDimension(name, length)
    for name, dimensions, values, text in (
        ("last_frame", dims[:-1], last, "number of the last input frame, from 0"),
        ("step", dims[-1:], np.arange(1, steps + 1), "frames after the last input"),
    ):
        variable = file.createVariable(name, "i4", dimensions)
        variable.long_name = text
        variable[...] = values[0] if not dimensions else values
    return dims, ["last_frame"] if single else []
