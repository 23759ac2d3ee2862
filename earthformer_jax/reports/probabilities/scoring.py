"""One pass over the test examples that scores distributions, kept by example."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import Batch, Source
from earthformer_jax.metrics.ensembles.scores import EnsembleScores
from earthformer_jax.reports.probabilities.views import View

MOST_VALUES = 2**26  # of the members of a batch: 256 MB

# From a batch to members or quantiles `[m, b, k, h, w, c]` of what a view looks at.
Members = Callable[[Batch], np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """A forecast with probabilities, as one view of the data sees it.

    Attributes:
        name: of the forecast.
        view: what is looked at.
        members: batch -> `[m, b, k, h, w, c]` in model units; if `gaussian`,
            `[2, b, k, h, w, c]`, mean and standard deviation.
        size: number of members, or of quantiles, m.
        drawn: whether members are draws (`EnsembleScores.drawn`).
        gaussian: whether it is a normal distribution, scored in closed form.
    """

    name: str
    view: View
    members: Members
    size: int
    drawn: bool = False
    gaussian: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Scores of one forecast of one view.

    Attributes:
        scores: over all examples, as of `EnsembleScores.compute`.
        crps: `[n, k]` of every example, NaN where nothing is observed.
        ranks: `[n, m + 1]`, rank histogram of every example.
    """

    scores: dict[str, Any]
    crps: np.ndarray
    ranks: np.ndarray


class _Scorer:
    """Scores one entry batch by batch."""

    def __init__(self, entry: Entry, metric: EnsembleScores, terms: Callable):
        self._entry, self._metric, self._terms = entry, metric, terms
        self._sums: dict[str, Any] = {}
        self._crps: list[np.ndarray] = []
        self._ranks: list[np.ndarray] = []

    def add(self, batch: Batch) -> None:
        """Adds a batch."""
        real = np.asarray(batch["valid"])
        truth = self._entry.view.truth(batch)
        found = jax.device_get(self._terms(self._entry.members(batch), truth))
        for name, x in found.items():
            total = np.asarray(x, np.float64).sum(axis=0)
            self._sums[name] = self._sums.get(name, 0.0) + total
        self._crps.append(self._metric.crps_of(found)[real])
        self._ranks.append(found["ranks"].sum(axis=1)[real])

    def scored(self) -> Scored:
        """Scores of what was added."""
        return Scored(
            self._metric.of_sums(self._sums),
            np.concatenate(self._crps),
            np.concatenate(self._ranks),
        )


def evaluate(
    entries: Sequence[Entry],
    examples: Source,
    batch_size: int,
    watch: Callable[[Batch], None] | None = None,
) -> list[Scored]:
    """Scores forecasts with probabilities on all test examples.

    Args:
        entries: what to score.
        examples: the test split.
        batch_size: examples per call.
        watch: is called with every batch.
    """
    scorers = []
    compiled: dict[tuple, tuple[EnsembleScores, Callable]] = {}  # once for all alike
    for entry in entries:
        kind = entry.view.name, entry.size, entry.drawn, entry.gaussian
        if kind not in compiled:
            metric = entry.view.scores(entry.size, drawn=entry.drawn)
            terms = metric.gaussian_terms if entry.gaussian else metric.terms
            compiled[kind] = metric, jax.jit(terms)
        scorers.append(_Scorer(entry, *compiled[kind]))
    for batch in evaluation_batches(examples, batch_size):
        if watch is not None:
            watch(batch)
        for scorer in scorers:
            scorer.add(batch)
    return [scorer.scored() for scorer in scorers]


def fitting_batch(shape: Sequence[int], members: int, batch_size: int) -> int:
    """The largest batch whose members fit in memory, at most `batch_size`.

    Args:
        shape: of a target `[k, h, w, c]`.
        members: of the largest ensemble.
        batch_size: of the evaluation; a multiple of the devices.

    Returns:
        a divisor of `batch_size` that is a multiple of the devices of this process.
    """
    devices = jax.local_device_count()
    whole = [n for n in range(devices, batch_size + 1, devices) if batch_size % n == 0]
    fits = [n for n in whole if n * members * int(np.prod(shape)) <= MOST_VALUES]
    return max(fits) if fits else min(whole, default=batch_size)


class Remembered:
    """A function of batches that keeps what it gave for the last one."""

    def __init__(self, function: Callable[[Batch], Any]):
        self._function = function
        self._batch: Batch | None = None
        self._result: Any = None

    def __call__(self, batch: Batch) -> Any:
        """What the function gives for a batch."""
        if batch is not self._batch:
            self._batch, self._result = batch, self._function(batch)
        return self._result
