"""Layer and group normalisation."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from earthformer_jax.checks import check_array


def layer_norm(
    x: jax.Array, scale: jax.Array, offset: jax.Array, epsilon: float
) -> jax.Array:
    """Normalises the last axis, with statistics in float32 (or wider).

    Args:
        x: `[..., c]`.
        scale: `[c]`.
        offset: `[c]`.
        epsilon: added to the variance.

    Returns:
        `[..., c]` in the type of `x`.

    Reference:
        Ba et al. 2016, https://arxiv.org/abs/1607.06450
    """
    sizes = check_array("x", x, "... c", kind=jnp.floating)
    check_array("scale", scale, "c", sizes)
    check_array("offset", offset, "c", sizes)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    y = centred * lax.rsqrt(variance + epsilon) * scale + offset
    return y.astype(x.dtype)


def group_norm(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    *,
    groups: int,
    epsilon: float,
    slope: float = 1.0,
) -> jax.Array:
    """Normalises groups of neighbouring channels over the plane; then a leaky ReLU.

    Args:
        x: `[n, h, w, c]`.
        scale: `[c]`.
        offset: `[c]`.
        groups: how many; divides the channels.
        epsilon: added to the variance.
        slope: of the leaky ReLU where it is below zero; 1 for none.

    Returns:
        `[n, h, w, c]` in the type of `x`, with statistics in float32 (or wider).

    Raises:
        ValueError: for arrays of other shapes or types, or if the groups do not divide
            the channels.

    Reference:
        Wu and He 2018, https://arxiv.org/abs/1803.08494
    """
    check_groups(x, scale, offset, groups)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))

    # Channel by channel, then over the channels of a group: XLA's CPU compiler takes
    # more than twice as long for both at once.
    def mean(y):
        own = y.mean(axis=(1, 2)).reshape(y.shape[0], groups, -1).mean(axis=-1)
        return jnp.repeat(own, x.shape[-1] // groups, axis=-1)[:, None, None]

    centred = wide - mean(wide)
    factor = lax.rsqrt(mean(jnp.square(centred)) + epsilon) * scale
    y = centred * factor + offset
    if slope != 1.0:
        y = jnp.where(y >= 0, y, slope * y)
    return y.astype(x.dtype)


def check_groups(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    groups: int,
    kind: Any = jnp.floating,
) -> None:
    """Raises the errors of `group_norm`, also for arrays of another kind of numbers."""
    sizes = check_array("x", x, "n h w c", kind=kind)
    check_array("scale", scale, "c", sizes, kind=kind)
    check_array("offset", offset, "c", sizes, kind=kind)
    if groups < 1 or sizes["c"] % groups:
        raise ValueError(
            f"{groups} groups of channels: expected a divisor of the {sizes['c']} "
            "channels"
        )
