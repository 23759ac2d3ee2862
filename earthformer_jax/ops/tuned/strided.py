"""Convolutions that shrink or enlarge a plane, as convolutions of stride 1.

Gain: both directions run as `convolve_in_loop`, whose gradient is ten times as fast
inside a loop as XLA's own (one CPU core).

A plane `[n, stride h, stride w, c]` folded to `[n, h, w, stride stride c]` keeps all
its values, and a strided window becomes a window of stride 1. The kernel is padded with
zeros to whole multiples of the stride: from 3x3 to 4x4 for stride 2.
"""

import einops
import jax
import jax.numpy as jnp

from earthformer_jax.ops import convolution as plain
from earthformer_jax.ops.tuned.choice import instead_of
from earthformer_jax.ops.tuned.frame_convolution import convolve
from earthformer_jax.ops.tuned.loop_convolution import convolve_in_loop


@instead_of(plain.shrink)
def shrink(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """As `ops.convolution.shrink`."""
    return _shrink(x, kernel, stride, convolve)


@instead_of(plain.shrink)
def shrink_in_loop(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """As `ops.convolution.shrink`, for a call inside a loop."""
    return _shrink(x, kernel, stride, convolve_in_loop)


@instead_of(plain.enlarge)
def enlarge(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """As `ops.convolution.enlarge`."""
    return _enlarge(x, kernel, stride, convolve)


@instead_of(plain.enlarge)
def enlarge_in_loop(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """As `ops.convolution.enlarge`, for a call inside a loop."""
    return _enlarge(x, kernel, stride, convolve_in_loop)


def _shrink(x, kernel, stride, convolve):
    low, high = _reach(kernel, stride)
    plain.check_divisible(x.shape[1:3], stride)
    x = einops.rearrange(x, "n (h r) (w q) c -> n h w (r q c)", r=stride, q=stride)
    kernel = einops.rearrange(
        _whole(kernel, stride), "(i r) (j q) c g -> i j (r q c) g", r=stride, q=stride
    )
    return convolve(x, kernel, ((low, high), (low, high)))


def _enlarge(x, kernel, stride, convolve):
    low, high = _reach(kernel, stride)
    kernel = einops.rearrange(
        _whole(kernel, stride), "(i r) (j q) c g -> i j c (r q g)", r=stride, q=stride
    )
    y = convolve(x, jnp.flip(kernel, (0, 1)), ((high, low), (high, low)))
    return einops.rearrange(y, "n h w (r q g) -> n (h r) (w q) g", r=stride, q=stride)


def _reach(kernel, stride):
    """How many folded positions the window extends backwards and forwards."""
    half = plain.odd_side(kernel) // 2
    return -(-half // stride), half // stride


def _whole(kernel, stride):
    """The kernel, padded with zeros to whole folded positions."""
    low, high = _reach(kernel, stride)
    before = low * stride - kernel.shape[0] // 2
    after = (low + 1 + high) * stride - before - kernel.shape[0]
    return jnp.pad(kernel, ((before, after), (before, after), (0, 0), (0, 0)))
