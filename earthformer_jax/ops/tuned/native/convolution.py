"""Convolutions of planes in C++, with their gradients.

A row of the plane serves as the matrix of its windows, which overlap in memory: nothing
is copied but at the edges, and only plane and kernel are kept for the gradients. The
functions are in convolution.cc.
"""

from typing import Any

import jax
import jax.numpy as jnp

from earthformer_jax.checks import check_array
from earthformer_jax.ops import convolution as plain
from earthformer_jax.ops.convolution import Padding, output_plane
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.tuned.native import library
from earthformer_jax.ops.tuned.native.calls import (
    differentiable,
    like,
    run,
    sizes_are_known,
)
from earthformer_jax.ops.tuned.native.feed_forward import LANES


def suits(x: jax.Array, kernel: jax.Array, padding: Padding) -> bool:
    """Whether `convolve` takes these arguments."""
    if x.ndim != 4 or kernel.ndim != 4 or not sizes_are_known(x, kernel):
        return False
    kh, kw, _, g = kernel.shape
    return (
        x.dtype == kernel.dtype == jnp.float32
        and kh * kw > 1
        and g % LANES == 0
        and all(
            0 <= zeros < side
            for side, pads in zip((kh, kw), padding, strict=True)
            for zeros in pads
        )
        and x.size > 0
        and split.parts(x) == 1
        and len(x) % split.shares(x) == 0
        and library.available()
    )


def convolve(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    """As `ops.convolution.convolve` with stride 1, of arguments that `suits` takes.

    Args:
        x: float32 `[n, h, w, c]`.
        kernel: float32 `[kh, kw, c, g]`.
        padding: fewer zeros than the kernel has rows, or columns, on each side.

    Returns:
        `[n, h', w', g]`.

    Raises:
        ValueError: for arrays of other shapes or types.
    """
    sizes = check_array("x", x, "n h w c", kind=jnp.float32)
    check_array("kernel", kernel, "kh kw c g", sizes, kind=jnp.float32)
    output_plane(x.shape[1:3], kernel.shape[:2], padding)

    def own(kernel, x):
        return (_convolve(padding, vary_like((x, kernel)), ()),)

    return shared_by_examples(own, axes=(0,), out_axes=(0,))(kernel, x)[0]


def _attributes(padding: Padding) -> dict[str, Any]:
    """As convolution.cc reads them."""
    (top, _), (left, _) = padding
    return dict(top=int(top), left=int(left))


def _value(padding, arrays, rest):
    (x, kernel), _ = arrays, rest
    plane = output_plane(x.shape[1:3], kernel.shape[:2], padding)
    result = like(x, (len(x), *plane, kernel.shape[-1]))
    return run("convolution", _attributes(padding), arrays, result)


def _gradients(padding, arrays, rest, dy):
    """Of the arrays, in two calls: where only one is used, only that is computed."""
    (x, kernel), given = arrays, _attributes(padding)
    dx = run("convolution_plane_gradient", given, [dy, kernel], like(x, x.shape))
    shape = like(x, kernel.shape)
    dkernel = run("convolution_kernel_gradient", given, [x, dy], shape)
    return dx, dkernel


def _in_jax(padding, arrays, rest):
    """As `_value`."""
    return plain.convolve(*arrays, padding)


_convolve = differentiable(_value, _gradients, _in_jax)
