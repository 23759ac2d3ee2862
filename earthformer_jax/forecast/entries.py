"""Variables of a forecast file, whatever its format: coordinates and their names."""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.times import Times

UNITS = {"hours": 3600, "minutes": 60, "seconds": 1}
TURN = 360.0
START = "start"
# Days of a mean month; those of the Gregorian calendar if it is not listed.
MONTH_DAYS = {"360_day": 30.0, "noleap": 365 / 12, "all_leap": 30.5, "julian": 30.4375}
GREGORIAN = ("standard", "proleptic_gregorian")
GREGORIAN_MONTH = 365.2425 / 12
COORDINATES = {
    "lat": {"standard_name": "latitude", "units": "degrees_north"},
    "lon": {"standard_name": "longitude", "units": "degrees_east"},
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A variable of a file.

    Attributes:
        name: of the variable.
        dims: names of its dimensions.
        attributes: of the CF conventions.
        values: numbers or a text; None for float32 values that are written in pieces.
        packable: whether it may be stored as int16.
    """

    name: str
    dims: tuple[str, ...]
    attributes: Mapping[str, str]
    values: np.ndarray | str | None = None
    packable: bool = False


@dataclasses.dataclass(frozen=True)
class Axes:
    """Coordinates along some dimensions.

    Attributes:
        sizes: of the dimensions, in the order of the variables that have them.
        entries: the coordinates.
    """

    sizes: Mapping[str, int]
    entries: tuple[Entry, ...]

    @property
    def others(self) -> list[str]:
        """Coordinates that variables list in their attribute `coordinates`."""
        return [x.name for x in self.entries if x.name not in self.sizes]


def variable_names(names: Iterable[str], reserved: Iterable[str] = ()) -> list[str]:
    """Names that CF allows, all different: "Grid_rain" for "Grid/rain".

    Args:
        names: of variables.
        reserved: names that they must not have.
    """
    taken, found = set(reserved), []
    for name in names:
        plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
        plain = plain if plain[0].isalpha() else f"v_{plain}"
        others = itertools.chain([plain], (f"{plain}_{i}" for i in itertools.count(2)))
        found.append(next(other for other in others if other not in taken))
        taken.add(found[-1])
    return found


def plane(
    size: Sequence[int],
    latitude: np.ndarray | None,
    longitude: np.ndarray | None,
    south_first: bool = False,
) -> Axes:
    """Rows and columns: `lat` and `lon` of a regular grid, otherwise `y` and `x`.

    Args:
        size: number of rows and columns.
        latitude: degrees north `[h]` or `[h, w]`; None if unknown.
        longitude: degrees east `[w]` or `[h, w]`; None if unknown.
        south_first: whether `y` and `x` are numbered from the south and the west, which
            programs draw upwards and to the right.
    """
    if longitude is not None and longitude.ndim == 1:
        # Those on both sides of 0 or 180 degrees east shall increase as well.
        longitude = np.unwrap(longitude, period=TURN)
    found = {"lat": latitude, "lon": longitude}
    known = {name: values for name, values in found.items() if values is not None}
    regular = len(known) == 2 and all(map(_is_monotonic, known.values()))
    dims = ("lat", "lon") if regular else ("y", "x")
    entries = []
    if south_first and not regular:
        for name, length, way in zip(dims, size, ("south", "west"), strict=True):
            text = {"long_name": f"pixel, from the {way}", "units": "1"}
            numbers = np.arange(length, dtype=np.int32)
            entries.append(Entry(name, (name,), text, numbers))
    for name, values in known.items():
        own = dims if values.ndim == 2 else (dims[list(found).index(name)],)
        axis = {"axis": "Y" if name == "lat" else "X"} if regular else {}
        attributes = {
            **COORDINATES[name],
            "long_name": COORDINATES[name]["standard_name"],
        }
        values = np.asarray(values, np.float64)
        entries.append(Entry(name, own, {**attributes, **axis}, values))
    return Axes(dict(zip(dims, size, strict=True)), tuple(entries))


def single_times(reference: Times, valid: np.ndarray) -> Axes:
    """The times of one forecast: the dimension `time`.

    Args:
        reference: the time of the last input, `[1]`.
        valid: seconds since 1970-01-01 `[1, k]` in the same calendar.
    """
    unit, date = _date(reference, valid)
    start, moments = reference.seconds[0] / UNITS[unit], valid[0] / UNITS[unit]
    entries = (
        Entry("forecast_reference_time", (), _reference_attributes(date), start),
        Entry("time", ("time",), {**_valid_attributes(date), "axis": "T"}, moments),
        Entry("lead_time", ("time",), _lead_attributes(unit), moments - start),
    )
    return Axes({"time": valid.shape[1]}, entries)


def several_times(reference: Times, valid: np.ndarray) -> Axes:
    """The times of several forecasts: `forecast_reference_time` and `lead_time`.

    Where some begin at the same time, at different places, the first dimension is
    `start`: coordinates of CF along their own dimension must differ.

    Args:
        reference: the times of their last inputs, `[n]`.
        valid: seconds since 1970-01-01 `[n, k]` in the same calendar.
    """
    unit, date = _date(reference, valid)
    count, steps = valid.shape
    name, lead_name = "forecast_reference_time", "lead_time"
    differ = bool(np.all(np.diff(reference.seconds) > 0))
    dim, axis = (name, {"axis": "T"}) if differ else (START, {})
    start, moments = reference.seconds / UNITS[unit], valid / UNITS[unit]
    lead, attributes = moments[0] - start[0], _lead_attributes(unit)
    more: tuple[Entry, ...] = ()
    series = np.concatenate([reference.seconds[:1], valid[0]])
    if times.is_monthly(float(np.median(np.diff(series))) / 60):
        # Months differ in length: one lead for all, whatever the first start.
        days = MONTH_DAYS.get(reference.calendar, GREGORIAN_MONTH)
        lead = days * 86400 / UNITS[unit] * np.arange(1, steps + 1)
        attributes["comment"] = (
            f"in months of {days:.6g} days; valid_time has the exact times"
        )
        text = {"long_name": "months after the last input", "units": "1"}
        months = np.arange(1, steps + 1, dtype=np.int32)
        more = (Entry("lead_month", (lead_name,), text, months),)
    entries = (
        Entry(name, (dim,), {**_reference_attributes(date), **axis}, start),
        Entry(lead_name, (lead_name,), attributes, lead),
        Entry("valid_time", (dim, lead_name), _valid_attributes(date), moments),
        *more,
    )
    return Axes({dim: count, lead_name: steps}, entries)


def frames(last: np.ndarray, steps: int, several: bool) -> Axes:
    """Numbers of frames, for series without dates: `last_frame` and `step`.

    Args:
        last: numbers of the last inputs, `[n]`.
        steps: number of frames of a forecast.
        several: whether there is a dimension of starts, which is `last_frame` or, if
            these are not different, `start`.
    """
    differ = bool(np.all(np.diff(last) > 0))
    dims = ("last_frame" if differ else START,) if several else ()
    numbers = np.asarray(last if several else last[0], np.int32)
    text = {"long_name": "number of the last input frame, from 0", "units": "1"}
    after = {"long_name": "frames after the last input", "units": "1"}
    step = np.arange(1, steps + 1, dtype=np.int32)
    sizes = dict.fromkeys(dims, len(last))
    return Axes(
        {**sizes, "step": steps},
        (
            Entry("last_frame", dims, text, numbers),
            Entry("step", ("step",), after, step),
        ),
    )


def labels(name: str, values: np.ndarray, dims: tuple[str, ...]) -> Entry:
    """What tells starts apart: numbers or texts, one for each.

    Args:
        name: "event".
        values: `[n]`.
        dims: the dimension of starts; () for a single one.
    """
    values = values if dims else values[0]
    if values.dtype.kind == "i":
        values = values.astype(np.int32)
    attributes = {"long_name": f"{name} of the input frames"}
    if values.dtype.kind in "iuf":
        attributes["units"] = "1"
    if values.dtype.kind == "U" and not dims:
        return Entry(name, dims, attributes, str(values))
    return Entry(name, dims, attributes, values)


def realizations(members: int) -> Axes:
    """The members of an ensemble, numbered from 1; nothing if there are none."""
    if not members:
        return Axes({}, ())
    name = "realization"
    attributes = {"standard_name": name, "long_name": "member", "units": "1"}
    numbers = np.arange(1, members + 1, dtype=np.int32)
    return Axes({name: members}, (Entry(name, (name,), attributes, numbers),))


def _is_monotonic(values: np.ndarray) -> bool:
    steps = np.diff(values) if values.ndim == 1 else np.array([np.nan])
    return bool(np.all(steps > 0) or np.all(steps < 0))


def _date(reference: Times, valid: np.ndarray) -> tuple[str, dict[str, str]]:
    """The largest unit in which the times are whole numbers, and their attributes."""
    every = np.concatenate([reference.seconds, valid.ravel()])
    whole = (unit for unit, size in UNITS.items() if np.all(every % size == 0))
    unit = next(whole, "seconds")
    attributes = {
        "units": f"{unit} since 1970-01-01 00:00:00",
        "calendar": reference.calendar,
    }
    if reference.calendar in GREGORIAN:  # as this package counts: days of 86400 seconds
        attributes["units_metadata"] = "leap_seconds: none"
    return unit, attributes


def _reference_attributes(date: Mapping[str, str]) -> dict[str, str]:
    name = "forecast_reference_time"
    return {"standard_name": name, "long_name": "time of the last input", **date}


def _valid_attributes(date: Mapping[str, str]) -> dict[str, str]:
    return {"standard_name": "time", "long_name": "time of the forecast", **date}


def _lead_attributes(unit: str) -> dict[str, str]:
    return {
        "standard_name": "forecast_period",
        "long_name": "time after the last input",
        "units": unit,
    }
