"""Convolutions of planes, frames and clips.

Argument conventions: planes are `[n, h, w, c]`, kernels `[kh, kw, c, g]`, `padding` is
((low, high), (low, high)) along (h, w). With `wrap` the width is a circle, such as
longitude on a global grid, and is padded with its other end; all other padding is
zeros.
"""

import einops
import jax
import jax.numpy as jnp
from jax import lax

from earthformer_jax.checks import check_array, check_value
from earthformer_jax.ops.dense import add
from earthformer_jax.settings import at_least

Pair = tuple[int, ...]  # (h, w)
Padding = tuple[tuple[int, int], ...]  # (before, after) of h and of w

PADDINGS = ("valid", "same")
_LAYOUT = ("NHWC", "HWIO", "NHWC")


def plane_padding(
    plane: Pair,
    kernel: Pair,
    padding: str,
    strides: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Padding:
    """Zeros added by "valid" (none) or "same"; an odd zero goes at the end.

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
    """The plane (h, w) after a convolution.

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
    """The padded plane: with zeros, or along the width with its other end."""
    rows, columns = padding
    if wrap:
        x = jnp.pad(x, ((0, 0), (0, 0), columns, (0, 0)), mode="wrap")
        columns = (0, 0)
    return jnp.pad(x, ((0, 0), rows, columns, (0, 0)))


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    padding: Padding,
    bias: jax.Array | None = None,
    *,
    strides: Pair = (1, 1),
    dilation: Pair = (1, 1),
    wrap: bool = False,
) -> jax.Array:
    """Cross-correlation `[n, h, w, c]` to `[n, h', w', g]`, plus a bias `[g]`.

    Raises:
        ValueError: for other shapes.
    """
    _check_planes(x, kernel, bias)
    if wrap:
        x = pad(x, ((0, 0), padding[1]), wrap=True)
        padding = (padding[0], (0, 0))
    y = lax.conv_general_dilated(
        x, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=_LAYOUT
    )
    return y if bias is None else add(y, bias)


def convolve_frames(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None
) -> jax.Array:
    """Cross-correlation with zeros around each frame, so that it keeps its size.

    Args:
        x: `[b, t, h, w, c]`.
        kernel: `[kh, kw, c, g]` with odd kh and kw.
        bias: `[g]` to add, or None.

    Returns:
        `[b, t, h, w, g]`.

    Raises:
        ValueError: for other shapes.
    """
    check_frames(x, kernel, bias)
    frames = einops.rearrange(x, "b t h w c -> (b t) h w c")
    y = convolve(frames, kernel, frame_padding(kernel), bias)
    return einops.rearrange(y, "(b t) h w g -> b t h w g", b=x.shape[0])


def frame_padding(kernel: jax.Array) -> Padding:
    """Zeros around frames that keep their size under a kernel with odd sides."""
    kh, kw = kernel.shape[:2]
    return ((kh // 2, kh // 2), (kw // 2, kw // 2))


def check_frames(
    x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None
) -> None:
    """Refuses other arguments of `convolve_frames`.

    Raises:
        ValueError: for other shapes.
    """
    if x.ndim != 5 or kernel.ndim != 4 or x.shape[-1] != kernel.shape[2]:
        raise ValueError(
            "x needs the shape (b, t, h, w, c) and the kernel (kh, kw, c, g); got "
            f"{x.shape} and {kernel.shape}"
        )
    kh, kw = kernel.shape[:2]
    if not kh % 2 or not kw % 2:
        raise ValueError(
            f"kernels need odd sides so that frames keep their size; got {kh} x {kw}"
        )
    check_bias(bias, kernel)


def convolve_clips(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3-D cross-correlation with zeros around the clip, so that it keeps its size.

    Where a side of the kernel is even, the odd zero goes at the end, in time too: two
    taps in time are the frame itself and the next one.

    Args:
        x: `[b, l, h, w, c]`.
        kernel: `[kl, kh, kw, c, g]`.

    Returns:
        `[b, l, h, w, g]`.
    """
    sizes = check_array("x", x, "b l h w c")
    check_array("kernel", kernel, "kl kh kw c g", dict(c=sizes["c"]))
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


def shrink(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Strided cross-correlation `[n, stride h, stride w, c]` to `[n, h, w, g]`.

    `y[i] = sum_u kernel[u] x[stride i + u - k // 2]` along both axes, with zeros
    outside the plane: the window is centred on the first of the `stride` positions that
    the output stands for.

    Args:
        x: planes whose height and width are divisible by the stride.
        kernel: `[k, k, c, g]` with odd k.
        stride: positions of the input per position of the output.

    Raises:
        ValueError: if the kernel is even or the stride does not divide the plane.
    """
    _check_planes(x, kernel)
    check_value("stride", stride, at_least(1))
    k = odd_side(kernel)
    check_divisible(x.shape[1:3], stride)
    padding = ((k // 2, k - stride - k // 2),) * 2
    return convolve(x, kernel, padding, strides=(stride, stride))


def enlarge(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Transposed convolution `[n, h, w, c]` to `[n, stride h, stride w, g]`.

    The adjoint of `shrink`: position i adds `kernel[u] x[i]` to the output's position
    `stride i + u - k // 2`; what falls outside the plane is lost. This is
    PyTorch's ConvTranspose2d with padding k // 2 and output_padding stride - 1.

    Args:
        x: planes.
        kernel: `[k, k, c, g]` with odd k, not mirrored.
        stride: positions of the output per position of the input.

    Raises:
        ValueError: if the kernel is even.
    """
    _check_planes(x, kernel)
    check_value("stride", stride, at_least(1))
    k = odd_side(kernel)
    return lax.conv_general_dilated(
        x,
        jnp.flip(kernel, (0, 1)),
        (1, 1),
        ((k // 2, k // 2 + stride - 1),) * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=_LAYOUT,
    )


def _check_planes(x, kernel, bias=None):
    sizes = check_array("x", x, "n h w c")
    check_array("kernel", kernel, "kh kw c g", dict(c=sizes["c"]))
    check_bias(bias, kernel)


def check_bias(bias: jax.Array | None, kernel: jax.Array) -> None:
    """Raises ValueError unless there is a number for each channel, or no bias."""
    if bias is not None:
        check_array("bias", bias, "g", dict(g=kernel.shape[-1]))


def odd_side(kernel: jax.Array) -> int:
    """The side of a kernel `[k, k, c, g]`.

    Raises:
        ValueError: unless both sides are equal and odd.
    """
    k = kernel.shape[0]
    if kernel.shape[1] != k or k % 2 == 0:
        raise ValueError(
            f"kernels need odd, equal sides; got {tuple(kernel.shape[:2])}"
        )
    return k


def check_divisible(plane: Pair, stride: int) -> None:
    """Raises ValueError unless the stride divides height and width."""
    if any(size % stride for size in plane):
        raise ValueError(
            f"stride {stride} must divide the plane {tuple(plane)}; pad it first"
        )
