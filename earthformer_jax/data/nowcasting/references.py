"""Reference forecasts of rain: what the last frame shows moves on."""

import functools

import jax
import numpy as np

from earthformer_jax.data.normalization import Normalization
from earthformer_jax.data.nowcasting.rain import Rain
from earthformer_jax.data.source import Batch
from earthformer_jax.data.task import Forecast
from earthformer_jax.ops.nowcasting.motion import FRAMES, motion
from earthformer_jax.ops.nowcasting.semi_lagrangian import extrapolate_observed

LONGEST_STEP = 60.0  # minutes between frames that still show how rain moves


def references(
    in_len: int, out_len: int, channels: int, normalization: Normalization, rain: Rain
) -> dict[str, Forecast]:
    """Forecasts of rain by name; {} if one input frame shows no motion.

    Args:
        in_len: number of input frames.
        out_len: number of target frames.
        channels: number of target channels, the first channels of the inputs, all rain.
        normalization: conversion to model units.
        rain: how the physical values become decibels.
    """
    if in_len < 2:
        return {}
    return {"extrapolation": extrapolation(out_len, channels, normalization, rain)}


def extrapolation(
    out_len: int, channels: int, normalization: Normalization, rain: Rain
) -> Forecast:
    """The last input frame, carried along by the motion of the last frames.

    The motion is that of decibels of rain; what moves are the physical values. See
    `ops.nowcasting.semi_lagrangian` for what flows in from outside.

    Args: those of `references`.
    """
    carry = jax.jit(functools.partial(_carry, rain, out_len))

    def forecast(batch: Batch) -> np.ndarray:
        values, observed, later = physical_inputs(batch, channels, normalization)
        found = np.asarray(carry(values, observed))
        return in_model_units(found, normalization, later)

    return forecast


def physical_inputs(
    batch: Batch, channels: int, normalization: Normalization
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The last inputs in physical units: float32 `[b, t, h, w, channels]`.

    Returns:
        values, 0 where they have never been observed; whether they are observed, bool
        of the same shape; and the minutes `[b, k]` of the targets, None if unknown.
    """
    inputs = np.asarray(batch["inputs"])
    in_len = inputs.shape[1]
    time = batch.get("time")
    before, later = None, None
    if time is not None:
        time = np.asarray(time)
        before, later = time[:, max(in_len - FRAMES, 0) : in_len], time[:, in_len:]
    values = normalization.decode(inputs[:, -FRAMES:, ..., :channels], before)
    known = np.isfinite(values)
    if "inputs_observed" in batch:
        seen = np.asarray(batch["inputs_observed"])[:, -FRAMES:, ..., :channels]
        observed = known & seen
    else:
        observed = known
    return np.where(known, values, 0).astype(np.float32), observed, later


def in_model_units(
    values: np.ndarray, normalization: Normalization, minutes: np.ndarray | None
) -> np.ndarray:
    """Physical forecasts as targets: float32, 0 where never observed."""
    x = normalization.encode(values, minutes)
    return np.where(np.isfinite(x), x, 0).astype(np.float32)


def _carry(rain: Rain, steps: int, values: jax.Array, observed: jax.Array) -> jax.Array:
    """Forecasts `[b, steps, h, w, c]` of physical values `[b, t, h, w, c]`."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        frames, seen = pair
        flow = motion(rain.above(frames), seen)
        return extrapolate_observed(frames[-1], seen[-1], flow, steps)[0]

    return jax.lax.map(one, (values, observed))
