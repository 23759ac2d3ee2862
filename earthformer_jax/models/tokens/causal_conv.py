"""A 3-D convolution that sees the present frame and those before it, no later ones."""

from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from earthformer_jax.layers import initializers
from earthformer_jax.ops.tuned.frame_convolution import convolve_frames


class CausalConv(nn.Module):
    """Convolves `[b, t, h, w, c]`; before the first frame are copies of it.

    Around the frames are zeros.

    The frames that a window covers are stacked along the channels, so that the 3-D
    convolution is one of planes, whose gradients are fast on CPUs too.

    Attributes:
        features: channels of the output.
        kernel_size: odd side of the window in space.
        frames: length of the window in time, which ends with the present frame.
        dtype: computation type; None follows input and parameters.
        param_dtype: parameter type.
    """

    features: int
    kernel_size: int = 3
    frames: int = 3
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to `[b, t, h, w, features]`."""
        side, length = self.kernel_size, x.shape[1]
        shape = (self.frames, side, side, x.shape[-1], self.features)
        init = initializers.linear("fan_in")
        kernel = self.param("kernel", init, shape, self.param_dtype)
        init = nn.initializers.zeros
        bias = self.param("bias", init, (self.features,), self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        before = ((0, 0), (self.frames - 1, 0), (0, 0), (0, 0), (0, 0))
        padded = jnp.pad(x, before, mode="edge")
        window = [padded[:, i : i + length] for i in range(self.frames)]
        kernel = einops.rearrange(kernel, "t kh kw c g -> kh kw (t c) g")
        return convolve_frames(jnp.concatenate(window, axis=-1), kernel, bias)
