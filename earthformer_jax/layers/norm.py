"""Normalisation over channels, with the reference's constants."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers.dense import bound_to
from earthformer_jax.ops.tuned.norm import group_norm, layer_norm

EPSILON = 1e-5  # PyTorch's; Flax's default is 1e-6
NORMS = ("layer_norm", "rms_norm")


class RMSNorm(nn.Module):
    """`scale * x / (rms(x) + epsilon)`: the constant is outside the root.

    Attributes:
        epsilon: added to the root mean square.
        portion: share of the channels, from the first, that the mean is taken over.
        use_offset: add a learned offset.
        param_dtype: parameter type.

    Reference:
        Zhang and Sennrich 2019, Root Mean Square Layer Normalization.
    """

    epsilon: float = EPSILON
    portion: float = 1.0
    use_offset: bool = False
    param_dtype: Any = jnp.float32

    @nn.compact
    def bind_weights(self, features: int) -> jax.tree_util.Partial:
        """The layer as a pure function of `[..., c]` that carries its weights."""
        shape, dtype = (features,), self.param_dtype
        scale = self.param("rms_scale", nn.initializers.ones, shape, dtype)
        offset = None
        if self.use_offset:
            offset = self.param("offset", nn.initializers.zeros, shape, dtype)
        counted = int(self.portion * features)
        apply = functools.partial(_rms_norm, counted, self.epsilon)
        return jax.tree_util.Partial(apply, scale, offset)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bind_weights(x.shape[-1])(x)


def _rms_norm(counted, epsilon, scale, offset, x):
    part = x[..., :counted].astype(jnp.promote_types(x.dtype, jnp.float32))
    rms = jnp.sqrt(jnp.mean(jnp.square(part), axis=-1, keepdims=True))
    y = scale * x / (rms + epsilon)
    if offset is not None:
        y = y + offset
    return y.astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis; parameters named as in `nn.LayerNorm`.

    Attributes:
        epsilon: added to the variance.
        dtype: of the result; None follows the input.
        param_dtype: parameter type.
    """

    epsilon: float = EPSILON
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def bind_weights(self, features: int) -> jax.tree_util.Partial:
        """The layer as a pure function of `[..., c]` that carries its weights."""
        shape, dtype = (features,), self.param_dtype
        scale = self.param("scale", nn.initializers.ones, shape, dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, dtype)
        apply = functools.partial(_layer_norm, self.dtype, self.epsilon)
        return jax.tree_util.Partial(apply, scale, bias)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.bind_weights(x.shape[-1])(x)


def _layer_norm(dtype, epsilon, scale, bias, x):
    return layer_norm(x.astype(dtype or x.dtype), scale, bias, epsilon)


def weights_of_norm(norm: Any) -> tuple[jax.Array, jax.Array, float] | None:
    """Scale, offset and epsilon of what `LayerNorm.bind_weights` returns.

    None for anything else.
    """
    bound = bound_to(_layer_norm, norm)
    return None if bound is None else (*bound[1], bound[0][1])


def make_norm(kind: str, *, name: str, dtype=None, param_dtype=jnp.float32):
    """A "layer_norm" or "rms_norm" module over the last axis.

    Raises:
        ValueError: if `kind` is neither.
    """
    if kind == "layer_norm":
        return LayerNorm(dtype=dtype, param_dtype=param_dtype, name=name)
    if kind == "rms_norm":
        return RMSNorm(param_dtype=param_dtype, name=name)
    raise ValueError(f"norm must be one of {NORMS}; got {kind!r}")


class GroupNorm(nn.Module):
    """Group normalisation of frames; parameters named as in `nn.GroupNorm`.

    Attributes:
        num_groups: of neighbouring channels; divides their number.
        epsilon: added to the variance.
        dtype: of the result; None follows the input.
        param_dtype: parameter type.
    """

    num_groups: int
    epsilon: float = EPSILON
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, slope: float = 1.0) -> jax.Array:
        """`[b, h, w, c]` to `[b, h, w, c]`.

        Args:
            x: frames.
            slope: of a leaky ReLU after the norm where the norm is below zero; 1 for
                none.

        Raises:
            ValueError: if the groups do not divide the channels.
        """
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        dtype = self.dtype or x.dtype
        y = group_norm(
            x.astype(jnp.promote_types(x.dtype, dtype)),
            scale,
            bias,
            groups=self.num_groups,
            epsilon=self.epsilon,
            slope=slope,
        )
        return y.astype(dtype)


def make_group_norm(
    groups: int, *, name: str | None, dtype=None, param_dtype=jnp.float32
):
    """Group normalisation of frames `[b, h, w, c]`."""
    return GroupNorm(num_groups=groups, dtype=dtype, param_dtype=param_dtype, name=name)
