"""Forecasts of a time series that need no model: persistence and climatology."""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from earthformer_jax.data.climatology import Climatology, fit_climatology, harmonics
from earthformer_jax.data.cubes.statistics import Normalizer, sample
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.references import (
    Climatologies,
    damped_persistence,
    like_targets,
    persistence,
)
from earthformer_jax.data.source import Batch, Source
from earthformer_jax.data.splits import Period
from earthformer_jax.data.task import Forecast

DAMPING_WINDOWS = 400  # training windows that the damping is estimated from


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What the reference forecasts have learned from the training period.

    Attributes:
        damping: float32 `[k, c]`, factors of the anomaly for each lead and target.
        cycle: mean cycles in the units of the file; None if the normalisation has
            already removed them.
    """

    damping: np.ndarray
    cycle: Climatology | None = None


def fit(
    cube: Cube,
    period: Period,
    normalizer: Normalizer,
    train: Source,
    *,
    in_len: int,
    out_len: int,
    targets: int,
) -> Fitted:
    """Fits the reference forecasts to the training period.

    Args:
        cube: the data.
        period: training frames.
        normalizer: conversion to model units.
        train: training examples.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.
        targets: number of target channels.
    """
    cycle = None
    if normalizer.climatology is None:
        values, minutes = sample(cube, *period)
        cycle = fit_climatology(values, minutes, *harmonics(minutes, cube.cadence))
    if in_len == 0:
        return Fitted(np.zeros((out_len, targets), np.float32), cycle)
    base = _climatologies(cycle, normalizer, in_len=in_len, targets=targets)
    return Fitted(damping(train, base, targets), cycle)


def references(
    fitted: Callable[[], Fitted],
    normalizer: Normalizer,
    *,
    in_len: int,
    out_len: int,
    targets: int,
) -> Mapping[str, Forecast]:
    """Reference forecasts.

    - persistence: the last input frame;
    - damped_persistence: the climatology plus the anomaly of the last frame, multiplied
      by a factor for each lead and variable;
    - climatology: the mean annual and daily cycles, or the mean of every cell if the
      period does not determine them. It is the only reference if the targets are the
      inputs (`in_len` 0).

    Args:
        fitted: returns what they have learned; called on first use.
        normalizer: conversion to model units.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.
        targets: number of target channels.
    """

    def base(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        lengths = dict(in_len=in_len, targets=targets)
        return _climatologies(fitted().cycle, normalizer, **lengths)(batch)

    def climatology(batch: Batch) -> np.ndarray:
        _, later = base(batch)
        return like_targets(batch, later, out_len)

    if in_len == 0:
        return {"climatology": climatology}
    return {
        "persistence": persistence(out_len, targets),
        "damped_persistence": damped_persistence(
            out_len, targets, lambda: fitted().damping[:, None, None, :], base
        ),
        "climatology": climatology,
    }


def bases(
    fitted: Callable[[], Fitted], normalizer: Normalizer, shape: tuple[int, ...]
) -> dict[str, Callable[[], dict[str, np.ndarray]]]:
    """Forecasts that a network can correct (`data.dataset.Data.bases`).

    Damped persistence is one where the values are anomalies, whose climatology is 0. A
    climatology that changes with the date is not among the arrays of a model.

    Args:
        fitted: returns what the reference forecasts have learned; called on first use.
        normalizer: conversion to model units.
        shape: of the targets, (k, h, w, c); k is 0 if the targets are the inputs.
    """
    if normalizer.climatology is None or shape[0] == 0:
        return {}

    def arrays() -> dict[str, np.ndarray]:
        factors = np.broadcast_to(fitted().damping[:, None, None, :], shape)
        return {"factors": factors, "center": np.zeros(shape[-1], np.float32)}

    return {"damped_persistence": arrays}


def damping(train: Source, base: Climatologies, targets: int) -> np.ndarray:
    """Regression of each target frame on the last input frame, both as anomalies.

    Args:
        train: training examples.
        base: climatology at the last input and at the targets.
        targets: number of target channels.

    Returns:
        float32 `[k, c]`, between 0 and 1.
    """
    count = min(len(train), DAMPING_WINDOWS)
    products = squares = 0.0
    for i in np.linspace(0, len(train) - 1, count).astype(int):
        example = {key: np.asarray(value)[None] for key, value in train[i].items()}
        now, later = base(example)
        x = example["inputs"][:, -1:, ..., :targets] - now
        y = example["targets"] - later
        known = example.get("observed", np.ones(y.shape, bool))
        products += np.where(known, x * y, 0).sum(axis=(0, 2, 3), dtype=np.float64)
        squares += np.where(known, x * x, 0).sum(axis=(0, 2, 3), dtype=np.float64)
    factors = products / np.where(squares > 0, squares, 1)
    return np.clip(factors, 0, 1).astype(np.float32)


def _climatologies(
    cycle: Climatology | None, normalizer: Normalizer, *, in_len: int, targets: int
) -> Climatologies:
    """The climatology of a batch in model units; 0 where it has been removed."""
    if cycle is None:
        zero = np.zeros(targets, np.float32)
        return lambda batch: (zero, zero)
    return functools.partial(
        _mean_frames, cycle, normalizer, in_len=in_len, targets=targets
    )


def _mean_frames(
    climatology: Climatology,
    normalizer: Normalizer,
    batch: Batch,
    *,
    in_len: int,
    targets: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Climatology at the last input `[b or 1, 1, ...]` and at the targets."""
    if "time" not in batch:
        mean = normalizer.of_climatology(climatology, None)[None, ..., :targets]
        return mean, mean
    time = np.asarray(batch["time"], np.int64)
    fields = normalizer.of_climatology(climatology, time)[..., :targets]
    last = max(in_len - 1, 0)
    return fields[:, last : last + 1], fields[:, in_len:]
