"""Reference forecasts of rain: what the last frame shows moves on, and fades.

- extrapolation: the last frame, carried along by its motion;
- s_prog: what can be expected of it, see `ops.nowcasting.sprog`; the fair rival of
  networks that are trained on squared errors;
- steps_mean: the mean of members with noise, see `ops.nowcasting.steps`. The noise is
  a function of the inputs, so that a window has the same forecast in every batch.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable

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

    One shows no motion, and two do not show how rain changes. The motion of a batch is
    found once, for all forecasts that are made of it in succession.

    Args:
        in_len: number of input frames.
        out_len: number of target frames.
        channels: number of target channels, the first channels of the inputs, all rain.
        normalization: conversion to model units.
        rain: how the physical values become decibels.
    """
    found: dict[str, Callable[[Moving], jax.Array]] = {}
    if in_len >= 2:
        found["extrapolation"] = functools.partial(extrapolation, out_len)
    if in_len >= sprog.FRAMES:
        found["s_prog"] = functools.partial(s_prog, rain, out_len)
        found["steps_mean"] = functools.partial(steps_mean, rain, out_len)
    seen = _Last(channels, normalization, rain)

    def forecast(function: Callable[[Moving], jax.Array], batch: Batch) -> np.ndarray:
        moving = seen.of(batch)
        values = np.asarray(function(moving))
        return in_model_units(values, normalization, moving.later)

    return {name: functools.partial(forecast, x) for name, x in found.items()}


@dataclasses.dataclass(frozen=True)
class Moving:
    """The last input frames of a batch and how they move.

    Attributes:
        values: float32 `[b, t, h, w, c]` in physical units, 0 where never observed.
        observed: bool, of the same shape.
        flow: `[b, h, w, 2]`, rows and columns per frame, the motion of decibels.
        later: minutes `[b, k]` of the targets; None: unknown.
    """

    values: np.ndarray
    observed: np.ndarray
    flow: jax.Array
    later: np.ndarray | None


class _Last:
    """The motion of the batch that was asked for last, which is kept."""

    def __init__(self, channels: int, normalization: Normalization, rain: Rain):
        self._options = channels, normalization
        self._rain = rain
        self._kept: tuple[tuple, Moving] | None = None

    def of(self, batch: Batch) -> Moving:
        """The motion of a batch, made anew if its values are others."""
        values, observed, later = physical_inputs(batch, *self._options)
        key = values.shape, values.tobytes(), observed.tobytes()
        if self._kept is None or self._kept[0] != key:
            flow = _motion(self._rain, values, observed)
            self._kept = key, Moving(values, observed, flow, later)
        return dataclasses.replace(self._kept[1], later=later)


def extrapolation(steps: int, moving: Moving) -> jax.Array:
    """The last input frame, carried along by the motion of the last frames.

    What moves are the physical values. See `ops.nowcasting.semi_lagrangian` for what
    flows in from outside.

    Args:
        steps: number of frames to make.
        moving: of a batch.

    Returns:
        `[b, steps, h, w, c]` in physical units.
    """
    return _carry(steps, moving.values, moving.observed, moving.flow)


def s_prog(rain: Rain, steps: int, moving: Moving) -> jax.Array:
    """The expected rain. Its mean, in logarithmic units, is that of the last frame.

    Logarithmic values, such as codes of VIL and dBZ, are taken as they are, and rates
    as decibels. What is not observed is the least value: no rain.

    Args:
        rain: how the physical values become decibels.
        steps, moving: as for `extrapolation`, as is what is returned.
    """
    return _expected(rain, steps, moving.values, moving.observed, moving.flow)


def steps_mean(rain: Rain, steps: int, moving: Moving) -> jax.Array:
    """The mean of members with noise; values are as in `s_prog`.

    Args: those of `s_prog`.
    """
    seeds = np.array([zlib.crc32(x.tobytes()) for x in moving.values], np.uint32)
    return _mean_of_members(
        rain, steps, moving.values, moving.observed, moving.flow, seeds
    )


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


@functools.partial(jax.jit, static_argnums=0)
def _motion(rain: Rain, values: jax.Array, observed: jax.Array) -> jax.Array:
    """The motion `[b, h, w, 2]` of decibels of rain."""
    return jax.lax.map(lambda x: motion(*x), (rain.above(values), observed))


@functools.partial(jax.jit, static_argnums=0)
def _carry(
    steps: int, values: jax.Array, observed: jax.Array, flow: jax.Array
) -> jax.Array:
    """Forecasts `[b, steps, h, w, c]` of physical values `[b, t, h, w, c]`."""

    def one(example: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return extrapolate_observed(*example, steps)[0]

    return jax.lax.map(one, (values[:, -1], observed[:, -1], flow))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _expected(
    rain: Rain,
    steps: int,
    values: jax.Array,
    observed: jax.Array,
    flow: jax.Array,
) -> jax.Array:
    """As `_carry`, by S-PROG."""

    def one(example: tuple[jax.Array, jax.Array]) -> jax.Array:
        return _physical(rain, sprog.s_prog(*example, steps))

    return jax.lax.map(one, (_fields(rain, values, observed), flow))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _mean_of_members(
    rain: Rain,
    out_len: int,
    values: jax.Array,
    observed: jax.Array,
    flow: jax.Array,
    seeds: jax.Array,
) -> jax.Array:
    """As `_carry`, with a seed `[b]` for the noise of each example."""

    def one(example: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        fields, flow, seed = example
        found = steps.steps_mean(fields, flow, out_len, jax.random.key(seed))
        return _physical(rain, found)

    return jax.lax.map(one, (_fields(rain, values, observed), flow, seeds))


def _fields(rain: Rain, values: jax.Array, observed: jax.Array) -> jax.Array:
    """Rain in logarithmic units without gaps, `[b, t, h, w, c]`."""
    fields = rain.above(values) if rain.decibels is None else values
    known = jnp.where(observed, fields, jnp.inf).min((1, 2, 3), keepdims=True)
    return jnp.where(observed, fields, jnp.where(jnp.isfinite(known), known, 0))


def _physical(rain: Rain, fields: jax.Array) -> jax.Array:
    """The inverse of what `_fields` does to values."""
    if rain.decibels is not None:
        return fields
    return jnp.where(fields > 0, rain.least * 10 ** (fields / 10), 0)
