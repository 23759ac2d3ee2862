"""Seasonal linear systems as a base: linear inverse models, with a memory or without.

    state    = sum(field * projection) + sum(memory * memory_projection) + start
    state   <- transition[month] state, once for each month ahead
    forecast = sum(state * patterns)

for each of a few systems, whose forecasts add up. Fields are in physical units, field =
model value * scale + offset, and so is the memory, model value * memory_scale. The last
input frame has the field, the cosine and sine of its calendar month and, if it is used,
the memory of every cell as its channels.

With hidden states, the first state is an expectation given all input months,

    state = sum over t of gains[month, t] amplitudes[t]
    amplitudes = sum(field * projection)

where the last of the amplitudes are those of the memory.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import ArrayLike

from earthformer_jax.models.shapes import check_inputs, check_shapes

STATES = 32  # components of the state; a smaller one is filled up with zeros
MONTHS = 12
_SEASON, _MEMORY = slice(1, 3), 3  # channels of the inputs


class LinearBase(nn.Module):
    """Iterates the twelve transitions of linear systems.

    The arrays of s systems are in the collection `batch_stats`: `transition`
    [s, 12, 32, 32] (month m to m + 1, January = 0), `projection` and
    `memory_projection` [s, H, W, 32], `start` [s, 32], `patterns` [s, 32, H, W], and
    the numbers `scale`, `offset` and `memory_scale`.

    Attributes:
        input_shape: (T, H, W, C_in): the field, cosine and sine of the month, and the
            memory if it is used.
        target_shape: (K, H, W, 1).
        systems: number of systems.
        uses_memory: whether they read the memory.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    systems: int = 1
    uses_memory: bool = False

    def check(self) -> None:
        """Raises ValueError for shapes that lack what the systems need."""
        check_channels(self.input_shape, self.target_shape, self.uses_memory)

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Float32 forecast `[b, K, H, W, 1]` of inputs `[b, T, H, W, C_in]`."""
        check_inputs(inputs, self.input_shape)
        (_, h, w, _), s, n = self.input_shape, self.systems, STATES

        def constant(name: str, *shape: int, init=jnp.zeros) -> jax.Array:
            return self.variable("batch_stats", name, init, shape, jnp.float32).value

        projection = constant("projection", s, h, w, n)
        memory_projection = constant("memory_projection", s, h, w, n)
        start = constant("start", s, n)
        transition = constant("transition", s, MONTHS, n, n)
        patterns = constant("patterns", s, n, h, w)
        scale, offset = constant("scale", init=jnp.ones), constant("offset")
        memory_scale = constant("memory_scale", init=jnp.ones)

        last = inputs[:, -1].astype(jnp.float32)
        state = start + project(last[..., 0] * scale + offset, projection)
        if self.uses_memory:
            state += project(last[..., _MEMORY] * memory_scale, memory_projection)
        months = self.target_shape[0]
        fields = iterate(state, transition, patterns, last_month(inputs), months)
        return ((fields - offset) / scale)[..., None]


class HiddenStateBase(nn.Module):
    """Iterates linear systems from what all input months tell of their states.

    The arrays of s systems are in the collection `batch_stats`: `transition`
    [s, 12, 32, 32] (month m to m + 1, January = 0), `gains` [s, 12, 32, T + 1, 32] of
    the last input month, `projection` [s, H, W, 32], `patterns` [s, 32, H, W], and the
    numbers `scale`, `offset` and `memory_scale`.

    Attributes:
        input_shape: (T, H, W, C_in): the field, cosine and sine of the month, and the
            memory.
        target_shape: (K, H, W, 1).
        systems: number of systems.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    systems: int = 1

    def check(self) -> None:
        """Raises ValueError for shapes that lack what the systems need."""
        check_channels(self.input_shape, self.target_shape, uses_memory=True)

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Float32 forecast `[b, K, H, W, 1]` of inputs `[b, T, H, W, C_in]`."""
        check_inputs(inputs, self.input_shape)
        (t, h, w, _), s, n = self.input_shape, self.systems, STATES

        def constant(name: str, *shape: int, init=jnp.zeros) -> jax.Array:
            return self.variable("batch_stats", name, init, shape, jnp.float32).value

        projection = constant("projection", s, h, w, n)
        gains = constant("gains", s, MONTHS, n, t + 1, n)
        transition = constant("transition", s, MONTHS, n, n)
        patterns = constant("patterns", s, n, h, w)
        scale, offset = constant("scale", init=jnp.ones), constant("offset")
        memory_scale = constant("memory_scale", init=jnp.ones)

        fields = inputs[..., 0].astype(jnp.float32) * scale + offset
        memory = inputs[:, -1, ..., _MEMORY].astype(jnp.float32) * memory_scale
        known = jnp.concatenate([fields, memory[:, None]], axis=1)
        amplitudes = jax.vmap(project, (1, None), 1)(known, projection)
        month = last_month(inputs)
        chosen = gains[:, month]
        state = jnp.einsum("sbitj,btsj->bsi", chosen, amplitudes, precision="highest")
        months = self.target_shape[0]
        forecast = iterate(state, transition, patterns, month, months)
        return ((forecast - offset) / scale)[..., None]


def check_channels(
    input_shape: tuple[int, ...], target_shape: tuple[int, ...], uses_memory: bool
) -> None:
    """Raises ValueError for shapes that lack what linear systems need."""
    check_shapes(input_shape, target_shape)
    channels = input_shape[-1]
    if target_shape[-1] != 1:
        raise ValueError(f"forecasts one channel; the targets have {target_shape[-1]}")
    if channels < _SEASON.stop:
        raise ValueError(
            "reads the month from the channels 1 and 2 of the inputs (cosine and "
            f"sine, data.calendar=True); the inputs have {channels} channels"
        )
    if uses_memory and channels <= _MEMORY:
        raise ValueError(
            "reads the memory from channel 3 of the inputs (data.memory=True); "
            f"the inputs have {channels} channels"
        )


def project(fields: jax.Array, onto: jax.Array) -> jax.Array:
    """Sums `[b, s, n]` of fields `[b, h, w]` times `[s, h, w, n]`."""
    return jnp.einsum("bhw,shwn->bsn", fields, onto, precision="highest")


def iterate(
    state: jax.Array, transition: jax.Array, patterns: jax.Array, month, months: int
) -> jax.Array:
    """Fields `[b, months, h, w]` after a state.

    Args:
        state: `[b, s, n]`, of s systems.
        transition: `[s, 12, n, n]`.
        patterns: `[s, n, h, w]`.
        month: `[b]`, calendar month of the state.
        months: to forecast.
    """

    def step(state, ahead):
        chosen = transition[:, (month + ahead) % MONTHS]
        state = jnp.einsum("sbij,bsj->bsi", chosen, state, precision="highest")
        return state, state

    _, states = jax.lax.scan(step, state, jnp.arange(months))
    return jnp.einsum("kbsn,snhw->bkhw", states, patterns, precision="highest")


def last_month(inputs: jax.Array) -> jax.Array:
    """Calendar month `[b]` of the last frame of inputs, January = 0."""
    cosine, sine = inputs[:, -1, 0, 0, _SEASON].astype(jnp.float32).T
    return month_of(cosine, sine)


def month_of(cosine: ArrayLike, sine: ArrayLike) -> jax.Array:
    """The calendar month, January = 0, whose angle is 2 pi month / 12; int32."""
    turns = jnp.atan2(sine, cosine) / (2 * jnp.pi)
    return jnp.round(turns * MONTHS).astype(jnp.int32) % MONTHS
