"""Dropout whose random numbers cost less than the layer they act on.

JAX's generators are made for statistics: on a CPU, drawing a number for every element
takes as long as a matrix product, and XLA keeps the numbers for the gradient. Whether
an element is dropped need only look random, so here it is a hash of its position and of
two words drawn from the key. The compiler computes it where it is used, in the value
and again in the gradient, on any number of devices with the same result.
"""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.hashed_key import hashed_bits, key_words


def draw_seed(key: jax.Array) -> jax.Array:
    """uint32 `[2]` for `dropout`, from a PRNG key of any kind."""
    return key_words(key)


def dropout(x: jax.Array, rate: float, seed: jax.Array | None) -> jax.Array:
    """Sets elements to zero at random and enlarges the others by 1 / (1 - rate).

    Args:
        x: of any shape.
        rate: share of the elements to be dropped, 0 up to and including 1.
        seed: uint32 `[2]` from `draw_seed`; None when nothing is to be dropped.

    Raises:
        ValueError: if the rate is no share.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"a dropout rate lies between 0 and 1; got {rate}")
    if seed is None or not rate:
        return x
    if rate == 1.0:
        return jnp.zeros_like(x)
    return jnp.where(keep_mask(x.shape, rate, seed), x / (1.0 - rate), 0)


def keep_mask(
    shape: tuple[int, ...], rate: float, seed: jax.Array, *, swap: bool = False
) -> jax.Array:
    """bool of a shape: False for the elements that `dropout` sets to zero.

    Args:
        shape: of the mask.
        rate: share of the elements to be dropped, less than 1.
        seed: uint32 `[2]` from `draw_seed`.
        swap: the mask of an array whose last two axes are exchanged.
    """
    order = list(range(len(shape)))
    if swap:
        order[-2:] = order[:-3:-1]
    position, step = jnp.zeros((), jnp.uint32), 1
    for axis in reversed(order):
        count = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        position = position + count * np.uint32(step % 2**32)
        step *= shape[axis]
    return hashed_bits(position, seed) >= threshold(rate)


def threshold(rate: float) -> np.uint32:
    """Elements whose hashed bits are below are dropped, at a rate less than 1."""
    return np.uint32(min(round(rate * 2**32), 2**32 - 1))
