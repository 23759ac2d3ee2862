"""The motion that a few frames show: Lucas and Kanade's method on a pyramid of planes.

On each plane, from coarse to fine, one motion has to explain what changes within a wide
window. Where a window shows little, the motion of the coarser plane stays, which is
that of a wider one: so the field is smooth, and complete where nothing is seen.

Reference:
    Lucas and Kanade 1981, "An iterative image registration technique with an
    application to stereo vision"; Bouguet 2001 for its pyramid.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.nowcasting.semi_lagrangian import is_known, shifted

FRAMES = 4  # that forecasts take the motion from, or fewer
COARSEST = 8  # cells along the shorter side of the coarsest plane
# Standard deviation of the window that moves as one: cells, and share of the shorter
# side if that is more.
WINDOW, WINDOW_SHARE = 4.0, 1 / 12
PASSES = 2  # of the refinement of the motion on each plane
LEAST_CONTRAST = 0.3  # of the mean contrast: less of it hardly shows a motion
NO_CONTRAST = 1e-12  # keeps a field without any, and its gradient, from 0 / 0


def motion(frames: jax.Array, observed: jax.Array | None = None) -> jax.Array:
    """The mean motion between frames, by Lucas and Kanade's method.

    Args:
        frames: `[t, h, w, c]` with t of at least 2; channels move together. Rain should
            be in logarithmic units, with one value wherever it does not rain.
        observed: bool `[t, h, w, c]`; values elsewhere do not count and may be NaN.
            None: all count.

    Returns:
        `[h, w, 2]`, rows and columns per frame. Where nothing is seen, it is that of
        what is nearest; 0 if nothing is seen anywhere.

    Raises:
        ValueError: for a single frame.
    """
    if len(frames) < 2:
        raise ValueError("one frame shows no motion; expected at least 2")
    known = None
    if observed is not None:
        observed = jnp.broadcast_to(observed, frames.shape)
        frames = jnp.where(observed, frames, 0)
        known = observed.astype(frames.dtype)
    planes = [(frames, known)]
    while min(planes[-1][0].shape[1:3]) >= 2 * COARSEST:
        planes.append(_halved(*planes[-1]))
    flow = jnp.zeros((*planes[-1][0].shape[1:3], 2), frames.dtype)
    for plane, known in reversed(planes):
        if flow.shape[:2] != plane.shape[1:3]:
            flow = _doubled(flow, plane.shape[1:3])
        improved = functools.partial(_improved, plane, known)
        flow = jax.lax.fori_loop(0, PASSES, lambda _, x, f=improved: f(x), flow)
    return flow


def _improved(frames: jax.Array, known: jax.Array | None, flow: jax.Array) -> jax.Array:
    """A motion `[h, w, 2]` after one step of at most one cell."""
    size = flow.shape[:2]
    if min(size) < 2:
        return flow
    first, second = frames[:-1], shifted(frames[1:], flow)
    change = first - second
    slopes = jnp.gradient((first + second) / 2, axis=(1, 2))
    counts = is_known(-flow)[..., None].astype(frames.dtype)
    if known is not None:
        # A slope is known where both neighbours of a cell are.
        whole = _least_around(known)
        counts = counts * whole[:-1] * (shifted(whole[1:], flow) > 1 - 1e-3)
    products = (
        slopes[0] * slopes[0],
        slopes[0] * slopes[1],
        slopes[1] * slopes[1],
        slopes[0] * change,
        slopes[1] * change,
    )
    sums = jnp.stack([jnp.sum(x * counts, axis=(0, -1)) for x in products])
    yy, yx, xx, y, x = _window(sums)
    contrast = jnp.maximum(jnp.mean(yy + xx), NO_CONTRAST)
    yy, yx, xx, y, x = (mean / contrast for mean in (yy, yx, xx, y, x))
    yy, xx = yy + LEAST_CONTRAST, xx + LEAST_CONTRAST
    determinant = yy * xx - yx * yx
    step = jnp.stack([xx * y - yx * x, yy * x - yx * y], -1) / determinant[..., None]
    return flow + jnp.clip(step, -1, 1)


def _halved(
    frames: jax.Array, known: jax.Array | None
) -> tuple[jax.Array, jax.Array | None]:
    """Means over 2 x 2 cells, and whether all four are known."""
    t, h, w, c = frames.shape
    odd = ((0, 0), (0, h % 2), (0, w % 2), (0, 0))

    def blocks(x: jax.Array) -> jax.Array:
        return jnp.pad(x, odd, mode="edge").reshape(
            t, (h + 1) // 2, 2, (w + 1) // 2, 2, c
        )

    if known is not None:
        known = blocks(known).min(axis=(2, 4))
    return blocks(frames).mean(axis=(2, 4)), known


def _doubled(flow: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """A motion on a plane of half as many cells, interpolated to `size`."""
    for axis, cells in enumerate(size):
        coarse = flow.shape[axis]
        place = np.clip((np.arange(cells) + 0.5) / 2 - 0.5, 0, coarse - 1)
        weights = np.maximum(1 - np.abs(np.subtract.outer(place, np.arange(coarse))), 0)
        flow = _along(flow, weights, axis)
    return 2 * flow


def _window(planes: jax.Array) -> jax.Array:
    """Gaussian means over windows around each cell, `[n, h, w]`."""
    width = max(WINDOW, WINDOW_SHARE * min(planes.shape[1:]))
    for axis in (1, 2):
        distance = np.subtract.outer(*[np.arange(planes.shape[axis])] * 2) / width
        weights = np.exp(-0.5 * distance**2)
        planes = _along(planes, weights / weights.sum(axis=1, keepdims=True), axis)
    return planes


def _along(planes: jax.Array, weights: np.ndarray, axis: int) -> jax.Array:
    """The product of a matrix `[m, n]` with the axis of length n."""
    product = jnp.tensordot(
        weights.astype(np.float32), planes, ((1,), (axis,)), precision="highest"
    )
    return jnp.moveaxis(product, 0, axis)


def _least_around(planes: jax.Array) -> jax.Array:
    """The least of each cell and its neighbours in rows and columns, `[t, h, w, c]`."""
    _, h, w, _ = planes.shape
    wide = jnp.pad(planes, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = jnp.minimum(wide[:, :h, 1:-1], wide[:, 2:, 1:-1])
    columns = jnp.minimum(wide[:, 1:-1, :w], wide[:, 1:-1, 2:])
    return jnp.minimum(planes, jnp.minimum(rows, columns))
