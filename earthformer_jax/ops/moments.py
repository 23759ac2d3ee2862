"""Moments of convolution kernels, which show the derivatives they approximate.

A kernel K that acts on a smooth field is, by Taylor's theorem, a sum of derivatives,
`sum_ij m[i, j] d^i/dy^i d^j/dx^j` in units of the grid, whose weights are its moments

    m[i, j] = sum_uv (u - centre)^i / i! * K[u, v] * (v - centre)^j / j!

for i, j = 0 ... side - 1. The map is linear and invertible. PhyCell keeps the
kernels of its derivatives close to those with one moment 1 and all others 0.

Kernels and moments are `[..., kh, kw]`: rows are the vertical index.

Reference:
    Long et al. 2018, PDE-Net: Learning PDEs from Data.
    https://arxiv.org/abs/1710.09668 (section 2.2); Le Guen and Thome 2020,
    Disentangling Physical Dynamics from Unknown Factors for Unsupervised Video
    Prediction. https://arxiv.org/abs/2003.01460 (appendix)
"""

import functools
import math

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from earthformer_jax.checks import check_array


@functools.lru_cache
def moment_matrix(side: int) -> np.ndarray:
    """float64 `[side, side]`: (j - (side - 1) // 2)^i / i! in row i, column j.

    Raises:
        ValueError: if `side` is not positive.
    """
    if side < 1:
        raise ValueError(f"a kernel needs a side of 1 or more; got {side}")
    offset = np.arange(side) - (side - 1) // 2
    rows = [offset.astype(np.float64) ** i / math.factorial(i) for i in range(side)]
    return np.stack(rows)


def kernel_to_moments(kernels: jax.Array) -> jax.Array:
    """Moments `[..., kh, kw]` of kernels `[..., kh, kw]`."""
    kh, kw = kernels.shape[-2:]
    return _both_sides(moment_matrix(kh), kernels, moment_matrix(kw))


def moments_to_kernel(moments: jax.Array) -> jax.Array:
    """Kernels `[..., kh, kw]` with these moments; the inverse.

    Rounding errors grow: recovering a 7x7 kernel from its float32 moments gives an
    error of 1e-4 of its largest weight.
    """
    rows, columns = (np.linalg.inv(moment_matrix(k)) for k in moments.shape[-2:])
    return _both_sides(rows, moments, columns)


def moment_loss(kernel: jax.Array) -> jax.Array:
    """How far the filters of a convolution are from one derivative each.

    Filter g should have moment 1 at (g // k, g % k) and 0 elsewhere: then it is the
    derivative of that order along (h, w).

    Args:
        kernel: `[k, k, c, k * k]`, of a convolution from c to k * k channels.

    Returns:
        Scalar: squared error of the moments, averaged over filters and moments, summed
        over the c input channels.

    Raises:
        ValueError: unless there is one filter per moment.

    Reference:
        Le Guen and Thome 2020, equation 11. https://arxiv.org/abs/2003.01460
    """
    sizes = check_array("kernel", kernel, "kh kw c g")
    kh, kw, filters = (sizes[axis] for axis in ("kh", "kw", "g"))
    if filters != kh * kw:
        raise ValueError(
            f"a {kh}x{kw} kernel has {kh * kw} moments and needs one filter for each; "
            f"got {filters}"
        )
    moments = kernel_to_moments(einops.rearrange(kernel, "h w c g -> c g h w"))
    ideal = np.eye(filters, dtype=moments.dtype).reshape(filters, kh, kw)
    return jnp.sum(jnp.mean(jnp.square(moments - ideal), axis=(1, 2, 3)))


def _both_sides(left, x, right):
    """`left @ x @ right.T`, in full precision on every device."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum(
        "iu,...uv,jv->...ij",
        left.astype(dtype),
        x.astype(dtype),
        right.astype(dtype),
        precision=lax.Precision.HIGHEST,
    )
