"""The Gaussian error linear unit."""

import jax
from jax import lax

_ROOT_HALF = 0.5**0.5


def gelu(x: jax.Array) -> jax.Array:
    """`x` times the normal distribution function of `x`, in its exact form.

    Reference:
        Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415
    """
    return x * normal_distribution(x)


def normal_distribution(x: jax.Array) -> jax.Array:
    """Probability that a standard normal variable is at most `x`."""
    return 0.5 + 0.5 * lax.erf(x * _ROOT_HALF)
