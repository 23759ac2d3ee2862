"""Blocks as in DCGAN: convolution, group normalisation, leaky ReLU.

Reference:
    Radford et al. 2016, Unsupervised Representation Learning with Deep Convolutional
    Generative Adversarial Networks. https://arxiv.org/abs/1511.06434 (there with batch
    normalisation); Le Guen and Thome 2020, PhyDNet. https://arxiv.org/abs/2003.01460
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers.loop_conv import LoopConv
from earthformer_jax.layers.norm import make_group_norm

LEAKY_SLOPE = 0.2


class DCGANBlock(nn.Module):
    """3x3 convolution, GroupNorm, LeakyReLU: `[n, h, w, c]` to `[n, h', w', features]`.

    Attributes:
        features: output channels, a multiple of `groups`.
        stride: factor by which the plane shrinks, or with `up` grows.
        up: whether the convolution is transposed.
        groups: of the normalisation.
        dtype: computation type; None follows inputs and parameters.
        param_dtype: parameter type.
    """

    features: int
    stride: int = 1
    up: bool = False
    groups: int = 16
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, in_loop: bool = False) -> jax.Array:
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = LoopConv(
            self.features, stride=self.stride, transposed=self.up, name="conv", **types
        )
        x = conv(x, in_loop=in_loop)
        return make_group_norm(self.groups, name="norm", **types)(x, slope=LEAKY_SLOPE)


class DCGANStack(nn.Module):
    """`DCGANBlock`s in sequence.

    Attributes:
        features: channels after each block.
        strides: stride of each block.
        up: whether the convolutions are transposed.
        last: "block", or "conv" for a last layer that is a plain convolution.
        groups: of the normalisations.
        dtype: computation type; None follows inputs and parameters.
        param_dtype: parameter type.
    """

    features: tuple[int, ...]
    strides: tuple[int, ...]
    up: bool = False
    last: str = "block"
    groups: int = 16
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, in_loop: bool = False) -> jax.Array:
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        count = len(self.features)
        for i, (features, stride) in enumerate(
            zip(self.features, self.strides, strict=True)
        ):
            if self.last == "conv" and i == count - 1:
                layer = LoopConv(
                    features, stride=stride, transposed=self.up, name="conv", **types
                )
            else:
                layer = DCGANBlock(
                    features, stride, self.up, self.groups, name=f"block_{i}", **types
                )
            x = layer(x, in_loop=in_loop)
        return x
