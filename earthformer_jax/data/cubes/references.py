"""Forecasts of a time series that need no model: persistence and climatology."""

import functools
from collections.abc import Mapping

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


def references(
    cube: Cube,
    period: Period,
    normalizer: Normalizer,
    train: Source,
    *,
    in_len: int,
    out_len: int,
    targets: int,
) -> Mapping[str, Forecast]:
    """Reference forecasts, fitted to the training period on first use.

    - persistence: the last input frame;
    - damped_persistence: the climatology plus the anomaly of the last frame, multiplied
      by a factor for each lead and variable;
    - climatology: the mean annual and daily cycles, or the mean of every cell if the
      period does not determine them. It is the only reference if the targets are the
      inputs (`in_len` 0).

    Args:
        cube: the data.
        period: training frames.
        normalizer: conversion to model units.
        train: training examples.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.
        targets: number of target channels.
    """

    @functools.cache
    def base() -> Climatologies:
        if normalizer.climatology is not None:
            zero = np.zeros(targets, np.float32)
            return lambda batch: (zero, zero)
        values, minutes = sample(cube, *period)
        climatology = fit_climatology(
            values, minutes, *harmonics(minutes, cube.cadence)
        )
        return functools.partial(
            _mean_frames, climatology, normalizer, in_len=in_len, targets=targets
        )

    @functools.cache
    def factors() -> np.ndarray:
        return damping(train, base(), targets)[:, None, None, :]

    def climatology(batch: Batch) -> np.ndarray:
        _, later = base()(batch)
        return like_targets(batch, later, out_len)

    if in_len == 0:
        return {"climatology": climatology}
    return {
        "persistence": persistence(out_len, targets),
        "damped_persistence": damped_persistence(
            out_len, targets, factors, lambda batch: base()(batch)
        ),
        "climatology": climatology,
    }


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
