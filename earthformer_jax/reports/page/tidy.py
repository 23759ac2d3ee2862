"""Scores as a tidy table: one row for each number, whatever the task.

`scores.json` nests its numbers as each report needs them. Here every number stands in a
row of its own, with the same columns for all tasks, for spreadsheets, R and pandas.
"""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.reports import scoring
from earthformer_jax.reports.verification import skill
from earthformer_jax.reports.verification.skill import Sampled
from earthformer_jax.reports.verification.sums import BlockSums
from earthformer_jax.reports.verification.units import OF_EVENTS, unit_of

CALLED = {"sucr": "success_ratio", "bias": "frequency_bias"}  # of events
# Axes of scores: which column their positions stand in.
COLUMNS = {
    "threshold": "threshold",
    "pool": "scale",
    "window": "scale",
    "wavelength": "scale",
}
_EVENT = re.compile(
    rf"({'|'.join(OF_EVENTS)})_(m|-?\d[\d.e+-]*)(?:_pool_?(\d+)|_scale_?(\d+))?"
)
_OF_CHANNEL = re.compile(r"(rmse|crps|ratio)_(.+)")
_SKIPPED = "intervals differences flatness rank_histogram members verification".split()


@dataclasses.dataclass(frozen=True)
class Row:
    """One number.

    Attributes:
        forecast: that was scored, "model", "persistence", "member 1".
        score: its name, "mse", "csi".
        part: of what is scored: a region, an index, the space that regimes are judged
            in; "": everything.
        lead: number of the forecast frame, from 1; None: all of them.
        threshold: of an event, "16"; "mean" over thresholds; "": not of an event.
        scale: width in cells of what was pooled or averaged, or a wavelength, "4"; "":
            single cells.
        value: NaN where the score is not defined.
        low, high: limits of its interval; NaN where there is none.
        units: "1" of a number without units; "" if they are not known.
    """

    forecast: str
    score: str
    part: str = ""
    lead: int | None = None
    threshold: str = ""
    scale: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    units: str = ""


def rows(
    scores: Mapping[str, Any],
    sums: BlockSums | None = None,
    channels: Mapping[str, str] | None = None,
) -> list[Row]:
    """The numbers of scores.json that are scores, and those of each lead.

    Left out are tables of counts, rank histograms and differences of two forecasts,
    which are not the score of one forecast at one lead.

    Args:
        scores: what scores.json holds.
        sums: what sums.nc holds, for scores of each lead with their intervals; None:
            there are none.
        channels: their units by name; None: they are not known.
    """
    found = [_with_channel(row, channels or {}) for row in _of_json(scores)]
    if sums is not None:
        for score in skill.sampled(sums):
            found += _of_axes(score, channels or {})
        for score in skill.sampled(sums, names=_with_leads(sums), by_lead=True):
            if "lead" in score.dims:
                found += _of_axes(score, channels or {})
    # What is given twice is the same number, the second time with its interval.
    return list({_key(row): row for row in found}.values())


def _key(row: Row) -> tuple:
    return row.forecast, row.score, row.part, row.lead, row.threshold, row.scale


def _with_leads(sums: BlockSums) -> list[str]:
    """Scores of which each lead has a row; of spectra there would be too many."""
    every = sums.verification
    return [name for name in every.scores if "wavelength" not in every.dims(name)]


def _of_axes(score: Sampled, channels: Mapping[str, str]) -> Iterator[Row]:
    """The rows of a score of all forecasts.

    Args:
        score: with any axes.
        channels: their units by name.
    """
    name = score.name.removesuffix("_m")
    for forecast in score.samples:
        values, limits = score.value(forecast), score.interval(forecast)
        for place in np.ndindex(values.shape):
            at: dict[str, Any] = {"threshold": "mean"} if name != score.name else {}
            parts, units = [], score.units
            for dim, number in zip(score.dims, place, strict=True):
                position = score.coords[dim][number]
                if dim == "lead":
                    at["lead"] = int(position)
                elif dim not in COLUMNS:
                    parts.append(str(position))
                    if dim == "variable":
                        units = units or channels.get(str(position), "")
                elif not (dim in ("pool", "window") and position == 1):
                    at[COLUMNS[dim]] = f"{position:g}"
            yield Row(
                forecast,
                name,
                ", ".join(parts),
                value=float(values[place]),
                low=float(limits[place][0]),
                high=float(limits[place][1]),
                units=units,
                **at,
            )


def _of_json(scores: Mapping[str, Any]) -> list[Row]:
    """The rows of what a metric gives, of probabilities and of regimes."""
    units = scores["data"].get("mse_units", "")
    found: list[Row] = []
    for name, own in scores["forecasts"].items():
        found += _of_forecast(Row(name, ""), own, units)
    for number, own in enumerate(scores.get("members", []), 1):
        found += _of_forecast(Row(f"member {number}", ""), own, units)
    views = scores.get("probabilities", {}).get("views", {})
    for view, content in views.items():
        part = "probabilities" if view == "field" else f"probabilities of {view}"
        squared = f"{content['units']}^2" if content["units"] else ""
        for name, own in content["forecasts"].items():
            found += _of_forecast(Row(name, "", part), own, squared)
    for name, spaces in scores.get("clusters", {}).items():
        if isinstance(spaces, Mapping):
            for space, own in spaces.items():
                part = f"regimes judged {space}"
                found += [
                    Row(name, score, part, value=_number(x["mean"]), units="1")
                    for score, x in own.items()
                ]
    return found


def text(table: Iterable[Row]) -> str:
    """The rows as CSV (RFC 4180, but with "\\n"); empty where nothing is known."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(field.name for field in dataclasses.fields(Row))
    for row in table:
        writer.writerow(_cell(value) for value in dataclasses.astuple(row))
    return file.getvalue()


def write(path: Path, table: Iterable[Row]) -> None:
    """Writes rows as CSV; readers never see a partial file."""
    scoring.write_text(path, text(table))


def _of_forecast(start: Row, own: Mapping[str, Any], squared: str) -> Iterator[Row]:
    """The rows of one forecast, of one part."""
    limits = dict(own.get("intervals", {}))
    if "crps_interval" in own:
        limits["crps"] = own["crps_interval"]
    for name, value in own.items():
        if name.startswith(tuple(_SKIPPED)) or name.endswith("_interval"):
            continue
        if name == "regions":
            for region, inside in value.items():
                part = dataclasses.replace(start, part=region)
                yield from _of_forecast(part, inside, squared)
        elif name == "categories":
            yield from _of_forecast(start, value, squared)
        elif name == "events":
            for event, inside in value.items():
                brier = {f"brier{k[5:]}": v for k, v in inside.items() if "brier" in k}
                at = dataclasses.replace(start, threshold=event)
                yield from _of_forecast(at, brier, squared)
        else:
            yield from _of_score(start, name, value, limits.get(name), squared)


def _of_score(
    start: Row, name: str, value: Any, limits: Any, squared: str
) -> Iterator[Row]:
    """The rows of a number, or of one number per lead; of anything else none."""
    score = name.removesuffix("_by_lead")
    at: dict[str, Any] = {}
    if match := _EVENT.fullmatch(score):
        score, threshold, pool, scale = match.groups()
        score = CALLED.get(score, score)
        at["threshold"] = "mean" if threshold == "m" else threshold
        at["scale"] = pool or scale or ""
    elif score == "csi":  # by lead, the mean over thresholds
        at["threshold"] = "mean"
    at |= {"score": score, "units": unit_of(score, squared)}
    values = value if isinstance(value, list) else [value]
    if not all(x is None or isinstance(x, int | float) for x in values):
        return
    by_lead = isinstance(value, list)
    for number, x in enumerate(values):
        low, high = math.nan, math.nan
        if limits is not None:
            low, high = map(_number, limits[number] if by_lead else limits)
        lead = number + 1 if by_lead else None
        yield dataclasses.replace(
            start, **at, lead=lead, value=_number(x), low=low, high=high
        )


def _with_channel(row: Row, channels: Mapping[str, str]) -> Row:
    """ "rmse_t2m" as the score "rmse" of the part "t2m", in the units of t2m."""
    match = _OF_CHANNEL.fullmatch(row.score)
    if match is None or match[2] not in channels:
        return row
    units = "1" if match[1] == "ratio" else channels[match[2]]
    return dataclasses.replace(row, score=match[1], part=match[2], units=units)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(value)
