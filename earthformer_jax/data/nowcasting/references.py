"""Reference forecasts of rain: what the last frame shows moves on, and fades.

- extrapolation: the last frame, carried along by its motion;
- s_prog: what can be expected of it, see `ops.nowcasting.sprog`; the fair rival of
  networks that are trained on squared errors;
- steps_mean: the mean of members with noise, see `ops.nowcasting.steps`. The noise is
  a function of the inputs, so that a window has the same forecast in every batch.
"""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.data.normalization import Normalization
from earthformer_jax.data.nowcasting.rain import Rain
from earthformer_jax.data.source import Batch
from earthformer_jax.data.task import Forecast
from earthformer_jax.ops.nowcasting import sprog, steps
from earthformer_jax.ops.nowcasting.motion import FRAMES, motion
from earthformer_jax.ops.nowcasting.semi_lagrangian import extrapolate_observed

LONGEST_STEP = 60.0  # minutes between frames that still show how rain moves


def references(
    in_len: int, out_len: int, channels: int, normalization: Normalization, rain: Rain
) -> dict[str, Forecast]:
    """Forecasts of rain by name, those that so many input frames can show.

    One shows no motion, and two do not show how rain changes.

    Args:
        in_len: number of input frames.
        out_len: number of target frames.
        channels: number of target channels, the first channels of the inputs, all rain.
        normalization: conversion to model units.
        rain: how the physical values become decibels.
    """
    options = out_len, channels, normalization, rain
    found = {}
    if in_len >= 2:
        found["extrapolation"] = extrapolation(*options)
    if in_len >= sprog.FRAMES:
        found["s_prog"] = s_prog(*options)
        found["steps_mean"] = steps_mean(*options)
    return found


def extrapolation(
    out_len: int, channels: int, normalization: Normalization, rain: Rain
) -> Forecast:
    """The last input frame, carried along by the motion of the last frames.

    The motion is that of decibels of rain; what moves are the physical values. See
    `ops.nowcasting.semi_lagrangian` for what flows in from outside.

    Args: those of `references`.
    """

    def forecast(batch: Batch) -> np.ndarray:
        values, observed, later = physical_inputs(batch, channels, normalization)
        found = np.asarray(_carry(rain, out_len, values, observed))
        return in_model_units(found, normalization, later)

    return forecast


def s_prog(
    out_len: int, channels: int, normalization: Normalization, rain: Rain
) -> Forecast:
    """The expected rain. Its mean, in logarithmic units, is that of the last frame.

    Logarithmic values, such as codes of VIL and dBZ, are taken as they are, and rates
    as decibels. What is not observed is the least value: no rain.

    Args: those of `references`.
    """

    def forecast(batch: Batch) -> np.ndarray:
        values, observed, later = physical_inputs(batch, channels, normalization)
        found = _expected(rain, out_len, *_fields(rain, values, observed))
        return in_model_units(np.asarray(found), normalization, later)

    return forecast


def steps_mean(
    out_len: int, channels: int, normalization: Normalization, rain: Rain
) -> Forecast:
    """The mean of members with noise; values are as in `s_prog`.

    Args: those of `references`.
    """

    def forecast(batch: Batch) -> np.ndarray:
        values, observed, later = physical_inputs(batch, channels, normalization)
        seeds = np.array([zlib.crc32(x.tobytes()) for x in values], np.uint32)
        found = _mean_of_members(rain, out_len, *_fields(rain, values, observed), seeds)
        return in_model_units(np.asarray(found), normalization, later)

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


@functools.partial(jax.jit, static_argnums=(0, 1))
def _carry(rain: Rain, steps: int, values: jax.Array, observed: jax.Array) -> jax.Array:
    """Forecasts `[b, steps, h, w, c]` of physical values `[b, t, h, w, c]`."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        frames, seen = pair
        flow = motion(rain.above(frames), seen)
        return extrapolate_observed(frames[-1], seen[-1], flow, steps)[0]

    return jax.lax.map(one, (values, observed))


@functools.partial(jax.jit, static_argnums=(0,))
def _fields(
    rain: Rain, values: jax.Array, observed: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Rain in logarithmic units without gaps `[b, t, h, w, c]`, and its motion."""
    decibels = rain.above(values)
    fields = decibels if rain.decibels is None else values
    known = jnp.where(observed, fields, jnp.inf).min((1, 2, 3), keepdims=True)
    least = jnp.where(jnp.isfinite(known), known, 0)
    flow = jax.lax.map(lambda pair: motion(*pair), (decibels, observed))
    return jnp.where(observed, fields, least), flow


@functools.partial(jax.jit, static_argnums=(0, 1))
def _expected(
    rain: Rain, out_len: int, fields: jax.Array, flow: jax.Array
) -> jax.Array:
    """As `_carry`, by S-PROG."""

    def one(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _physical(rain, sprog.s_prog(*pair, out_len))

    return jax.lax.map(one, (fields, flow))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _mean_of_members(
    rain: Rain, out_len: int, fields: jax.Array, flow: jax.Array, seeds: jax.Array
) -> jax.Array:
    """As `_carry`, with a seed `[b]` for the noise of each example."""

    def one(example: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        fields, flow, seed = example
        found = steps.steps_mean(fields, flow, out_len, jax.random.key(seed))
        return _physical(rain, found)

    return jax.lax.map(one, (fields, flow, seeds))


def _physical(rain: Rain, fields: jax.Array) -> jax.Array:
    """The inverse of what `_fields` does to values."""
    if rain.decibels is not None:
        return fields
    return jnp.where(fields > 0, rain.least * 10 ** (fields / 10), 0)
