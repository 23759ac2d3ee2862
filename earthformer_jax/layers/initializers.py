"""Initial weights as in the reference implementation, by use.

Linear layers start as N(0, 1/fan_in); convolutions of up-sampling layers are Kaiming
normal for a LeakyReLU of slope 0.1; a few layers keep PyTorch's uniform default.
Embeddings, bias tables and global vectors start as N(0, 0.02²).
"""

import math

import jax
from flax import linen as nn

LEAKY_SLOPE = 0.1

LINEAR = {
    "fan_in": nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
    "fan_out": nn.initializers.variance_scaling(
        2.0 / (1.0 + LEAKY_SLOPE**2), "fan_out", "normal"
    ),
}

upsample_conv = LINEAR["fan_out"]
torch_kernel = nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
table = nn.initializers.normal(0.02)


def linear(mode: str):
    """Kernel initialiser of a linear layer: "fan_in" or "fan_out".

    Raises:
        ValueError: if `mode` is neither.
    """
    if mode not in LINEAR:
        raise ValueError(
            f"linear initialisation must be 'fan_in' or 'fan_out'; got {mode!r}"
        )
    return LINEAR[mode]


def torch_bias(fan_in: int):
    """Bias initialiser U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default."""
    bound = 1.0 / math.sqrt(fan_in)

    def init(key, shape, dtype):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init
