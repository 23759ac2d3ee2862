"""Rainformer's stages: merged or expanded patches, local and global features, a gate.

Planes are `[b, h, w, c]`. Kernels and biases are initialised as in PyTorch.

Reference:
    Bai et al. 2022, Rainformer: Features Extraction Balanced Network for Radar-Based
    Precipitation Nowcasting, IEEE GRSL 19 (its code is the authority here).
"""

from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.layers.batch_norm import BatchNorm
from earthformer_jax.layers.convolution import Conv
from earthformer_jax.layers.norm import EPSILON
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.rainformer.attention import (
    ChannelAttention,
    SwinBlock,
    dense,
    maximum,
)
from earthformer_jax.ops.dense import multiply


class DoubleConv(nn.Module):
    """3x3 convolution, batch normalisation and ReLU, twice.

    Attributes:
        features: output channels.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[b, h, w, c]` to `[b, h, w, features]`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i in (1, 2):
            x = _conv(self.features, x.shape[-1], name=f"conv_{i}", **types)(x)
            x = nn.relu(_batch_norm(f"norm_{i}", **types)(x, train=train))
        return x


class CASA(nn.Module):
    """Attention over channels, then over positions.

    The gain of a position is computed from the mean and maximum of its channels by a
    3x3 convolution and batch normalisation.

    Attributes:
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[b, h, w, c]` to the same."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = ChannelAttention(shared=True, name="channel_attention", **types)(x)
        pooled = jnp.stack([x.mean(-1), maximum(x, -1)], axis=-1)
        gain = _conv(1, 2, name="conv", use_bias=False, **types)(pooled)
        gain = nn.sigmoid(_batch_norm("norm", **types)(gain, train=train))
        self.sow("intermediates", "gain", gain)
        return multiply(x, gain)


class PlaneNormConv(nn.Module):
    """3x3 convolution, then normalisation over channels and positions together.

    Scale and offset have one entry per channel and position, `[h, w, c]`: the number of
    parameters depends on the plane.

    Attributes:
        features: output channels.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    features: int
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` to `[b, h, w, features]`."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = _conv(self.features, x.shape[-1], name="conv", **types)(x)
        return nn.LayerNorm(
            epsilon=EPSILON,
            use_fast_variance=False,
            reduction_axes=(1, 2, 3),
            feature_axes=(1, 2, 3),
            name="norm",
            **types,
        )(x)


class GateFusion(nn.Module):
    """`sigmoid(z) * g + sigmoid(r) * l` of global features g and local features l.

    The gates z and r are computed from both. The reference builds two more convolutions
    with normalisation that it never calls; published parameter counts include them.

    Attributes:
        upstream_dead_params: create the parameters of those two, which never change.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    upstream_dead_params: bool = True
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, global_features: jax.Array, local_features: jax.Array):
        """Two `[b, h, w, c]` to one."""
        features = global_features.shape[-1]
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        both = jnp.concatenate([global_features, local_features], axis=-1)
        gates = PlaneNormConv(2 * features, name="gates", **types)(both)
        if self.upstream_dead_params and self.is_initializing():
            PlaneNormConv(features, name="dead_1", **types)(global_features)
            PlaneNormConv(features, name="dead_2", **types)(both)
        of_global, of_local = jnp.split(nn.sigmoid(gates), 2, axis=-1)
        self.sow("intermediates", "gates", (of_global, of_local))
        return of_global * global_features + of_local * local_features


class FeatureBalance(nn.Module):
    """Local features by convolutions, global ones by two Swin blocks, and their gate.

    The reference allows several such units per stage, but feeds the stage's input to
    all of them and returns the result of the last one: only one has an effect.

    Attributes:
        hidden: width inside the Swin blocks' perceptrons.
        heads: number of attention heads.
        head_dim: width of a head.
        window: side of the windows; divides the plane.
        relative_position: as in `WindowAttention`.
        upstream_dead_params: as in `GateFusion`.
        remat: what of the Swin blocks is computed again in the backward pass;
            see `models.remat`.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    hidden: int
    heads: int
    head_dim: int
    window: int
    relative_position: bool = True
    upstream_dead_params: bool = True
    remat: remat_lib.Remat = "none"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[b, h, w, c]` to the same."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        local = DoubleConv(x.shape[-1], name="convs", **types)(x, train=train)
        local = CASA(name="casa", **types)(local, train=train)

        far = x
        for name in ("regular", "shifted"):
            block = SwinBlock(
                self.hidden,
                self.heads,
                self.head_dim,
                self.window,
                name == "shifted",
                self.relative_position,
                name=name,
                **types,
            )
            far = remat_lib.call_block(block, far, remat=self.remat)
        gate = GateFusion(self.upstream_dead_params, name="fusion", **types)
        return gate(far, local)


class PatchMerging(nn.Module):
    """Turns every factor x factor patch into one position, then a linear layer.

    Attributes:
        features: output channels.
        factor: side of the patches; divides the plane.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    features: int
    factor: int = 2
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` to `[b, h / factor, w / factor, features]`.

        Raises:
            ValueError: if the patches do not fill the plane.
        """
        if x.shape[1] % self.factor or x.shape[2] % self.factor:
            raise ValueError(
                f"patches of side {self.factor} do not fill a plane of "
                f"{tuple(x.shape[1:3])}"
            )
        x = einops.rearrange(
            x,
            "b (h dy) (w dx) c -> b h w (c dy dx)",
            dy=self.factor,
            dx=self.factor,
        )
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        return dense(self.features, x.shape[-1], name="linear", **types)(x)


class PatchExpanding(nn.Module):
    """Turns every position into a factor x factor patch, then a linear layer.

    Attributes:
        features: output channels.
        factor: side of the patches; its square divides the channels of the input.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    features: int
    factor: int = 2
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, h, w, c]` to `[b, h * factor, w * factor, features]`.

        Raises:
            ValueError: if the channels are not enough for whole patches.
        """
        if x.shape[-1] % self.factor**2:
            raise ValueError(
                f"{x.shape[-1]} channels do not make patches of side {self.factor}; "
                f"a multiple of {self.factor**2} does"
            )
        x = einops.rearrange(
            x,
            "b h w (c dy dx) -> b (h dy) (w dx) c",
            dy=self.factor,
            dx=self.factor,
        )
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        return dense(self.features, x.shape[-1], name="linear", **types)(x)


def _conv(features, fan_channels, *, name, use_bias=True, **types):
    """A 3x3 convolution that keeps the plane, initialised as in PyTorch."""
    return Conv(
        features,
        (3, 3),
        padding="SAME",
        use_bias=use_bias,
        kernel_init=initializers.torch_kernel,
        bias_init=initializers.torch_bias(9 * fan_channels),
        name=name,
        **types,
    )


def _batch_norm(name, **types):
    return BatchNorm(momentum=0.9, epsilon=EPSILON, name=name, **types)
