"""Convolutions of planes in C++, with their gradients.

A row of the plane serves as the matrix of its windows, which overlap in memory: nothing
is copied but at the edges, and only plane and kernel are kept for the gradients. The
functions are in convolution.cc.
"""

import dataclasses
from typing import Any

import einops
import jax
import jax.numpy as jnp

from earthformer_jax.checks import check_array
from earthformer_jax.ops import convolution as plain
from earthformer_jax.ops.convolution import Padding, Pair, output_plane
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.tuned.native.calls import (
    LANES,
    by_examples,
    differentiable,
    given,
    like,
    run,
    sizes_are_known,
    suit,
)


@dataclasses.dataclass(frozen=True)
class Phases:
    """Results that a kernel computes for several positions of a larger plane at once.

    Attributes:
        count: (p, q), of positions along height and width that the channels
            `(p q g)` of one result belong to.
        skipped: rows and columns that come before the larger plane.
        plane: (h, w) of the larger plane; results beyond it are left out.
        window: (kh, kw), positions of the larger plane that a result reads. Phase
            (i, j) reads the first `(i + kh - 1) // p + 1` rows of the kernel, and as
            many columns with j, kw and q; its other weights are taken as zero.
    """

    count: Pair
    skipped: Pair
    plane: Pair
    window: Pair


def suits(
    x: jax.Array,
    kernel: jax.Array,
    padding: Padding,
    bias: jax.Array | None = None,
) -> bool:
    """Whether `convolve` takes these arguments."""
    if x.ndim != 4 or kernel.ndim != 4 or not sizes_are_known(x, kernel):
        return False
    kh, kw, _, g = kernel.shape
    return (
        kh * kw > 1  # others are products of matrices, at which XLA is fast
        and g % LANES == 0
        and all(
            0 <= zeros < side
            for side, pads in zip((kh, kw), padding, strict=True)
            for zeros in pads
        )
        and suit(x, kernel, bias)
    )


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    padding: Padding,
    bias: jax.Array | None = None,
    phases: Phases | None = None,
) -> jax.Array:
    """As `ops.convolution.convolve` with stride 1, of arguments that `suits` takes.

    Args:
        x: float32 `[n, h, w, c]`.
        kernel: float32 `[kh, kw, c, g]`; `[kh, kw, c, (p q g)]` with phases (p, q).
        padding: fewer zeros than the kernel has rows, or columns, on each side.
        bias: float32 `[g]`, or None.
        phases: of the results, or None.

    Returns:
        `[n, h', w', g]`, in a larger plane with phases.

    Raises:
        ValueError: for arrays of other shapes or types.
    """
    sizes = check_array("x", x, "n h w c", kind=jnp.float32)
    sizes = check_array("kernel", kernel, "kh kw c k", sizes, kind=jnp.float32)
    plane = output_plane(x.shape[1:3], kernel.shape[:2], padding)
    phases = phases or Phases((1, 1), (0, 0), plane, kernel.shape[:2])
    p, q = phases.count
    if bias is not None:
        sizes["g"] = sizes["k"] // (p * q)
        check_array("bias", bias, "g", sizes, kind=jnp.float32)
    return by_examples(_convolve, _Call(padding, plane, phases), x, kernel, bias)


@dataclasses.dataclass(frozen=True)
class _Call:
    """What a call knows besides its arrays; `plane` is that of the results, folded."""

    padding: Padding
    plane: Pair
    phases: Phases

    @property
    def attributes(self) -> dict[str, Any]:
        """As convolution.cc reads them."""
        (top, _), (left, _) = self.padding
        names = (
            "top left height width down across skip_top skip_left "
            "window_height window_width"
        )
        phases = self.phases
        numbers = *phases.count, *phases.skipped, *phases.window
        numbers = top, left, *self.plane, *numbers
        return dict(zip(names.split(), map(int, numbers), strict=True))


def _value(call, arrays, rest):
    x, kernel, bias = arrays
    p, q = call.phases.count
    shape = len(x), *call.phases.plane, kernel.shape[-1] // (p * q)
    operands = vary_like((x, kernel, given(bias)))
    return run("convolution", call.attributes, operands, like(x, shape))


def _gradients(call, arrays, rest, dy):
    """Of the arrays, in two calls: where only one is used, only that is computed."""
    x, kernel, bias = arrays
    options = call.attributes
    dx = run("convolution_plane_gradient", options, [dy, kernel], like(x, x.shape))
    types = [like(x, kernel.shape), like(x, (0,) if bias is None else bias.shape)]
    dkernel, dbias = run("convolution_kernel_gradient", options, [x, dy], types)
    return dx, dkernel, None if bias is None else dbias


def _in_jax(call, arrays, rest):
    """As `_value`."""
    x, kernel, bias = arrays
    (p, q), (top, left) = call.phases.count, call.phases.skipped
    y = plain.convolve(x, kernel, call.padding)
    y = einops.rearrange(y, "n h w (p q g) -> n (h p) (w q) g", p=p, q=q)
    height, width = call.phases.plane
    y = y[:, top : top + height, left : left + width]
    return y if bias is None else y + bias


_convolve = differentiable(_value, _gradients, _in_jax)
