"""Convolutions of planes, in forms that stay fast inside a loop.

Argument conventions, the same in every function here: planes are `[n, h, w, c]`,
kernels `[kh, kw, c, g]`, `padding` is ((low, high), (low, high)) along (h, w). With
`wrap` the width is a circle, such as longitude on a global grid, and is padded with
its other end; all other padding is zeros.

Inside a loop XLA's CPU compiler runs a convolution well in one layout only, and that
of a gradient is another: it takes ten times as long as outside. The derivatives of
`convolve_in_loop` are matrix products there.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]

PADDINGS = ("valid", "same")
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def plane_padding(
    plane: Pair,
    kernel: Pair,
    padding: str,
    strides: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Padding:
    """Zeros that "valid" (none) or "same" adds; an odd one goes behind.

    Raises:
        ValueError: if `padding` is neither.
    """
    if padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}; got {padding!r}")
    if padding == "valid":
        return ((0, 0), (0, 0))
    pads = []
    for size, k, stride, rate in zip(plane, kernel, strides, dilation, strict=True):
        reach = (-(-size // stride) - 1) * stride + (k - 1) * rate + 1
        total = max(reach - size, 0)
        pads.append((total // 2, total - total // 2))
    return tuple(pads)


def output_plane(
    plane: Pair,
    kernel: Pair,
    padding: Padding,
    strides: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Pair:
    """(h, w) after a convolution.

    Raises:
        ValueError: if the kernel does not fit into the padded plane.
    """
    span = [(k - 1) * rate + 1 for k, rate in zip(kernel, dilation, strict=True)]
    padded = [size + sum(p) for size, p in zip(plane, padding, strict=True)]
    if any(k > size for k, size in zip(span, padded, strict=True)):
        raise ValueError(
            f"a kernel that spans {tuple(span)} does not fit into a plane of "
            f"{tuple(plane)}; use padding='same' or a smaller kernel"
        )
    return tuple(
        (size - k) // s + 1 for size, k, s in zip(padded, span, strides, strict=True)
    )


def pad(x: jax.Array, padding: Padding, wrap: bool = False) -> jax.Array:
    """The plane with its padding: zeros, or its other end along the width."""
    rows, columns = padding
    if wrap:
        x = jnp.pad(x, ((0, 0), (0, 0), columns, (0, 0)), mode="wrap")
        columns = (0, 0)
    return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    padding: Padding,
    *,
    strides: Pair = (1, 1),
    dilation: Pair = (1, 1),
    wrap: bool = False,
) -> jax.Array:
    """Cross-correlation `[n, h, w, c]` to `[n, h', w', g]`."""
    if wrap:
        x = pad(x, ((0, 0), padding[1]), wrap=True)
        padding = (padding[0], (0, 0))
    return lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_LAYOUT
    )


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel`, `[..., c]` to `[..., g]`, as a product of two matrices.

    The compiler then has one axis to sum over in the kernel's gradient; where it has
    several, it copies its operands first.
    """
    flat = x.reshape(-1, x.shape[-1])
    return (flat @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def convolve_in_loop(
    x: jax.Array, kernel: jax.Array, padding: Padding, wrap: bool = False
) -> jax.Array:
    """`convolve` with stride 1, whose derivatives are fast inside a loop too."""
    return convolve(x, kernel, padding, wrap=wrap)


def _convolve_in_loop_jvp(padding, wrap, primals, tangents):
    """Derivatives as matrix products on a CPU, as convolutions elsewhere."""
    product = _convolve_as_product
    if jax.default_backend() != "cpu":
        product = convolve
    x, kernel = primals
    terms = [
        product(a, k, padding, wrap=wrap)
        for a, k in ((tangents[0], kernel), (x, tangents[1]))
        if not isinstance(a, SymbolicZero) and not isinstance(k, SymbolicZero)
    ]
    y = convolve_in_loop(x, kernel, padding, wrap)
    return y, sum(terms) if terms else jnp.zeros_like(y)


convolve_in_loop.defjvp(_convolve_in_loop_jvp, symbolic_zeros=True)


def _convolve_as_product(x, kernel, padding, wrap):
    """`convolve` with stride 1 as one matrix product of all windows."""
    kh, kw = kernel.shape[:2]
    h, w = output_plane(x.shape[1:3], (kh, kw), padding)
    x = pad(x, padding, wrap)
    windows = [x[:, i : i + h, j : j + w] for i in range(kh) for j in range(kw)]
    flat = kernel.reshape(-1, kernel.shape[-1])
    return pointwise(jnp.concatenate(windows, -1), flat)
