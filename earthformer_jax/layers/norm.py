"""Normalisation over channels, with the reference's constants."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

EPSILON = 1e-5  # PyTorch's; Flax's default is 1e-6
NORMS = ("layer_norm", "rms_norm")


class RMSNorm(nn.Module):
    """`scale * x / (rms(x) + epsilon)`: the constant is outside the root.

    Attributes:
        epsilon: added to the root mean square.
        portion: share of the channels, from the first, that the mean is taken over.
        use_offset: add a learned offset.
        param_dtype: of the parameters.

    Reference:
        Zhang and Sennrich 2019, Root Mean Square Layer Normalization.
    """

    epsilon: float = EPSILON
    portion: float = 1.0
    use_offset: bool = False
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        shape = (x.shape[-1],)
        scale = self.param("rms_scale", nn.initializers.ones, shape, self.param_dtype)
        part = x[..., : int(self.portion * x.shape[-1])].astype(dtype)
        rms = jnp.sqrt(jnp.mean(jnp.square(part), axis=-1, keepdims=True))
        y = scale * x / (rms + self.epsilon)
        if self.use_offset:
            y = y + self.param("offset", nn.initializers.zeros, shape, self.param_dtype)
        return y.astype(x.dtype)


def make_norm(kind: str, *, name: str, dtype=None, param_dtype=jnp.float32):
    """A "layer_norm" or "rms_norm" module over the last axis.

    Raises:
        ValueError: if `kind` is neither.
    """
    if kind == "layer_norm":
        return nn.LayerNorm(
            epsilon=EPSILON,
            use_fast_variance=False,  # the two-pass variance of the reference
            dtype=dtype,
            param_dtype=param_dtype,
            name=name,
        )
    if kind == "rms_norm":
        return RMSNorm(param_dtype=param_dtype, name=name)
    raise ValueError(f"norm must be one of {NORMS}; got {kind!r}")


def make_group_norm(groups: int, *, name: str, dtype=None, param_dtype=jnp.float32):
    """Group normalisation of frames `[b, h, w, c]`."""
    return nn.GroupNorm(
        num_groups=groups,
        epsilon=EPSILON,
        use_fast_variance=False,
        dtype=dtype,
        param_dtype=param_dtype,
        name=name,
    )
