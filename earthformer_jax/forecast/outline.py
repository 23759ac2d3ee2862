"""What a file of forecasts holds, whatever its format."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from earthformer_jax.data.forecasting.beginnings import Beginnings, Variable
from earthformer_jax.data.readers.values import units
from earthformer_jax.forecast import entries as entries_lib
from earthformer_jax.forecast.chunks import Chunk
from earthformer_jax.forecast.entries import Axes, Entry

FILLED = "filled_share"
# Others are not of CF; "unknown" is what conversions from GRIB write.
STANDARD_NAME = re.compile(r"(?!unknown|none|undefined)[a-z]\w*( [a-z_]+)?", re.ASCII)
# Words for the unit 1 that CF does not know.
DIMENSIONLESS = ("-", "~", "none", "unitless", "dimensionless", "(0 - 1)", "0-1")
RESERVED = (
    "time forecast_reference_time lead_time lead_month valid_time last_frame step "
    "realization lat lon y x filled_share start"
).split()


class Piece(NamedTuple):
    """Values of a part of a variable: `variable[where] = values`; NaN where missing."""

    name: str
    where: tuple[slice, ...]
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Outline:
    """Dimensions, coordinates and variables of forecasts, after CF-1.11.

    A single forecast has the dimension `time`; several have `forecast_reference_time`
    and `lead_time`, with their `valid_time`. Without dates, times are the numbers of
    frames. Members follow the times, as `realization`; then come rows and columns.

    Attributes:
        beginnings: what the forecasts begin from.
        steps: number of frames of a forecast.
        members: number of members of the ensemble; 0: there is no ensemble.
        several: a single forecast has the dimensions of several, too.
        anomalies: whether departures from the climatology are written as well.
        packed: whether fields are stored as int16, with an error below 1/65000 of the
            range of their values.
        attributes: global attributes.

    Raises:
        ValueError: if anomalies are wanted of data without a climatology.
    """

    beginnings: Beginnings
    steps: int
    members: int = 0
    several: bool = False
    anomalies: bool = False
    packed: bool = False
    attributes: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.anomalies and self.beginnings.anomalies is None:
            raise ValueError(
                "anomalies: the model was trained on values from which no climatology "
                "was removed, so its forecasts have no anomalies"
            )

    @property
    def count(self) -> int:
        """Number of forecasts."""
        return len(self.beginnings.last)

    @property
    def is_single(self) -> bool:
        """Whether the forecasts have one dimension of time."""
        return self.count == 1 and not self.several

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the variables in the file."""
        wanted = (variable.name for variable in self.beginnings.variables)
        return entries_lib.variable_names(wanted, RESERVED)

    @functools.cached_property
    def anomaly_names(self) -> list[str]:
        """Names of their anomalies; none if they are not wanted."""
        wanted = (f"{name}_anomaly" for name in self.names if self.anomalies)
        return entries_lib.variable_names(wanted, [*RESERVED, *self.names])

    @functools.cached_property
    def index_names(self) -> list[str]:
        """Names of the indices."""
        others = [*RESERVED, *self.names, *self.anomaly_names]
        return entries_lib.variable_names(self.beginnings.indices, others)

    def describe(self, size: Sequence[int]) -> tuple[dict[str, int], list[Entry]]:
        """Sizes of the dimensions, and the variables.

        Args:
            size: number of rows and columns.
        """
        found = self.beginnings
        time, members = self._time, entries_lib.realizations(self.members)
        plane = entries_lib.plane(
            size, found.latitude, found.longitude, found.south_first
        )
        dims = (*time.sizes, *members.sizes)
        labels = [
            entries_lib.labels(name, values, tuple(time.sizes)[:-1])
            for name, values in found.coordinates.items()
        ]
        entries = [*time.entries, *members.entries, *plane.entries, *labels]
        named = [*time.others, *plane.others, *(label.name for label in labels)]
        others = {"coordinates": " ".join(named)}
        others = others if others["coordinates"] else {}
        for names, attributes_of in (
            (self.names, _attributes),
            (self.anomaly_names, _anomaly_attributes),
        ):
            for name, variable in zip(names, found.variables, strict=bool(names)):
                attributes = {**attributes_of(variable), **others}
                own = (*dims, *plane.sizes)
                entries.append(Entry(name, own, attributes, packable=True))
        for name, (label, weights) in zip(
            self.index_names, found.indices.items(), strict=True
        ):
            region = f"{name}_region"
            text = {"long_name": f"area of which {name} is the mean"}
            entries.append(Entry(region, (), text, self._region(label, weights)))
            attributes = _anomaly_attributes(found.variables[0])
            attributes["long_name"] = f"{label} index, " + attributes["long_name"]
            attributes["cell_methods"] = "area: mean"
            attributes["coordinates"] = " ".join([*time.others, region])
            entries.append(Entry(name, dims, attributes))
        attributes = {
            "long_name": "share of the input values that were missing and filled",
            "units": "1",
        }
        if self.is_single:
            attributes["coordinates"] = next(x.name for x in time.entries if not x.dims)
        entries.append(Entry(FILLED, tuple(time.sizes)[:-1], attributes))
        return {**time.sizes, **members.sizes, **plane.sizes}, entries

    def pieces(self, chunk: Chunk) -> Iterator[Piece]:
        """The values of a chunk, in the units of the file.

        Args:
            chunk: of forecasts in model units.
        """
        found, values = self.beginnings, np.asarray(chunk.values)
        values = values if self.members else values[:, None]
        steps = slice(chunk.step, chunk.step + values.shape[2])
        starts = slice(chunk.first, chunk.first + len(values))
        before = () if self.is_single else (starts,)

        def joined(function) -> np.ndarray:
            """Of every forecast `[k, ...]`, as `[n, k, m, ...]`, or fewer axes."""
            each = [[function(i, x) for x in own] for i, own in enumerate(values)]
            whole = np.swapaxes(np.asarray(each, np.float32), 1, 2)
            whole = whole if self.members else whole[:, :, 0]
            return whole[0] if self.is_single else whole

        def decode(number: int, x: np.ndarray) -> np.ndarray:
            minutes = self._minutes
            moments = None if minutes is None else minutes[starts][number, steps]
            return found.decode(x, moments)

        where = (*before, steps)
        if self.members:
            where += (slice(chunk.member, chunk.member + values.shape[1]),)
        full = joined(decode)
        for c, name in enumerate(self.names):
            yield Piece(name, where, _finite(full[..., c]))
        del full
        anomalies = found.anomalies
        if anomalies is not None and (self.anomalies or found.indices):
            departures = joined(lambda _, x: anomalies(x))
            for c, name in enumerate(self.anomaly_names):
                yield Piece(name, where, _finite(departures[..., c]))
            for name, weights in zip(
                self.index_names, found.indices.values(), strict=True
            ):
                yield Piece(name, where, _finite(area_mean(departures, weights)))
        filled = np.asarray(chunk.filled, np.float32)
        yield Piece(FILLED, before, filled[0] if self.is_single else filled)

    @functools.cached_property
    def _valid(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Seconds and minutes `[n, k]` of all frames; None without dates."""
        following = self.beginnings.following
        if self.beginnings.reference is None or following is None:
            return None
        every = [following(i, self.steps) for i in range(self.count)]
        seconds = np.stack([times.seconds for times in every])
        return seconds, np.stack([times.minutes for times in every])

    @property
    def _minutes(self) -> np.ndarray | None:
        return None if self._valid is None else self._valid[1]

    @functools.cached_property
    def _time(self) -> Axes:
        reference, last = self.beginnings.reference, self.beginnings.last
        if reference is None or self._valid is None:
            return entries_lib.frames(last, self.steps, not self.is_single)
        make = entries_lib.single_times if self.is_single else entries_lib.several_times
        return make(reference, self._valid[0])

    def _region(self, label: str, weights: np.ndarray) -> str:
        """ "nino34: cells from 5S to 5N and from 170W to 120W"."""
        latitude, longitude = self.beginnings.latitude, self.beginnings.longitude
        if latitude is None or longitude is None or latitude.ndim + longitude.ndim > 2:
            return label
        rows = latitude[(weights != 0).any(axis=1)]
        columns = longitude[(weights != 0).any(axis=0)]
        south, north = (_degrees(x, "NS") for x in (rows.min(), rows.max()))
        west, east = (_degrees(x, "EW") for x in (columns[0], columns[-1]))
        return f"{label}: cells from {south} to {north} and from {west} to {east}"


def area_mean(anomalies: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """An index `[...]`: the mean over an area of the first channel.

    Args:
        anomalies: `[..., h, w, c]`; NaN outside of the area does not count.
        weights: `[h, w]`, which add up to 1.
    """
    weighted = np.where(weights != 0, anomalies[..., 0] * weights, 0)
    return weighted.sum(axis=(-2, -1))


def _attributes(variable: Variable) -> dict[str, str]:
    """Of the values themselves; spellings of temperatures as in CF, others as given."""
    unit = units.named_temperature(variable.units) or variable.units.strip()
    unit = "1" if unit.lower() in DIMENSIONLESS else unit
    names = variable.standard_name, variable.long_name, variable.name
    meaning = ""
    if unit in units.WORDS:
        are_anomalies = any("anomal" in name.lower() for name in names)
        on_scale = "on_scale" if variable.standard_name else ""  # otherwise unknown
        meaning = "difference" if are_anomalies else on_scale
    standard_name = variable.standard_name
    attributes = {
        "standard_name": standard_name
        if STANDARD_NAME.fullmatch(standard_name)
        else "",
        "long_name": variable.long_name or variable.name,
        "units": unit,
        "units_metadata": f"temperature: {meaning}" if meaning else "",
    }
    return {key: text for key, text in attributes.items() if text}


def _anomaly_attributes(variable: Variable) -> dict[str, str]:
    attributes = _attributes(variable)
    attributes.pop("standard_name", None)  # the departure is another quantity
    if "anomal" not in attributes["long_name"].lower():
        attributes["long_name"] = "anomaly of " + attributes["long_name"]
    unit = units.named_temperature(variable.units)
    if unit:
        attributes["units"] = "K" if unit == units.CELSIUS else unit
        attributes["units_metadata"] = "temperature: difference"
    return attributes


def _degrees(value: float, letters: str) -> str:
    value = (value + 180) % 360 - 180 if letters == "EW" else value
    return f"{abs(value):g}{letters[int(value < 0)]}" if value else "0"


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.float32(np.nan))
