"""A convolution for use outside and inside a loop, PyTorch's initial weights."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax.ad_checkpoint import checkpoint_name

from earthformer_jax.layers import initializers
from earthformer_jax.ops.dense import add
from earthformer_jax.ops.tuned import strided

# The name of results, for policies of `jax.checkpoint`: what lies between two
# convolutions costs little to compute again, and so do the windows that the derivative
# of a convolution reads.
SAVED = "convolved"


class LoopConv(nn.Module):
    """Convolution of planes `[n, h, w, c]`: "kernel" `[k, k, c, features]`, "bias".

    Attributes:
        features: channels of the result.
        kernel_size: odd side of the window.
        stride: the result is this much smaller; it divides the plane.
        transposed: the result is larger by the stride instead (`convolution.enlarge`).
        use_bias: add a bias.
        fan_in: inputs of an output, which bound the initial weights by 1 / sqrt(fan_in)
            as in PyTorch; None is the kernel's.
        dtype: computation type; None follows inputs and parameters.
        param_dtype: parameter type.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    transposed: bool = False
    use_bias: bool = True
    fan_in: int | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, in_loop: bool = False) -> jax.Array:
        """Convolves; `in_loop` takes derivatives that are fast inside a loop."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        # PyTorch counts the inputs of a transposed convolution from its other end.
        inputs = self.features if self.transposed else x.shape[-1]
        init = initializers.torch_bias(self.fan_in or self.kernel_size**2 * inputs)
        kernel = self.param("kernel", init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", init, (self.features,), self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        if self.transposed:
            resize = strided.enlarge_in_loop if in_loop else strided.enlarge
        else:
            resize = strided.shrink_in_loop if in_loop else strided.shrink
        y = resize(x, kernel, self.stride)
        return checkpoint_name(y if bias is None else add(y, bias), SAVED)
