"""Convolutions that shrink or enlarge a plane, as convolutions of stride 1.

A plane `[n, stride h, stride w, c]` folded to `[n, h, w, stride stride c]` keeps all
its numbers, and what a window with a stride reads is then a window of stride 1. So both
directions run as `convolution.convolve_in_loop`, whose derivatives stay fast
inside a loop. The kernel grows to whole multiples of the stride, with zeros: from 3x3
to 4x4 for stride 2.

Argument conventions: kernels `[k, k, c, g]` have odd sides, and the window is centred
on the first of the `stride` positions that it stands for.
"""

import einops
import jax
import jax.numpy as jnp

from earthformer_jax.ops import convolution


def shrink(
    x: jax.Array, kernel: jax.Array, stride: int = 1, *, in_loop: bool = False
) -> jax.Array:
    """Strided cross-correlation `[n, stride h, stride w, c]` to `[n, h, w, g]`.

    `y[i] = sum_u kernel[u] x[stride i + u - k // 2]` along both axes, with zeros
    outside the plane.

    Args:
        x: planes, of which the stride divides height and width.
        kernel: `[k, k, c, g]`.
        stride: positions of the input per position of the output.
        in_loop: take the derivatives that are fast inside a loop.

    Raises:
        ValueError: if the kernel is even or the stride does not divide the plane.
    """
    low, high = _reach(kernel, stride)
    _check_divisible(x.shape[1:3], stride)
    x = einops.rearrange(x, "n (h r) (w q) c -> n h w (r q c)", r=stride, q=stride)
    kernel = einops.rearrange(
        _whole(kernel, stride), "(i r) (j q) c g -> i j (r q c) g", r=stride, q=stride
    )
    convolve = convolution.convolve_in_loop if in_loop else convolution.convolve
    return convolve(x, kernel, ((low, high), (low, high)))


def enlarge(
    x: jax.Array, kernel: jax.Array, stride: int = 1, *, in_loop: bool = False
) -> jax.Array:
    """Transposed convolution `[n, h, w, c]` to `[n, stride h, stride w, g]`.

    The adjoint of `shrink`: position i adds `kernel[u] x[i]` to the output's position
    `stride i + u - k // 2`; what falls outside the plane is lost. PyTorch's
    ConvTranspose2d with padding k // 2 and output_padding stride - 1.

    Args:
        x: planes.
        kernel: `[k, k, c, g]`, not mirrored.
        stride: positions of the output per position of the input.
        in_loop: take the derivatives that are fast inside a loop.

    Raises:
        ValueError: if the kernel is even.
    """
    low, high = _reach(kernel, stride)
    kernel = einops.rearrange(
        _whole(kernel, stride), "(i r) (j q) c g -> i j c (r q g)", r=stride, q=stride
    )
    convolve = convolution.convolve_in_loop if in_loop else convolution.convolve
    y = convolve(x, jnp.flip(kernel, (0, 1)), ((high, low), (high, low)))
    return einops.rearrange(y, "n h w (r q g) -> n (h r) (w q) g", r=stride, q=stride)


def _reach(kernel, stride):
    """How many folded positions the window reaches backwards and forwards."""
    k = kernel.shape[0]
    if kernel.shape[1] != k or k % 2 == 0:
        raise ValueError(
            f"kernels need odd, equal sides; got {tuple(kernel.shape[:2])}"
        )
    return -(-(k // 2) // stride), (k // 2) // stride


def _whole(kernel, stride):
    """The kernel with zeros up to whole folded positions."""
    low, high = _reach(kernel, stride)
    before = low * stride - kernel.shape[0] // 2
    after = (low + 1 + high) * stride - before - kernel.shape[0]
    return jnp.pad(kernel, ((before, after), (before, after), (0, 0), (0, 0)))


def _check_divisible(plane, stride):
    if any(size % stride for size in plane):
        raise ValueError(
            f"stride {stride} must divide the plane {tuple(plane)}; pad it first"
        )
