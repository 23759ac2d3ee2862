"""What the probabilities of a task are about: its fields, and perhaps an index."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.protocols.scores import EventScores
from earthformer_jax.data.source import Example, Source
from earthformer_jax.data.task import ForecastNino, Task
from earthformer_jax.metrics.ensembles.scores import EnsembleScores, Event
from earthformer_jax.metrics.frames import FrameScores
from earthformer_jax.metrics.precipitation import FULL_SCALE, RainScores
from earthformer_jax.reports.probabilities.dressing import Habits

FIELD, INDEX = "field", "nino34"
THRESHOLD = 0.5  # K, of El Niño and La Niña

Project = Callable[[np.ndarray], np.ndarray]
Truth = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def _same(fields: np.ndarray) -> np.ndarray:
    return fields


def _truth(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {k: batch[k] for k in ("targets", "observed", "valid") if k in batch}


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """Something that is forecast, and how its probabilities are scored.

    Attributes:
        name: "field", or "nino34" for the index.
        units: of its scores, "K".
        habits: of errors.
        metric: arguments of `EnsembleScores` apart from those of the members.
        project: from fields `[..., k, h, w, c]` in model units to what is looked at,
            with the same axes and in the same units.
        truth: from a batch or an example to "targets" and what marks those that count.
    """

    name: str
    units: str
    habits: Habits
    metric: Mapping[str, Any]
    project: Project = _same
    truth: Truth = _truth

    def scores(self, size: int, *, drawn: bool) -> EnsembleScores:
        """The metric of `size` members; see there for `drawn`."""
        return EnsembleScores(size, **self.metric, drawn=drawn)

    def of(self, examples: Source) -> Source:
        """The same examples, with what is looked at as their targets."""
        return _Seen(examples, self)


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
    source: Source
    view: View

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        example = self.source[index]
        kept = {k: v for k, v in example.items() if k != "observed"}
        return kept | self.view.truth(example)


def views_of(task: Task, data: Data) -> list[View]:
    """The field of a task, and for El Niño the monthly index."""
    channels = data.display.channels
    scale = tuple(float(channel.scale) for channel in channels)
    offset = tuple(float(channel.offset) for channel in channels)
    alike = len({(channel.units, channel.scale) for channel in channels}) == 1
    units = channels[0].units if alike else "model units"
    limits, thresholds = (-np.inf, np.inf), ()
    if isinstance(task.metric, RainScores | EventScores):
        thresholds = task.metric.thresholds
        scale, offset = (task.metric.scale,), (task.metric.offset,)
        ends = ((x - offset[0]) / scale[0] for x in (0.0, FULL_SCALE))
        limits = min(ends := tuple(ends)), max(ends)
    elif isinstance(task.metric, FrameScores):
        limits = (0.0, task.metric.data_range)
    edges = sorted((x - offset[0]) / scale[0] for x in thresholds)
    metric = {
        "names": tuple(channel.name for channel in channels),
        "scale": scale,
        "offset": offset,
    }
    weights = np.asarray(data.loss_weights)
    # Coordinates are those of a grid that all examples share.
    by_cell = bool(data.coordinates)
    field = View(
        FIELD,
        units,
        Habits(weights, tuple(edges), by_cell, limits),
        metric
        | {"weights": weights, "events": tuple(Event(float(x)) for x in thresholds)},
    )
    if not isinstance(task, ForecastNino):
        return [field]
    return [field, _index(task, data, metric)]


def _index(task: ForecastNino, data: Data, metric: Mapping[str, Any]) -> View:
    """The view of the monthly Niño3.4, as fields of one cell."""
    box = np.asarray(task.nino_weights, np.float64)

    def project(fields: np.ndarray) -> np.ndarray:
        inside = np.where(box != 0, np.asarray(fields)[..., 0], 0)
        index = np.tensordot(inside, box, axes=([-2, -1], [0, 1]))
        return index[..., None, None, None].astype(np.float32)

    def truth(batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if "nino34" in batch:
            kelvin = np.asarray(batch["nino34"], np.float64)
            index = data.normalization.encode(kelvin)[..., None, None, None]
        else:
            index = project(batch["targets"])
        found = {
            "targets": np.asarray(index, np.float32),
            "observed": np.isfinite(index),
        }
        return found | ({"valid": batch["valid"]} if "valid" in batch else {})

    events = Event(THRESHOLD), Event(-THRESHOLD, above=False)
    ones = np.ones((1, 1, 1, 1))
    more = {"names": ("Niño3.4",), "events": events}
    return View(INDEX, "K", Habits(ones), {**metric, **more}, project, truth)
