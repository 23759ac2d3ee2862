"""Frames to small latent planes and back, for models too expensive on large frames.

On SEVIR's 384x384 frames the recurrent baselines work on latents with an eighth of the
side. How the paper's authors shrank the frames is not published: this is the smallest
convolutional network that agrees with its parameter counts (46.6M PredRNN, 35.6M
E3D-LSTM) and FLOPs. With (8, 16, 64) channels and frames of one channel, encoder and
decoder have 37,233 parameters together.

    encoder = FrameEncoder(stage_features(8))        # [b, t, 384, 384, 1] to
    decoder = FrameDecoder(mirrored_features(8, 1))  # [b, t, 48, 48, 64], and back
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.layers.convolution import Conv, ConvTranspose

KERNEL = 4  # twice the stride, so that all inputs are covered by equally many windows
STRIDE = 2
LEAKY_SLOPE = 0.2
FIRST_FEATURES, LATENT_FEATURES = 8, 64


def stage_features(downsampling: int) -> tuple[int, ...]:
    """Channels of an encoder's stages: 8 and doubling, but 64 in the last one.

    Args:
        downsampling: factor by which the sides of the latents are smaller; a power of
            two, 2 or more. 8 gives (8, 16, 64).

    Raises:
        ValueError: for any other number.
    """
    if downsampling < STRIDE or downsampling & (downsampling - 1):
        raise ValueError(
            f"downsampling must be a power of two, 2 or more; got {downsampling}"
        )
    stages = downsampling.bit_length() - 1
    return (*(FIRST_FEATURES * 2**i for i in range(stages - 1)), LATENT_FEATURES)


def mirrored_features(downsampling: int, channels: int) -> tuple[int, ...]:
    """Channels of the decoder's stages, the encoder's reversed: 8 gives (16, 8, c)."""
    return (*reversed(stage_features(downsampling)[:-1]), channels)


class FrameEncoder(nn.Module):
    """4x4 convolutions of stride 2, each halving the sides of every frame.

    LeakyReLU follows all convolutions but the last: the latents are linear, as a
    model's forecasts of them are.

    Attributes:
        features: channels of every stage; the last are those of the latents.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    features: Sequence[int] = (8, 16, 64)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Encodes every frame on its own.

        Args:
            x: `[..., h, w, c]`, any leading axes; sides divisible by 2**stages.

        Returns:
            `[..., h / 2**stages, w / 2**stages, features[-1]]`.

        Raises:
            ValueError: if a side is not divisible.
        """
        whole = STRIDE ** len(self.features)
        if x.shape[-3] % whole or x.shape[-2] % whole:
            raise ValueError(
                f"frames of {x.shape[-3]}x{x.shape[-2]} cannot be halved "
                f"{len(self.features)} times; pad them to multiples of {whole} first"
            )
        for stage, features in enumerate(self.features):
            if stage:
                x = nn.leaky_relu(x, LEAKY_SLOPE)
            x = Conv(
                features,
                (KERNEL, KERNEL),
                (STRIDE, STRIDE),
                padding=(KERNEL - STRIDE) // 2,
                name=f"down_{stage}",
                **_options(self, x),
            )(x)
        return x


class FrameDecoder(nn.Module):
    """Transposed 4x4 convolutions of stride 2, each doubling the sides of every frame.

    LeakyReLU follows all but the last: the frames are linear.

    Attributes:
        features: channels of every stage; the last are those of the frames.
        dtype: computation type; None follows the input.
        param_dtype: parameter type.
    """

    features: Sequence[int] = (16, 8, 1)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., h, w, c]` to `[..., h * 2**stages, w * 2**stages, features[-1]]`."""
        for stage, features in enumerate(self.features):
            if stage:
                x = nn.leaky_relu(x, LEAKY_SLOPE)
            x = ConvTranspose(
                features,
                (KERNEL, KERNEL),
                (STRIDE, STRIDE),
                padding=(KERNEL + STRIDE - 2) // 2,
                name=f"up_{stage}",
                **_options(self, x),
            )(x)
        return x


def _options(module, x):
    return dict(
        kernel_init=initializers.torch_kernel,
        bias_init=initializers.torch_bias(KERNEL**2 * x.shape[-1]),
        dtype=module.dtype,
        param_dtype=module.param_dtype,
    )
