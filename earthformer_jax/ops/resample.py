"""Changing the grid: padding, nearest-neighbour resizing, patch merging, up-sampling.

Fields are `[b, t, h, w, c]`; a grid is the static triple (t, h, w).
"""

import functools

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax import checks
from earthformer_jax.ops.convolution import Pair, convolve, frame_padding
from earthformer_jax.ops.dense import widen

PADDINGS = ("ignore", "zeros", "nearest")

Grid = tuple[int, ...]  # (t, h, w)


def check_padding(padding: str) -> None:
    """Raises ValueError unless `padding` is one of `PADDINGS`."""
    if not isinstance(padding, str) or padding not in PADDINGS:
        raise ValueError(f"padding must be one of {PADDINGS}; got {padding!r}")


def _check_field(x, grid):
    checks.check_array("x", x, "b t h w c")
    checks.check_value("grid", grid, checks.grid())


def next_multiple(grid: Grid, size: Grid) -> Grid:
    """The smallest grid that contains `grid` and is divisible by `size`."""
    return tuple(-(-g // s) * s for g, s in zip(grid, size, strict=True))


@functools.lru_cache(maxsize=1024)
def nearest_index(in_size: int, out_size: int) -> np.ndarray:
    """Source index of each output position of a nearest-neighbour resize.

    `floor(i * in_size / out_size)` with the ratio rounded to float32, the convention
    of PyTorch's `interpolate(mode="nearest")`.
    """
    scale = np.float32(in_size) / np.float32(out_size)
    index = np.floor(np.arange(out_size, dtype=np.float32) * scale).astype(np.int32)
    index = np.minimum(index, in_size - 1)
    index.setflags(write=False)
    return index


def resize_nearest(x: jax.Array, grid: Grid) -> jax.Array:
    """Nearest-neighbour resize of `[b, t, h, w, c]` to `[b, *grid, c]`.

    For whole multiples, values are repeated by broadcasting, so that the gradient is a
    plain sum, in at least float32; other ratios use a gather.
    """
    _check_field(x, grid)
    resized = widen(x) if jnp.issubdtype(x.dtype, jnp.floating) else x
    for axis, size in enumerate(grid, start=1):
        have = x.shape[axis]
        if size == have:
            continue
        if size % have == 0:
            resized = jnp.repeat(resized, size // have, axis=axis)
        else:
            resized = jnp.take(resized, nearest_index(have, size), axis=axis)
    return resized.astype(x.dtype)


def pad_grid(
    x: jax.Array, grid: Grid, padding: str, *, time_at_front: bool = False
) -> jax.Array:
    """Enlarges `[b, t, h, w, c]` to `[b, *grid, c]`.

    Args:
        x: field whose grid is no larger than `grid` on any axis.
        grid: the desired (t, h, w).
        padding: "ignore" and "zeros" append zeros (they differ in whether attention
            masks them); "nearest" resizes the whole field and does not repeat edges.
        time_at_front: add the new time steps before the field rather than after it.

    Returns:
        `[b, *grid, c]`.
    """
    check_padding(padding)
    _check_field(x, grid)
    if any(want < have for want, have in zip(grid, x.shape[1:4], strict=True)):
        raise ValueError(
            f"grid={tuple(grid)}: expected at least that of x, {tuple(x.shape[1:4])}"
        )
    extra = [want - have for want, have in zip(grid, x.shape[1:4], strict=True)]
    if not any(extra):
        return x
    if padding == "nearest":
        return resize_nearest(x, grid)
    time = (extra[0], 0) if time_at_front else (0, extra[0])
    return jnp.pad(x, ((0, 0), time, (0, extra[1]), (0, extra[2]), (0, 0)))


def unpad_grid(x: jax.Array, grid: Grid, padding: str) -> jax.Array:
    """Crops a field enlarged by `pad_grid` back to `[b, *grid, c]`."""
    check_padding(padding)
    _check_field(x, grid)
    if any(want > have for want, have in zip(grid, x.shape[1:4], strict=True)):
        raise ValueError(
            f"grid={tuple(grid)}: expected at most that of x, {tuple(x.shape[1:4])}"
        )
    if x.shape[1:4] == tuple(grid):
        return x
    if padding == "nearest":
        return resize_nearest(x, grid)
    return x[:, : grid[0], : grid[1], : grid[2]]


def merged_grid(grid: Grid, factor: Grid) -> Grid:
    """Grid after `patch_merge`: each axis divided by its factor, rounded up."""
    return tuple(-(-g // f) for g, f in zip(grid, factor, strict=True))


def patch_merge(x: jax.Array, factor: Grid, padding: str) -> jax.Array:
    """Gathers each `factor` block of neighbours into the channels.

    Args:
        x: `[b, t, h, w, c]` of any grid; padded where `factor` does not divide it.
        factor: neighbours merged along (t, h, w).
        padding: one of `PADDINGS`; nothing is masked afterwards.

    Returns:
        `[b, t', h', w', c * prod(factor)]`, channels ordered (t, h, w, c).

    Reference:
        Gao et al. 2022, Earthformer, section 3.3; the order of the channels differs
        from Swin Transformer's.
    """
    checks.check_array("x", x, "b t h w c")
    checks.check_value("factor", factor, checks.grid())
    x = pad_grid(x, next_multiple(x.shape[1:4], factor), padding)
    ft, fh, fw = factor
    return einops.rearrange(
        x, "b (t ft) (h fh) (w fw) c -> b t h w (ft fh fw c)", ft=ft, fh=fh, fw=fw
    )


def check_upsampling(x: jax.Array, kernel: jax.Array, plane: Pair) -> None:
    """Raises ValueError for arguments that `upsample_convolve` does not take."""
    sizes = checks.check_array("x", x, "n h w c")
    checks.check_array("kernel", kernel, "kh kw c g", dict(c=sizes["c"]))
    checks.check_value("x.shape[1:3]", x.shape[1:3], checks.SIZES)
    checks.check_value("plane", plane, checks.each(checks.at_least(1), 2))


def upsample_convolve(
    x: jax.Array, kernel: jax.Array, plane: Pair, bias: jax.Array | None = None
) -> jax.Array:
    """Nearest-neighbour resize, then a convolution with zeros around the plane.

    Args:
        x: `[n, h, w, c]`.
        kernel: `[kh, kw, c, g]` with odd kh and kw.
        plane: the desired (h', w').
        bias: `[g]` to add, or None.

    Returns:
        `[n, h', w', g]`.

    Raises:
        ValueError: for arrays of other shapes, or planes without rows or columns.

    Reference:
        Gao et al. 2022, Earthformer, tables 8 and 9.
    """
    check_upsampling(x, kernel, plane)
    x = resize_nearest(x[:, None], (1, *plane))[:, 0]
    return convolve(x, kernel, frame_padding(kernel), bias)
