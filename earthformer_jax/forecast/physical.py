"""A forecaster in physical units: one pure function of arrays in JAX.

What `data.windows` and the statistics of a training do to files in NumPy, as a function
that can be compiled, differentiated and exported together with the model.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.typing
import numpy as np

from earthformer_jax.data.climatology import Climatology
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.windows import MINUTES_LIMIT
from earthformer_jax.forecast import dates

Forecast = Callable[..., jax.Array]


def physical(apply: Callable[[Any, jax.Array], Any], encoding: Encoding) -> Forecast:
    """A function from physical fields to their forecast.

    Args:
        apply: from variables and inputs `[b, t, h, w, c]` in model units, with calendar
            channels, to forecasts `[b, k, h, w, c]`, or `[m, b, k, h, w, c]` of m
            members.
        encoding: how physical values become model units.

    Returns:
        `(variables, inputs, minutes=None) -> forecast`. Inputs are float32
        `[b, t, h, w, c]` in the units of the data, NaN where missing; the forecast is
        `[b, k, h, w, c]` of the target channels, or `[m, b, k, h, w, c]`, NaN where
        never observed in the training. A model with a memory also needs the
        `encoding.before` frames before its inputs. `minutes` are whole minutes since
        1970-01-01 UTC of the inputs `[b, t]` or, exact in every calendar, of inputs and
        forecast `[b, t + k]`; encodings without cycles (`encoding.needs_minutes`)
        ignore them. ValueError if a shape is not as expected, or times are needed and
        not given.
    """

    def forecast(
        variables: Any,
        inputs: jax.typing.ArrayLike,
        minutes: jax.typing.ArrayLike | None = None,
    ) -> jax.Array:
        inputs = _plain(inputs)
        _check_inputs(inputs, encoding)
        b, t = inputs.shape[:2]
        if encoding.before and t <= encoding.before:
            raise ValueError(
                f"inputs have {t} frames; expected more than {encoding.before}, which "
                "the model remembers beside its inputs"
            )
        moments = _moments(minutes, (b, t)) if encoding.needs_minutes else None
        seen = None if moments is None else moments[:, :t]
        ahead = apply(variables, encode(encoding, inputs, seen))
        if moments is None:
            return decode(encoding, ahead)
        return decode(encoding, ahead, _following(moments, t, ahead.shape[-4]))

    return forecast


def drawn(
    apply: Callable[[Any, jax.Array, jax.Array], Any], encoding: Encoding
) -> Forecast:
    """As `physical`, of models that draw.

    What is drawn follows from the physical values, 0 in gaps: unlike what is computed
    from them, they are the same on every device.

    Args:
        apply: from variables, inputs in model units and these values to forecasts.
        encoding: how physical values become model units.
    """

    def unpacked(given: tuple[Any, jax.Array], inputs: jax.Array) -> Any:
        return apply(given[0], inputs, given[1])

    of_fields = physical(unpacked, encoding)

    def forecast(
        variables: Any,
        inputs: jax.typing.ArrayLike,
        minutes: jax.typing.ArrayLike | None = None,
    ) -> jax.Array:
        inputs = _plain(inputs)
        return of_fields((variables, jnp.nan_to_num(inputs)), inputs, minutes)

    return forecast


def encode(
    encoding: Encoding, values: jax.Array, minutes: jax.Array | None = None
) -> jax.Array:
    """Inputs of a model, without gaps and with calendar channels.

    Args:
        encoding: how physical values become model units.
        values: float32 `[b, before + t, h, w, c]`, NaN where missing.
        minutes: int32 `[b, before + t]`; needed if `encoding.needs_minutes`.

    Returns:
        `[b, t, h, w, c + calendar channels + memory]`.
    """
    x = (values - _base(encoding, values.shape[-1], minutes)) / encoding.scale
    known = jnp.isfinite(x)
    if encoding.counted is not None:
        known &= encoding.counted
    fill = 0 if encoding.fill is None else encoding.fill
    x = _fill_forward(x, known, encoding.most_carried, fill)
    memory = [] if encoding.memory is None else [_memory(encoding, x)]
    x = x[:, encoding.before :]
    if not encoding.calendar or minutes is None:
        return jnp.concatenate([x, *memory], axis=-1)
    minutes = minutes[:, encoding.before :]
    waves = {
        "season": [dates.waves_of_year(minutes, 1)],
        "season and day": [
            dates.waves_of_year(minutes, 1),
            dates.waves_of_day(minutes, 1),
        ],
        "month": [dates.waves_of_month(minutes)],
    }[encoding.calendar]
    channels = jnp.concatenate([wave[..., 1:] for wave in waves], axis=-1)
    channels = channels[:, :, None, None, :]
    shape = (*x.shape[:-1], channels.shape[-1])
    season = jnp.broadcast_to(channels, shape)
    return jnp.concatenate([x, season, *memory], axis=-1)


def _memory(encoding: Encoding, x: jax.Array) -> jax.Array:
    """The memory `[b, t, h, w, 1]` of frames `[b, before + t, h, w, c]`."""
    memory = encoding.memory
    assert memory is not None  # as the caller has checked
    now = np.arange(memory.before, x.shape[1])[:, None]
    before = now - np.arange(x.shape[1])  # months from a frame to that of the memory
    used = (before >= 1) & (before <= memory.reach)
    weights = np.where(used, -(memory.kept ** np.maximum(before - 1, 0.0)), 0)
    zero = 0 if encoding.fill is None else encoding.fill[0]
    anomaly = (x[..., 0] - zero) * (encoding.scale[0] / memory.scale)
    made = jnp.einsum("tr,brhw->bthw", weights, anomaly, precision="highest")
    return made[..., None].astype(x.dtype)


def decode(
    encoding: Encoding, x: jax.Array, minutes: jax.Array | None = None
) -> jax.Array:
    """Physical values of a forecast.

    Args:
        encoding: how physical values become model units.
        x: `[..., b, k, h, w, c]` in model units.
        minutes: int32 `[b, k]`; needed if the climatology has cycles.

    Returns:
        float32 `[..., b, k, h, w, c]`, NaN where never observed.
    """
    c = x.shape[-1]
    values = x * encoding.scale[:c] + _base(encoding, c, minutes)
    if encoding.counted is None:
        return values
    return jnp.where(encoding.counted[..., :c], values, jnp.nan)


def _base(encoding: Encoding, channels: int, minutes: jax.Array | None) -> jax.Array:
    """The value of the first channels that is 0 in model units."""
    base = jnp.asarray(encoding.offset[:channels])
    cycle = encoding.climatology
    if cycle is None:
        return base
    return base + _climatology(cycle, cycle.coefficients[..., :channels], minutes)


def _climatology(
    cycle: Climatology, coefficients: np.ndarray, minutes: jax.Array | None
) -> jax.Array:
    """As `Climatology.at`, `[..., h, w, c]` at minutes `[...]`."""
    if minutes is None or not cycle.has_cycles:
        return jnp.asarray(coefficients[0])
    if cycle.monthly:
        return jnp.asarray(coefficients)[dates.month_of(minutes)]
    year = dates.waves_of_year(minutes, cycle.annual)
    day = dates.waves_of_day(minutes, cycle.daily)
    products = year[..., :, None] * day[..., None, :]
    products = products.reshape(*minutes.shape, len(coefficients))
    # In float32 on every device: differences of large numbers are what is forecast.
    return jnp.einsum("...p,phwc->...hwc", products, coefficients, precision="highest")


def _fill_forward(
    x: jax.Array, known: jax.Array, most: int | None, fill: jax.typing.ArrayLike
) -> jax.Array:
    """Replaces what is not known by the last known value; `fill` before the first.

    Args:
        x: `[b, t, ...]`.
        known: bool `[b, t, ...]`.
        most: frames over which a value is carried; None: no limit.
        fill: replaces what is still unknown, broadcastable to `[b, t, ...]`.
    """
    frames = jnp.arange(x.shape[1], dtype=jnp.int32)
    frames = frames.reshape(1, -1, *[1] * (x.ndim - 2))
    latest = jax.lax.cummax(jnp.where(known, frames, -1), axis=1)
    usable = latest >= 0
    if most is not None:
        usable &= frames - latest <= most
    # Zeros in place of NaN, whose product with a gradient of 0 would be NaN.
    x = jnp.where(known, x, 0)
    filled = jnp.take_along_axis(x, jnp.maximum(latest, 0), axis=1)
    return jnp.where(usable, filled, fill)


def _following(moments: jax.Array, t: int, steps: int) -> jax.Array:
    """The times `[b, k]` of a forecast."""
    given = moments.shape[1]
    if given == t + steps:
        return moments[:, t:]
    if given != t:
        raise ValueError(
            f"minutes have {given} times; expected {t}, of the inputs, or {t + steps}, "
            "of inputs and forecast"
        )
    if t < 2:
        raise ValueError(
            "minutes have a single time, so the time from frame to frame is unknown; "
            f"give those of inputs and forecast, {t + steps} times"
        )
    return dates.following(moments, steps)


def _plain(inputs: jax.typing.ArrayLike) -> jax.Array:
    """Float32 values, NaN where missing."""
    if isinstance(inputs, np.ma.MaskedArray):  # JAX would use what is masked
        inputs = np.ma.filled(inputs.astype(np.float32), np.nan)
    return jnp.asarray(inputs, jnp.float32)


def _check_inputs(inputs: jax.Array, encoding: Encoding) -> None:
    height, width = encoding.size or ("height", "width")
    expected = ("batch", "time", height, width, len(encoding.scale))
    if inputs.ndim == 5 and all(
        isinstance(e, str) or e == found
        for e, found in zip(expected, inputs.shape, strict=True)
    ):
        return
    raise ValueError(
        f"inputs have the shape {inputs.shape}; expected "
        f"({', '.join(map(str, expected))}): (batch, time, height, width, channel)"
    )


def _moments(
    minutes: jax.typing.ArrayLike | None, leading: tuple[int, int]
) -> jax.Array:
    """Times as int32 `[b, t or more]`."""
    expected = (
        "whole minutes since 1970-01-01 UTC of the inputs (batch, time), or of inputs "
        "and forecast"
    )
    if minutes is None:
        raise ValueError(
            "minutes are needed, since the model knows the season or removes a "
            f"climatology: {expected}"
        )
    if not isinstance(minutes, jax.Array):
        minutes = np.asarray(minutes)
        if minutes.dtype.kind in "iu" and np.any(np.abs(minutes) >= MINUTES_LIMIT):
            raise ValueError(
                f"minutes reach from {minutes.min()} to {minutes.max()}; expected "
                f"numbers between -2**31 and 2**31: {expected}"
            )
    if np.dtype(minutes.dtype).kind == "M":
        raise ValueError(
            f"minutes have the type {minutes.dtype}; give "
            f"times.astype('datetime64[m]').astype(int), {expected}"
        )
    if np.dtype(minutes.dtype).kind not in "iu":
        raise ValueError(f"minutes have the type {minutes.dtype}; expected {expected}")
    b, t = leading
    if minutes.ndim != 2 or minutes.shape[0] != b or minutes.shape[1] < t:
        raise ValueError(
            f"minutes have the shape {minutes.shape} for {b} × {t} input frames; "
            f"expected {expected}"
        )
    return jnp.asarray(minutes, jnp.int32)
