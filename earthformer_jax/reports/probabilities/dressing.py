"""Dressed forecasts: a single forecast plus the errors that it used to make.

The errors of the validation split, at each lead, are what the forecast is thought to
miss by: equally probable quantiles of them, added to it, are its distribution. Any
deterministic forecast gets probabilities that way, and those of a model have to beat
them.

Reference:
    Roulston and Smith 2003, "Combining dynamical and statistical ensembles".
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import Batch, Source
from earthformer_jax.data.task import Forecast

QUANTILES = 20
SAMPLED = 100_000  # values of each lead that quantiles are found from, about
LEAST = 200  # errors that the quantiles of a bin need; one with fewer has those of all
MIN_SCALE = 0.05  # of a cell, relative to the mean over cells


@dataclasses.dataclass(frozen=True, eq=False)
class Habits:
    """What is known about the errors of forecasts of some data.

    Attributes:
        weights: of the cells, broadcastable to a target `[k, h, w, c]`, non-negative;
            errors count as much.
        edges: values of the forecast, in model units and increasing, between which
            errors are of another kind: of rain, the thresholds.
        by_cell: whether cells are the same places in all examples, so that errors may
            be larger in some of them.
        limits: lowest and highest possible value in model units.
    """

    weights: np.ndarray
    edges: tuple[float, ...] = ()
    by_cell: bool = False
    limits: tuple[float, float] = (-np.inf, np.inf)


@dataclasses.dataclass(frozen=True, eq=False)
class Dressed:
    """A forecast with the distribution of its errors.

    Attributes:
        forecast: batch -> `[b, k, h, w, c]` in model units.
        habits: of the errors.
        quantiles: float32 `[q, bins, k, c]`, errors in units of `scale`, increasing.
        scale: float32 `[h, w, c]`, the size of errors in a cell relative to others;
            broadcastable.
    """

    forecast: Forecast
    habits: Habits
    quantiles: np.ndarray
    scale: np.ndarray

    def __call__(self, batch: Batch) -> np.ndarray:
        """Equally probable values, float32 `[q, b, k, h, w, c]`, in model units."""
        fields = np.asarray(self.forecast(batch), np.float32)
        if not self.habits.edges:
            errors = self.quantiles[:, :, :, None, None]
        else:
            _, _, steps, channels = self.quantiles.shape
            kind = np.searchsorted(self.habits.edges, fields, side="right")
            lead = np.arange(steps)[:, None, None, None]
            errors = self.quantiles[:, kind, lead, np.arange(channels)]
        return np.clip(fields + self.scale * errors, *self.habits.limits)


def dress(
    forecasts: Mapping[str, Forecast],
    examples: Source,
    habits: Habits,
    batch_size: int,
    quantiles: int = QUANTILES,
) -> dict[str, Dressed]:
    """Learns the errors of forecasts from examples they were not fitted to.

    Args:
        forecasts: by name; each maps a batch to `[b, k, h, w, c]` in model units.
        examples: the validation split.
        habits: of the errors.
        batch_size: examples per call of a forecast.
        quantiles: how many.

    Returns:
        by name, the dressed forecasts; without those whose errors are all unknown,
        since nothing that they forecast was observed.
    """
    shape = np.shape(examples[0]["targets"])
    weights = np.broadcast_to(np.asarray(habits.weights, np.float64), shape)
    cells = weights.sum(axis=(0, 3)).ravel()
    number = min(-(-SAMPLED // len(examples)), np.count_nonzero(cells))
    samples = {name: _Sample(shape) for name in forecasts}
    rng = np.random.default_rng(0)
    for batch in evaluation_batches(examples, batch_size):
        real = np.flatnonzero(batch["valid"])
        targets = np.asarray(batch["targets"], np.float32)[real]
        known = np.broadcast_to(weights > 0, targets.shape)
        if "observed" in batch:
            known = known & np.asarray(batch["observed"])[real]
        chosen = np.stack(
            [
                rng.choice(cells.size, number, replace=False, p=cells / cells.sum())
                for _ in real
            ]
        )
        for name, forecast in forecasts.items():
            fields = np.asarray(forecast(batch), np.float32)[real]
            samples[name].add(fields, targets, known, chosen)
    return {
        name: Dressed(forecasts[name], habits, *sample.learned(habits, quantiles))
        for name, sample in samples.items()
        if sample.is_known
    }


class _Sample:
    """Errors of a forecast in some cells of every example, and their size in each."""

    def __init__(self, shape: Sequence[int]):
        self._squares = np.zeros(shape)
        self._count = np.zeros(shape)
        self._parts: list[tuple[np.ndarray, ...]] = []

    def add(self, fields, targets, known, chosen) -> None:
        """Adds examples `[b, k, h, w, c]`, of which cells `[b, n]` are kept."""
        known = known & np.isfinite(fields)
        error = np.where(known, fields - targets, 0)
        self._squares += np.square(error, dtype=np.float64).sum(axis=0)
        self._count += known.sum(axis=0)

        def kept(x):  # [b, k, n, c]
            x = x.reshape(*x.shape[:2], -1, x.shape[-1])
            return np.take_along_axis(x, chosen[:, None, :, None], axis=2)

        self._parts.append((kept(fields), kept(-error), kept(known), chosen))

    @property
    def is_known(self) -> bool:
        """Whether any error is known."""
        return bool(np.any([known.any() for _, _, known, _ in self._parts]))

    def learned(self, habits: Habits, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Quantiles and scale, see `Dressed`."""
        scale = self._scale() if habits.by_cell else np.ones((1, 1, 1))
        fields, errors, known, chosen = (
            np.concatenate(x) for x in zip(*self._parts, strict=True)
        )
        if habits.by_cell:
            flat = scale.reshape(-1, scale.shape[-1])
            errors = errors / flat[chosen][:, None]
        levels = (np.arange(count) + 0.5) / count
        kind = np.searchsorted(habits.edges, fields, side="right")
        _, steps, _, channels = fields.shape
        found = np.empty((count, len(habits.edges) + 1, steps, channels), np.float32)
        for k in range(steps):
            for c in range(channels):
                here = known[:, k, :, c]
                error, bins = errors[:, k, :, c][here], kind[:, k, :, c][here]
                if not error.size:  # this lead is never observed: those of all leads
                    error = errors[..., c][known[..., c]]
                    bins = kind[..., c][known[..., c]]
                for b in range(found.shape[1]):
                    own = error[bins == b]
                    own = own if own.size >= LEAST else error
                    found[:, b, k, c] = np.quantile(own, levels)
        return found, scale.astype(np.float32)

    def _scale(self) -> np.ndarray:
        """`[h, w, c]`: the size of errors in a cell over that in all, mean over leads.

        It is 1 where nothing is known.
        """
        count = self._count
        with np.errstate(invalid="ignore", divide="ignore"):
            cell = self._squares / count
            everywhere = self._squares.sum(axis=(1, 2)) / count.sum(axis=(1, 2))
            relative = cell / everywhere[:, None, None]
        known = np.isfinite(relative)
        total = np.where(known, relative, 0).sum(axis=0)
        leads = known.sum(axis=0)
        ratio = np.where(leads > 0, total / np.maximum(leads, 1), 1)
        return np.sqrt(np.maximum(ratio, MIN_SCALE**2))
