"""Self-attention along the rows and along the columns of a plane."""

from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers.norm import EPSILON
from earthformer_jax.ops.dense import dense, multiply
from earthformer_jax.ops.tuned.attention import attend


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    """Normalises the last axis, at least in float32."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - wide.mean(-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + EPSILON)
    return (wide * scale + bias).astype(x.dtype)


def attend_rows(weights: dict, x: jax.Array, heads: int) -> jax.Array:
    """Attention of every position of `[b, h, w, c]` to its row, times a gain."""
    y = layer_norm(x, weights["scale"], weights["bias"])
    query, key, value = einops.rearrange(
        dense(y, weights["qkv"].astype(x.dtype)),
        "b h w (p a d) -> p b h w a d",
        p=3,
        a=heads,
    )
    y = attend(query, key, value, scale=query.shape[-1] ** -0.5)
    y = einops.rearrange(y, "b h w a d -> b h w (a d)")
    y = dense(y, weights["out"].astype(x.dtype))
    return multiply(y, weights["gain"])


def attend_plane(weights: dict, x: jax.Array, heads: int) -> jax.Array:
    """`x` plus attention along its rows and along its columns, `[b, h, w, c]`."""
    turned = einops.rearrange(x, "b h w c -> b w h c")
    columns = attend_rows(weights["columns"], turned, heads)
    columns = einops.rearrange(columns, "b w h c -> b h w c")
    return x + attend_rows(weights["rows"], x, heads) + columns


class _AxisWeights(nn.Module):
    """Weights of the attention along one axis."""

    features: int
    param_dtype: Any

    @nn.compact
    def __call__(self, channels: int) -> dict[str, jax.Array]:
        glorot, zeros = nn.initializers.glorot_uniform(), nn.initializers.zeros
        shapes = {
            "scale": (nn.initializers.ones, (channels,)),
            "bias": (zeros, (channels,)),
            "qkv": (glorot, (channels, 3 * self.features)),
            "out": (glorot, (self.features, channels)),
            "gain": (zeros, (channels,)),
        }
        return {
            name: self.param(name, init, shape, self.param_dtype)
            for name, (init, shape) in shapes.items()
        }


class AxialAttention(nn.Module):
    """A plane plus attention along its rows and along its columns.

    The gains start at zero, so the layer starts as the identity.

    Attributes:
        heads: attention heads.
        features: total width of the heads, a multiple of `heads`.
        param_dtype: parameter type.
    """

    heads: int
    features: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def weights(self, channels: int) -> dict[str, dict[str, jax.Array]]:
        """The parameters, for `attend_plane` inside a loop.

        Raises:
            ValueError: if `heads` does not divide `features`.
        """
        if self.heads < 1 or self.features % self.heads:
            raise ValueError(
                f"heads must divide features; got {self.heads} heads for "
                f"{self.features} features"
            )
        return {
            axis: _AxisWeights(self.features, self.param_dtype, name=axis)(channels)
            for axis in ("rows", "columns")
        }

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` to the same."""
        return attend_plane(self.weights(x.shape[-1]), x, self.heads)
