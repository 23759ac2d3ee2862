"""Dropout."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_value
from earthformer_jax.settings import FRACTION


class Reordered(NamedTuple):
    """An axis whose positions come in another order than the random numbers for them.

    Attributes:
        axis: its number.
        sizes: of the axes that it consists of, in the order of the random numbers.
        order: in which the array has them, slowest first.
    """

    axis: int
    sizes: tuple[int, ...]
    order: tuple[int, ...]

    def apart(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape with these axes apart, in the order of the random numbers."""
        return (*shape[: self.axis], *self.sizes, *shape[self.axis + 1 :])

    def merge(self, x: jax.Array) -> jax.Array:
        """An array with these axes apart, with them merged in the array's order."""
        own = [self.axis + i for i in self.order]
        after = range(self.axis + len(own), x.ndim)
        x = x.transpose(*range(self.axis), *own, *after)
        return x.reshape(*x.shape[: self.axis], -1, *x.shape[self.axis + len(own) :])


def dropout(
    x: jax.Array,
    rate: float,
    key: jax.Array | None,
    reordered: Reordered | None = None,
) -> jax.Array:
    """Sets elements to zero at random and scales the others by 1 / (1 - rate).

    Args:
        x: of any shape.
        rate: share of the elements to drop, from 0 to 1 inclusive.
        key: PRNG key of any kind; None if nothing is to be dropped.
        reordered: an axis that is not in the usual order, to drop the same elements.

    Raises:
        ValueError: if the rate is not between 0 and 1.
    """
    check_value("rate", rate, FRACTION)
    if key is None or not rate:
        return x
    if rate == 1.0:
        return jnp.zeros_like(x)
    if reordered is None:
        bits = jax.random.bits(key, x.shape, jnp.uint32)
    else:
        bits = jax.random.bits(key, reordered.apart(x.shape), jnp.uint32)
        bits = reordered.merge(bits)
    return drop(x, rate, bits)


def drop(x: jax.Array, rate: float, bits: jax.Array) -> jax.Array:
    """`dropout` at a rate less than 1, with the random bits of every element."""
    return jnp.where(bits >= threshold(rate), x / (1.0 - rate), 0)


def threshold(rate: float) -> np.uint32:
    """Elements whose 32 random bits are below are dropped, at a rate less than 1."""
    return np.uint32(min(round(rate * 2**32), 2**32 - 1))
