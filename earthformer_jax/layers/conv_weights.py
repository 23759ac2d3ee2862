"""The parameters of a convolution, for those who convolve in their own way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


class ConvWeights(nn.Module):
    """Kernel and bias named as those of `nn.Conv`.

    Attributes:
        shape: of the kernel, (kh, kw, c, features).
        kernel_init: initialiser of the kernel.
        bias_init: initialiser of the bias.
        param_dtype: of the parameters.
    """

    shape: tuple[int, int, int, int]
    kernel_init: Callable
    bias_init: Callable = nn.initializers.zeros
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """`[kh, kw, c, features]` and `[features]`."""
        kernel = self.param("kernel", self.kernel_init, self.shape, self.param_dtype)
        features = self.shape[-1:]
        return kernel, self.param("bias", self.bias_init, features, self.param_dtype)
