"""ConvLSTM encoder-forecaster: states run up three scales, forecasts run back down.

At each scale of the encoder a strided convolution shrinks every frame and a ConvLSTM
reads the sequence; its last state starts the forecaster's ConvLSTM of that scale. The
forecaster begins at the coarsest scale, without any input, runs one step per forecast
frame, and transposed convolutions bring the sequence to the next finer scale. No
forecast is fed back.

The paper's baseline has no published source. Kernels and channels are the paper's, the
wiring is that of HKO-7 as in the PyTorch port that the tests compare with: 14,175,561
parameters for one input and one output channel; the paper says 14.0 million.

Reference:
    Shi et al. 2017, Deep Learning for Precipitation Nowcasting: A Benchmark and A New
    Model. https://arxiv.org/abs/1706.03458 (the wiring); Gao et al. 2022, Earthformer.
    https://arxiv.org/abs/2207.05833 (the baseline's kernels and channels)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from earthformer_jax.checks import NONE, SIZES, check_fields, either
from earthformer_jax.layers import initializers
from earthformer_jax.layers.convolution import Conv, ConvTranspose
from earthformer_jax.layers.frames import each_frame
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.recurrent.conv_lstm import ConvLSTM
from earthformer_jax.models.recurrent.fa_conv_lstm import FAConvLSTM
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.settings import DECAY, at_least, setting

CELLS = {"conv_lstm": ConvLSTM, "fa_conv_lstm": FAConvLSTM}
LEAKY_SLOPE = 0.2
_SET_BY_THE_MODEL = {
    *("filters", "kernel_size", "padding", "return_sequences", "return_state"),
    *("dropout", "recurrent_dropout", "remat", "dtype", "param_dtype"),
    *("parent", "name"),
}


class EncoderForecaster(nn.Module):
    """Forecaster of ConvLSTM (or FAConvLSTM) cells at several scales.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out). Planes that the strides do not divide are
            padded with zeros at the end, and the forecast is cropped.
        cell: "conv_lstm" or "fa_conv_lstm".
        features: channels of the cells, from the finest scale.
        stem_features: channels of the first convolution.
        head_features: channels after the last transposed convolution; None is
            stem_features.
        kernels: kernel side of the convolution before each scale's encoder cell.
        strides: its stride, at least 1 and at most its kernel side.
        up_kernels: kernel side of the transposed convolution after each scale's
            forecaster cell; at least the stride.
        cell_kernel: kernel side of the cells.
        peephole: of the cells: "none", "channel" or "full"; None: the cell's default.
        dropout: of the cells' inputs.
        recurrent_dropout: of the cells' states.
        remat: what of the cells' steps is computed again in the backward pass;
            see `models.remat`.
        cell_options: further attributes of the cells.
        dtype: computation type; None means float32.
        param_dtype: parameter type.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    cell: str = "conv_lstm"
    features: Sequence[int] = setting((96, 128, 256), SIZES)
    stem_features: int = setting(8, at_least(1))
    head_features: int | None = setting(None, either(at_least(1), NONE))
    kernels: Sequence[int] = setting((7, 5, 3), SIZES)
    strides: Sequence[int] = setting((2, 2, 2), SIZES)
    up_kernels: Sequence[int] = setting((6, 4, 4), SIZES)
    cell_kernel: int = setting(3, at_least(1))
    peephole: str | None = None
    dropout: float = setting(0.0, DECAY)
    recurrent_dropout: float = setting(0.0, DECAY)
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    cell_options: Mapping[str, Any] = FrozenDict()
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        if self.cell not in CELLS:
            raise ValueError(f"cell must be one of {tuple(CELLS)}; got {self.cell!r}")
        for name in ("kernels", "strides", "up_kernels"):
            if len(getattr(self, name)) != len(self.features):
                raise ValueError(
                    f"{name} needs one entry per scale, as features "
                    f"{tuple(self.features)}; got {tuple(getattr(self, name))}"
                )
        sides = zip(self.kernels, self.strides, self.up_kernels, strict=True)
        for scale, (down, stride, up) in enumerate(sides):
            if not 1 <= stride <= min(down, up):
                raise ValueError(
                    f"scale {scale}: stride {stride} must be at least 1 and at most "
                    f"the sides of its kernels, {down} and {up}"
                )
        unknown = set(self.cell_options) - set(CELLS[self.cell].__dataclass_fields__)
        if unknown:
            raise ValueError(
                f"cell_options: the cell {self.cell!r} has no option "
                f"{', '.join(sorted(unknown))}"
            )
        taken = _SET_BY_THE_MODEL & set(self.cell_options)
        if taken:
            raise ValueError(
                f"cell_options: the model sets {', '.join(sorted(taken))} itself"
            )
        try:
            self._cell(0, parent=None).check()
        except ValueError as error:
            raise ValueError(
                f"the cells, made of cell_kernel={self.cell_kernel}, "
                f"peephole={self.peephole!r} and cell_options: {error}"
            ) from None

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Forecasts the next frames.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether dropout acts (needs the rng "dropout").

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, or inputs whose shape
                is not `input_shape`.
        """
        self.check()
        check_inputs(inputs, self.input_shape)
        dtype = self.dtype or jnp.promote_types(inputs.dtype, jnp.float32)
        height, width = self.input_shape[1:3]
        whole = math.prod(self.strides)
        grow = [(0, -size % whole) for size in (height, width)]
        x = jnp.pad(inputs.astype(dtype), ((0, 0), (0, 0), *grow, (0, 0)))

        states = []
        for scale, features in enumerate(self.features):
            x = self._down(scale, features if scale else self.stem_features, x)
            x, *state = self._cell(scale, name=f"encoder_{scale}")(x, train=train)
            states.append(state)
        self.sow("intermediates", "states", states)

        x, steps = None, self.target_shape[0]
        for scale in reversed(range(len(self.features))):
            cell = self._cell(scale, name=f"forecaster_{scale}")
            more = dict(steps=steps) if x is None else {}
            x, *_ = cell(x, states[scale], train=train, **more)
            out = self.features[scale - 1] if scale else self._head_features
            x = self._up(scale, out, x)

        x = nn.leaky_relu(self._conv("head", self._head_features, 3, 1, x), LEAKY_SLOPE)
        x = self._conv("head_proj", self.target_shape[-1], 1, 1, x)
        forecast = x[:, :, :height, :width]
        return forecast.astype(jnp.promote_types(dtype, jnp.float32))

    @property
    def _head_features(self):
        return self.head_features or self.stem_features

    def _cell(self, scale, **module):
        options = dict(self.cell_options)
        if self.peephole is not None:
            options["peephole"] = self.peephole
        return CELLS[self.cell](
            filters=self.features[scale],
            kernel_size=self.cell_kernel,
            padding="same",
            return_sequences=True,
            return_state=True,
            dropout=self.dropout,
            recurrent_dropout=self.recurrent_dropout,
            remat=self.remat,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            **module,
            **options,
        )

    def _down(self, scale, features, x):
        """Shrinks every frame by the stride."""
        kernel, stride = self.kernels[scale], self.strides[scale]
        y = self._conv(f"down_{scale}", features, kernel, stride, x)
        return nn.leaky_relu(y, LEAKY_SLOPE)

    def _up(self, scale, features, x):
        """Enlarges every frame by the stride."""
        kernel, stride = self.up_kernels[scale], self.strides[scale]
        low = kernel - 1 - _pad(kernel, stride)
        high = low + 2 * _pad(kernel, stride) - (kernel - stride)
        conv = ConvTranspose(
            features,
            (kernel, kernel),
            (stride, stride),
            padding=[(low, high)] * 2,
            name=f"up_{scale}",
            **self._conv_options(kernel, x),
        )
        return nn.leaky_relu(each_frame(conv, x), LEAKY_SLOPE)

    def _conv(self, name, features, kernel, stride, x):
        conv = Conv(
            features,
            (kernel, kernel),
            (stride, stride),
            padding=_pad(kernel, stride),
            name=name,
            **self._conv_options(kernel, x),
        )
        return each_frame(conv, x)

    def _conv_options(self, kernel, x):
        return dict(
            kernel_init=initializers.torch_kernel,
            bias_init=initializers.torch_bias(kernel**2 * x.shape[-1]),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )


class FAEncoderForecaster(EncoderForecaster):
    """`EncoderForecaster` with FAConvLSTM cells."""

    cell: str = "fa_conv_lstm"


def _pad(kernel: int, stride: int) -> int:
    """Zeros to pad on both sides, so that a stride that divides the size does."""
    return -(-(kernel - stride) // 2)
