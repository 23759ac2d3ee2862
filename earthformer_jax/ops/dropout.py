"""Dropout."""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_value
from earthformer_jax.settings import FRACTION


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Sets elements to zero at random and scales the others by 1 / (1 - rate).

    Args:
        x: of any shape.
        rate: share of the elements to drop, from 0 to 1 inclusive.
        key: PRNG key of any kind; None if nothing is to be dropped.

    Raises:
        ValueError: if the rate is not between 0 and 1.
    """
    check_value("rate", rate, FRACTION)
    if key is None or not rate:
        return x
    if rate == 1.0:
        return jnp.zeros_like(x)
    kept = jax.random.bits(key, x.shape, jnp.uint32) >= threshold(rate)
    return jnp.where(kept, x / (1.0 - rate), 0)


def threshold(rate: float) -> np.uint32:
    """Elements whose 32 random bits are below are dropped, at a rate less than 1."""
    return np.uint32(min(round(rate * 2**32), 2**32 - 1))
