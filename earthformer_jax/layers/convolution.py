"""Convolutions of planes and of frames."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import lax

from earthformer_jax.layers import initializers
from earthformer_jax.ops import convolution as plain
from earthformer_jax.ops.convolution import plane_padding
from earthformer_jax.ops.dense import add
from earthformer_jax.ops.tuned.frame_convolution import convolve, convolve_frames

_LAYOUT = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """Convolves `[..., h, w, c]`, as `nn.Conv`; parameters have the same names.

    In bfloat16 and float16 the gradient of the bias is summed in float32.

    Attributes:
        features: channels of the output.
        kernel_size: (h, w) of the window.
        strides: of the window along (h, w).
        padding: "SAME", "VALID", or zeros before and after: one number for all, or
            (before, after) of h and of w.
        use_bias: add a bias.
        kernel_init: initialiser of the kernel `[kh, kw, c, features]`.
        bias_init: initialiser of the bias.
        dtype: computation type; None follows input and parameters.
        param_dtype: parameter type.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: str | int | Sequence[tuple[int, int]] = "SAME"
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., h, w, c]` to `[..., h', w', features]`."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, shape[-1:], self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        padding = self.padding
        if isinstance(padding, int):
            padding = [(padding, padding)] * 2
        planes = x if x.ndim == 4 else x.reshape(-1, *x.shape[-3:])
        y = self._convolve(planes, kernel, padding, bias)
        return y if x.ndim == 4 else y.reshape(*x.shape[:-3], *y.shape[1:])

    def _convolve(self, x, kernel, padding, bias):
        if isinstance(padding, str):
            padding = plane_padding(
                x.shape[1:3], self.kernel_size, padding.lower(), self.strides
            )
        (top, bottom), (left, right) = padding
        padding = ((top, bottom), (left, right))
        if tuple(self.strides) == (1, 1):
            return convolve(x, kernel, padding, bias)
        return plain.convolve(x, kernel, padding, bias, strides=self.strides)


class ConvTranspose(Conv):
    """`nn.ConvTranspose`: the result is larger by the strides; otherwise as `Conv`."""

    def _convolve(self, x, kernel, padding, bias):
        y = lax.conv_transpose(
            x, kernel, self.strides, padding, dimension_numbers=_LAYOUT
        )
        return y if bias is None else add(y, bias)


class FrameConv(nn.Module):
    """Convolves frames, which keep their size; parameters named as in `nn.Conv`.

    It is fast in both directions on CPUs.

    The initial weights are PyTorch's.

    Attributes:
        features: channels of the output.
        kernel_size: odd side of the window.
        dtype: computation type; None follows input and parameters.
        param_dtype: parameter type.
    """

    features: int
    kernel_size: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to `[b, t, h, w, features]`."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        init = initializers.torch_kernel
        kernel = self.param("kernel", init, shape, self.param_dtype)
        init = initializers.torch_bias(self.kernel_size**2 * x.shape[-1])
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        return convolve_frames(x, kernel, bias)
