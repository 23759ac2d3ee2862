"""Layer normalisation."""

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
