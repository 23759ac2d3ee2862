"""A convolution of every frame, fast in both directions on CPUs."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from earthformer_jax.layers import initializers
from earthformer_jax.ops.tuned.frame_convolution import convolve_frames


class FrameConv(nn.Module):
    """Convolves frames, which keep their size; parameters named as in `nn.Conv`.

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
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        return convolve_frames(x, kernel) + bias
