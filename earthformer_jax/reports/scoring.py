"""What all reports share: their arguments, scores in one pass, and JSON files."""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.references import persistence
from earthformer_jax.data.source import Batch, Source
from earthformer_jax.data.task import Forecast, Task
from earthformer_jax.metrics.contract import Metric, Scores, is_scalar

MODEL, CEILING = "model", "ceiling"
NOT_REFERENCES = (MODEL, CEILING)  # no forecaster has the ceiling of a twin
# Forecasts come in this order in files and tables; all others follow.
ORDER = (
    MODEL,
    "persistence",
    "damped_persistence",
    "extrapolation",
    "s_prog",
    "steps_mean",
    "lim",
    "oscillator",
    "lim_memory",
    "lim_field_memory",
    "lim_hidden",
    CEILING,
)

LINE = 88  # characters of JSON

Watch = Callable[[Batch, Mapping[str, np.ndarray]], None]


@dataclasses.dataclass(frozen=True)
class ModelFunctions:
    """A trained model as functions of host batches.

    Attributes:
        forecast: batch -> `[b, k, h, w, c]` in model units.
        embed: batch -> `[b, t, d]`; None: the model has no embeddings.
        encode: batch -> integers `[b, t, h, w]`; None: the model has no codes.
        members: batch -> `[size, b, k, h, w, c]`; None: it gives single forecasts only.
        size: number of members.
        spread: factors `[k][c]` that multiply their departures from their mean; None:
            there are none.
        step: optimiser steps after which it was saved; 0: it was not trained.
    """

    forecast: Forecast
    embed: Callable[[Batch], np.ndarray] | None = None
    encode: Callable[[Batch], np.ndarray] | None = None
    members: Callable[[Batch], np.ndarray] | None = None
    size: int = 0
    spread: Sequence[Sequence[float]] | None = None
    step: int = 0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What reports can be asked to do differently.

    Attributes:
        batch_size: examples per call of a forecast.
        clusters: number of regimes that embeddings are sorted into.
        label: part of the names of all files that are written, for data other than
            those of the training; empty (default): none.
        write_forecasts: number of test examples, from the first on, whose forecasts are
            written into forecasts.nc; 0: none.
    """

    batch_size: int
    clusters: int
    label: str = ""
    write_forecasts: int = 0

    def output(self, workdir: str | os.PathLike, name: str) -> Path:
        """Where a file or folder is written: "scores.json", or "scores-LABEL.json"."""
        path = Path(workdir, name)
        if not self.label:
            return path
        return path.with_name(f"{path.stem}-{self.label}{path.suffix}")


def forecasts_of(task: Task, data: Data, model: Forecast) -> dict[str, Forecast]:
    """The model, persistence, and the references of a task, by name.

    Args:
        task: what is asked.
        data: with at least one test example.
        model: batch -> `[b, k, h, w, c]` in model units.
    """
    out_len, *_, channels = np.shape(data.test[0]["targets"])
    return {
        MODEL: model,
        "persistence": persistence(out_len, channels),
        **task.references,
    }


def is_dated(data: Data, split: str = "test") -> bool:
    """Whether the examples of a split have a "time" that is that of the world."""
    # What is generated has no spans, and dates only to tell seasons.
    source = getattr(data, split)
    return split in data.spans and len(source) > 0 and "time" in source[0]


@dataclasses.dataclass(frozen=True)
class MeanOfMembers:
    """The forecast of an ensemble, whose members are scored as well.

    Attributes:
        members: batch -> `[n, b, k, h, w, c]`, forecasts of n members in model units.
    """

    members: Callable[[Batch], np.ndarray]

    def __call__(self, batch: Batch) -> np.ndarray:
        """The mean of the members, `[b, k, h, w, c]`."""
        return self.members(batch).mean(axis=0)


@dataclasses.dataclass(frozen=True)
class MeanOfFirst:
    """The forecast of a model that draws, which is the mean of its first members.

    Attributes:
        members: batch -> `[n, b, k, h, w, c]` in model units.
        number: of members in the mean, at most n.
    """

    members: Callable[[Batch], np.ndarray]
    number: int

    def __call__(self, batch: Batch) -> np.ndarray:
        """The mean, `[b, k, h, w, c]`."""
        return self.members(batch)[: self.number].mean(axis=0)


def evaluate(
    metric: Metric,
    examples: Source,
    forecasts: Mapping[str, Forecast],
    batch_size: int,
    watch: Watch | None = None,
) -> dict[str, Scores]:
    """Runs all forecasts over the test examples once.

    Args:
        metric: of the forecasts.
        examples: the test split.
        forecasts: by name; each maps a batch to `[b, k, h, w, c]` in model units.
        batch_size: examples per call of a forecast.
        watch: is called with every batch and its forecasts by name, NumPy arrays.

    Returns:
        scores by the name of the forecast, in the order of `ORDER`; those of a
        `MeanOfMembers` have "members" as well, a list with the scores of each.
    """
    update = jax.jit(metric.update)
    names = [n for n in ORDER if n in forecasts]
    names += [n for n in forecasts if n not in ORDER]
    states = {name: metric.init() for name in names}
    of_members: dict[str, list] = {}
    for batch in evaluation_batches(examples, batch_size):
        fields = {}
        for name in names:
            forecast = forecasts[name]
            if not isinstance(forecast, MeanOfMembers):
                fields[name] = np.asarray(forecast(batch))
                continue
            each = np.asarray(forecast.members(batch))
            fields[name] = each.mean(axis=0)
            single = of_members.setdefault(name, [metric.init() for _ in each])
            of_members[name] = [
                update(state, field, batch)
                for state, field in zip(single, each, strict=True)
            ]
        for name in names:
            states[name] = update(states[name], fields[name], batch)
        if watch is not None:
            watch(batch, fields)
    results: dict[str, Any] = {
        name: metric.compute(state) for name, state in states.items()
    }
    for name, single in of_members.items():
        results[name]["members"] = [metric.compute(state) for state in single]
    return results


def members_of(results: Mapping[str, dict]) -> dict[str, list[Scores]]:
    """Takes the scores of the members of the model out of its own.

    Returns:
        {"members": [scalar scores of each]}; {} if the model is not an ensemble.
    """
    members = results[MODEL].pop("members", None)
    if members is None:
        return {}
    return {"members": [{k: v for k, v in m.items() if is_scalar(v)} for m in members]}


def protocol_line(data: Mapping) -> list[str]:
    """The name and the checksum of the protocol in the "data" part of scores.json."""
    if "protocol" not in data:
        return []
    return [f"Protocol {data['protocol']} (sha256 {data['protocol_sha256']})"]


def write_json(path: Path, content: Mapping) -> None:
    """Writes JSON atomically; numbers that are not finite become null.

    What fits in a line is in one line, and so is every list of numbers or texts.
    """
    write_text(path, _json(_finite(content)) + "\n")


def _json(value: Any, indent: str = "") -> str:
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    nested = isinstance(value, Mapping) or (
        isinstance(value, list) and any(isinstance(x, Mapping | list) for x in value)
    )
    if not nested or len(indent) + len(flat) <= LINE:
        return flat
    inside = indent + "  "
    if isinstance(value, list):
        rows, (begin, end) = [_json(x, inside) for x in value], "[]"
    else:
        rows = [
            f"{json.dumps(str(key), ensure_ascii=False)}: {_json(x, inside)}"
            for key, x in value.items()
        ]
        begin, end = "{}"
    return f"{begin}\n{inside}" + f",\n{inside}".join(rows) + f"\n{indent}{end}"


def write_text(path: Path, text: str) -> None:
    """Writes text as UTF-8; readers never see a partial file."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(text, encoding="utf-8", newline="\n")
    os.replace(unfinished, path)


def _finite(value):
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
