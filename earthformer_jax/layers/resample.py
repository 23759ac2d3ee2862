"""Patch merging and up-sampling with their projections."""

from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from earthformer_jax.layers import initializers
from earthformer_jax.layers.dense import Dense
from earthformer_jax.layers.norm import make_norm
from earthformer_jax.ops import resample
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.resample import Grid
from earthformer_jax.ops.tuned.order import materialize
from earthformer_jax.ops.tuned.upsample import upsample_convolve


class PatchMerging(nn.Module):
    """Merges each block of neighbours into one position: gather, norm, linear.

    Attributes:
        features: channels of the output; None is max(factor) times the input's.
        factor: neighbours merged along (t, h, w).
        padding: how a grid that `factor` does not divide is enlarged.
        norm: "layer_norm" or "rms_norm".
        linear_init: linear initialisation, "fan_in" or "fan_out".
        dtype: computation type; None follows the input.
        param_dtype: parameter type.

    Reference:
        Gao et al. 2022, Earthformer, section 3.3.
    """

    features: int | None = None
    factor: Grid = (1, 2, 2)
    padding: str = "nearest"
    norm: str = "layer_norm"
    linear_init: str = "fan_in"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to `[b, t', h', w', features]`, sizes rounded up."""
        features = self.features or max(self.factor) * x.shape[-1]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        _, height, _ = resample.merged_grid(x.shape[1:4], self.factor)
        x = split.split_field(x, height)
        x = materialize(resample.patch_merge(x, self.factor, self.padding))
        x = make_norm(self.norm, name="norm", **types)(x)
        return Dense(
            features,
            use_bias=False,
            kernel_init=initializers.linear(self.linear_init),
            name="reduction",
            **types,
        )(x)


class Upsample(nn.Module):
    """Nearest-neighbour resize of every frame, then one convolution.

    Attributes:
        features: channels of the output.
        plane: (h, w) wanted.
        kernel: side of the convolution's window.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.

    Reference:
        Gao et al. 2022, Earthformer, tables 8 and 9.
    """

    features: int
    plane: tuple[int, int]
    kernel: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to `[b, t, *plane, features]`."""
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel, bias = _ConvWeights(shape, self.param_dtype, name="conv")()
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        frames = einops.rearrange(x, "b t h w c -> (b t) h w c")
        frames = upsample_convolve(frames, kernel, self.plane, bias)
        y = einops.rearrange(frames, "(b t) h w c -> b t h w c", t=x.shape[1])
        return split.split_field(y, height=x.shape[2])


class _ConvWeights(nn.Module):
    """Kernel and bias named as those of a convolution layer."""

    shape: tuple[int, int, int, int]
    param_dtype: Any

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        init, dtype = initializers.upsample_conv, self.param_dtype
        bias = self.param("bias", nn.initializers.zeros, self.shape[-1:], dtype)
        return self.param("kernel", init, self.shape, dtype), bias
