"""Rainformer: a U-shaped network whose stages balance local and global features.

The input frames are the channels of one plane. Four stages merge patches and process
the plane in two ways: convolutions with channel and spatial attention find local
features, window attention finds global ones, and a gate mixes them. Three stages expand
the patches again, each joined with the encoder's result of its scale, and a last one
makes the forecast: its channels are all forecast frames.

Reference:
    Bai et al. 2022, Rainformer: Features Extraction Balanced Network for Radar-Based
    Precipitation Nowcasting, IEEE GRSL 19, and its code,
    https://github.com/Zjut-MultimediaPlus/Rainformer; Gao et al. 2022, Earthformer (the
    baseline's settings). https://arxiv.org/abs/2207.05833
"""

import math
from collections.abc import Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import SIZES, check_fields
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.rainformer.blocks import (
    FeatureBalance,
    PatchExpanding,
    PatchMerging,
)
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.settings import at_least, setting


class Rainformer(nn.Module):
    """Forecaster whose frames are channels, by convolutions and window attention.

    The defaults are the Earthformer paper's for MovingMNIST and N-body MNIST (19.2
    million parameters); ICAR-ENSO has `factors=(1, 2, 2, 2), window=3` (19.2), SEVIR
    `features=64, heads=(3, 6, 12, 24), head_dim=8, window=12` (183.6; the paper says
    factors (4, 2, 2, 2) there, but 184 only come out with 2). Published counts include
    two attention masks per stage, 16 window^4 numbers in all, stored as parameters.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out). Planes that patches and windows do not fill are
            padded with zeros at the end, and the forecast is cropped; norms see the
            zeros, so sizes that fit are better: multiples of window * prod(factors).
        features: channels of the first stage, doubled by each following stage.
        factors: side of the patches that each encoder stage merges. The square of each
            divides the channels of the decoder stage that expands them.
        heads: attention heads of the encoder stages; each decoder stage has as many as
            the encoder stage whose patches it expands.
        head_dim: width of a head.
        window: side of the attention windows, at all scales.
        relative_position: position biases for offsets; otherwise for pairs of
            positions.
        upstream_dead_params: create the parameters that the reference counts but never
            uses, about 30 %; they never change.
        remat: what of the Swin blocks is computed again in the backward pass;
            see `models.remat`.
        dtype: computation type; None means float32.
        param_dtype: parameter type.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    features: int = setting(32, at_least(1))
    factors: Sequence[int] = setting((2, 2, 2, 2), SIZES)
    heads: Sequence[int] = setting((4, 4, 8, 16), SIZES)
    head_dim: int = setting(8, at_least(1))
    window: int = setting(4, at_least(2))
    relative_position: bool = True
    upstream_dead_params: bool = True
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        if len(self.heads) != len(self.factors):
            raise ValueError(
                "heads needs one number per stage, like factors "
                f"{tuple(self.factors)}; got {tuple(self.heads)}"
            )
        for scale, factor in enumerate(self.factors):
            width = self._expanded_features(scale)
            if width % factor**2:
                raise ValueError(
                    f"factors[{scale}]={factor}: the decoder expands {width} channels "
                    f"there, which must be a multiple of {factor}^2; change factors or "
                    f"features={self.features}"
                )

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Forecasts the next frames.

        Args:
            inputs: `[b, T, H, W, C_in]`. If C_in > C_out the targets are the first
                C_out channels; the others are only read.
            train: normalise with the batch's statistics and update `batch_stats`.

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, or inputs whose shape
                is not `input_shape`.
        """
        self.check()
        check_inputs(inputs, self.input_shape)
        dtype = self.dtype or jnp.promote_types(inputs.dtype, jnp.float32)
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        height, width = self.input_shape[1:3]
        whole = self.window * math.prod(self.factors)
        grow = [(0, -size % whole) for size in (height, width)]
        x = jnp.pad(inputs.astype(dtype), ((0, 0), (0, 0), *grow, (0, 0)))
        x = einops.rearrange(x, "b t h w c -> b h w (t c)")

        scales = range(len(self.factors))
        passed = []
        for scale in scales:
            features, name = self._features(scale), f"encoder_{scale}"
            factor = self.factors[scale]
            x = PatchMerging(features, factor, name=f"{name}_merge", **types)(x)
            x = self._balance(scale, 4 * features, name)(x, train=train)
            passed.append(x)
        self.sow("intermediates", "passed", passed)

        for scale in reversed(scales[:-1]):
            features, name = self._features(scale), f"decoder_{scale}"
            factor = self.factors[scale + 1]
            x = PatchExpanding(features, factor, name=f"{name}_expand", **types)(x)
            x = jnp.concatenate([x, passed[scale]], axis=-1)
            x = self._balance(scale + 1, 4 * features, name)(x, train=train)

        steps, _, _, channels = self.target_shape
        made, factor = steps * channels, self.factors[0]
        x = PatchExpanding(made, factor, name="head_expand", **types)(x)
        x = self._balance(0, 4 * made, "head")(x, train=train)
        x = einops.rearrange(x, "b h w (t c) -> b t h w c", t=steps)
        forecast = x[:, :, :height, :width]
        return forecast.astype(jnp.promote_types(dtype, jnp.float32))

    def _features(self, scale: int) -> int:
        """Channels of an encoder stage, half as many as in its decoder stage."""
        return self.features * 2**scale

    def _expanded_features(self, scale: int) -> int:
        """Channels from which the patches of a scale are expanded."""
        deepest = len(self.factors) - 1
        return self._features(scale) * (1 if scale == deepest else 2)

    def _balance(self, scale, hidden, name):
        return FeatureBalance(
            hidden,
            self.heads[scale],
            self.head_dim,
            self.window,
            relative_position=self.relative_position,
            upstream_dead_params=self.upstream_dead_params,
            remat=self.remat,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
