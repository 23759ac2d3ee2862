"""UNet: frames are channels, planes are halved and doubled again with skip connections.

Every level of the encoder convolves twice and keeps its planes for the decoder before
max-pooling halves them; the centre works on the smallest planes; every level of the
decoder doubles the planes, prepends the kept ones, and convolves twice. All output
frames are the channels of one 1 x 1 convolution.

Reference:
    Veillette, Samsi and Mattioli 2020, SEVIR: A Storm Event Imagery Dataset for Deep
    Learning Applications in Radar and Satellite Meteorology, NeurIPS (the nowcasting
    baseline); Ronneberger et al. 2015, U-Net. https://arxiv.org/abs/1505.04597;
    Gao et al. 2022, Earthformer. https://arxiv.org/abs/2207.05833 (table 11)
"""

import functools
from collections.abc import Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import SIZES, check_fields
from earthformer_jax.layers.batch_norm import BatchNorm
from earthformer_jax.layers.convolution import Conv, ConvTranspose
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.settings import DECAY, at_least, setting


class UNet(nn.Module):
    """The UNet of the SEVIR paper, with batch normalisation.

    The defaults are the paper's for MovingMNIST, N-body MNIST (16.6 million parameters)
    and SEVIR; for ICAR-ENSO it has three levels, `features=(32, 64, 128)`, around the
    same centre (12.1 million).

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out). Planes whose sides are not multiples of
            2**levels are padded with zeros at the end, and the forecast is cropped.
        features: channels of each level, from the finest.
        center_features: channels of the centre.
        norm_momentum: share of the running statistics of batch normalisation that a
            training step keeps; use less when training for a few hundred steps only.
        remat: what of the levels and the centre is computed again in the backward pass;
            see `models.remat`.
        dtype: computation type; None means float32.
        param_dtype: parameter type.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    features: Sequence[int] = setting((32, 64, 128, 256), SIZES)
    center_features: int = setting(1024, at_least(1))
    norm_momentum: float = setting(0.99, DECAY)
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Forecasts the next frames.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether batch normalisation uses the statistics of this batch, and
                updates the running ones.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, or inputs whose shape
                is not `input_shape`.
        """
        self.check()
        check_inputs(inputs, self.input_shape)
        dtype = self.dtype or jnp.promote_types(inputs.dtype, jnp.float32)
        options: dict[str, Any] = dict(
            momentum=self.norm_momentum, dtype=dtype, param_dtype=self.param_dtype
        )
        height, width = self.input_shape[1:3]
        whole = 2 ** len(self.features)
        grow = [(0, -size % whole) for size in (height, width)]
        x = einops.rearrange(inputs.astype(dtype), "b t h w c -> b h w (t c)")
        x = jnp.pad(x, ((0, 0), *grow, (0, 0)))

        call = functools.partial(remat_lib.call_block, remat=self.remat, train=train)
        skips = []
        for level, features in enumerate(self.features):
            block = ConvBlock(features, name=f"encoder_{level}", **options)
            x = call(block, x)
            skips.append(x)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = call(ConvBlock(self.center_features, name="center", **options), x)
        for level, features in reversed([*enumerate(self.features)]):
            block = DecoderBlock(features, name=f"decoder_{level}", **options)
            x = call(block, x, skips[level])

        steps, *_, channels = self.target_shape
        x = Conv(
            steps * channels,
            (1, 1),
            kernel_init=nn.initializers.glorot_uniform(),
            dtype=dtype,
            param_dtype=self.param_dtype,
            name="head",
        )(x)
        forecast = einops.rearrange(
            x[:, :height, :width], "b h w (k c) -> b k h w c", k=steps
        )
        return forecast.astype(jnp.promote_types(dtype, jnp.float32))


class ConvBlock(nn.Module):
    """3 x 3 convolution, batch normalisation and ReLU, twice, of `[b, h, w, c]`."""

    features: int
    momentum: float = 0.99
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        for i in range(2):
            x = Conv(
                self.features,
                (3, 3),
                kernel_init=nn.initializers.glorot_uniform(),
                name=f"conv_{i}",
                **types,
            )(x)
            x = BatchNorm(self.momentum, name=f"norm_{i}", **types)(x, train=train)
            x = nn.relu(x)
        return x


class DecoderBlock(nn.Module):
    """Doubles the planes, concatenates the encoder's, and applies a `ConvBlock`.

    `[b, h, w, c]` and `[b, 2h, 2w, features]` to `[b, 2h, 2w, features]`. Upsampled and
    kept planes are normalised together, the kept ones first.
    """

    features: int
    momentum: float = 0.99
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, skip: jax.Array, *, train: bool = False
    ) -> jax.Array:
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        x = ConvTranspose(
            self.features,
            (2, 2),
            (2, 2),
            padding="VALID",
            kernel_init=nn.initializers.glorot_uniform(),
            name="up",
            **types,
        )(x)
        x = jnp.concatenate([skip, x], axis=-1)
        x = BatchNorm(self.momentum, name="norm", **types)(x, train=train)
        return ConvBlock(self.features, self.momentum, name="convs", **types)(
            nn.relu(x), train=train
        )
