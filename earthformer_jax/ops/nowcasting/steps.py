"""STEPS: what S-PROG forecasts, and noise in place of what has faded.

As in `sprog`, but every band of wave numbers also receives shocks, which have the
spectrum of the last field and so much variance that each band keeps its own. A member
is as rough as rain. The mean of many is about as smooth as S-PROG, and the share of
members above a threshold is a probability.

Each member has the mean of the last frame and nowhere less than its least value, as in
`sprog`. (Pysteps matches the whole distribution of each member instead, which gives the
mean of members larger squared errors.)

Reference:
    Bowler, Pierce and Seed 2006, "STEPS: a probabilistic precipitation forecasting
    scheme which merges an extrapolation nowcast with downscaled NWP"; Pulkkinen et al.
    2019, "Pysteps".
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from earthformer_jax.ops.nowcasting.cascade import (
    Cascade,
    bands,
    decompose,
    expected,
    respond,
)
from earthformer_jax.ops.nowcasting.sprog import BANDS, carried, keep_mean, moving_frame

MEMBERS = 10  # of the mean


def steps_members(
    frames: jax.Array,
    flow: jax.Array,
    steps: int,
    key: jax.Array,
    size: int = MEMBERS,
    number: int = BANDS,
) -> jax.Array:
    """Equally likely forecasts of the next frames.

    A smaller number of members gives the first of a larger one.

    Args:
        frames: `[t, h, w, c]` with t of at least 3, of which the last three count, in
            logarithmic units; 0 mm/h is a finite value. Channels have noise of their
            own.
        flow: `[h, w, 2]`, rows and columns per frame, the motion of all channels.
        steps: number of frames to make.
        key: of the random numbers.
        size: number of members.
        number: of bands.

    Returns:
        `[size, steps, h, w, c]`. Values at the edge stay where something flows in.

    Raises:
        ValueError: for fewer than 3 frames.
    """
    member = _drawing(frames, flow, steps, key, number)
    return jax.lax.map(lambda i: carried(member(i), flow), jnp.arange(size))


def steps_mean(
    frames: jax.Array,
    flow: jax.Array,
    steps: int,
    key: jax.Array,
    size: int = MEMBERS,
    number: int = BANDS,
) -> jax.Array:
    """The mean of `steps_members`, `[steps, h, w, c]`, in the memory of one of them."""
    member = _drawing(frames, flow, steps, key, number)

    def add(total: jax.Array, i: jax.Array):
        return total + member(i) / size, None

    start = jnp.zeros((steps, *frames.shape[1:]), frames.dtype)
    return carried(jax.lax.scan(add, start, jnp.arange(size))[0], flow)


def noise(
    cascade: Cascade, size: tuple[int, ...], steps: int, key: jax.Array
) -> jax.Array:
    """What shocks add to the fields that follow, `[steps, h, w]` with means of 0.

    Args:
        cascade: of fields of this size.
        size: rows and columns.
        steps: number of fields.
        key: of the random numbers.
    """
    ones, zeros = jnp.ones_like(cascade.first), jnp.zeros_like(cascade.first)
    later = respond(cascade, ones, zeros, steps)
    responses = cascade.shock * jnp.concatenate([ones[None], later[:-1]])
    amplitudes = jnp.einsum("km,mhw->khw", responses, bands(size, len(ones)))
    spectrum = _magnitude(cascade.spectra[0])
    shocks = jnp.fft.rfft2(jax.random.normal(key, (steps, *size)), norm="ortho")

    def add(carry, amplitude: jax.Array):
        total, shocks = carry
        total = total + amplitude * spectrum * shocks
        return (total, jnp.roll(shocks, 1, axis=0).at[0].set(0)), None

    (total, _), _ = jax.lax.scan(add, (jnp.zeros_like(shocks), shocks), amplitudes)
    return jnp.fft.irfft2(total, size, norm="ortho")


def _drawing(
    frames: jax.Array, flow: jax.Array, steps: int, key: jax.Array, number: int
) -> Callable[[jax.Array], jax.Array]:
    """A function of the number of a member: `[steps, h, w, c]` in the moving frame."""
    fields = moving_frame(frames, flow)
    last, size = fields[-1], fields.shape[1:3]
    cascades = jax.vmap(functools.partial(decompose, number=number), -1)(fields)
    without = jax.vmap(lambda cascade: expected(cascade, size, steps))(cascades)

    def one(cascade, following, last, key):
        drawn = following + noise(cascade, size, steps, key)
        return jax.lax.map(lambda field: keep_mean(field, last), drawn)

    def member(i: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, i), last.shape[-1])
        return jax.vmap(one, (0, 0, -1, 0), -1)(cascades, without, last, keys)

    return member


def _magnitude(spectrum: jax.Array) -> jax.Array:
    """Absolute values, with a gradient of 0 at 0."""
    square = spectrum.real**2 + spectrum.imag**2
    is_zero = square == 0
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, square)))
