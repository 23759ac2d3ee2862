"""The motion that a few frames show: Lucas and Kanade's method on a pyramid of planes.

Reference:
    Lucas and Kanade 1981, "An iterative image registration technique with an
    application to stereo vision"; Bouguet 2001 for its pyramid.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.nowcasting.semi_lagrangian import places, shifted

COARSEST = 8  # cells along the shorter side of the coarsest plane
WINDOW = 4.0  # standard deviation in cells of the window that moves as one
PASSES = 2  # of the refinement of the motion on each plane
LEAST_CONTRAST = 1e-2  # of the mean contrast: less of it does not show a motion
NO_CONTRAST = 1e-12  # keeps a field without any, and its gradient, from 0 / 0


def motion(frames: jax.Array) -> jax.Array:
    """The mean motion between frames, by Lucas and Kanade's method.

    Args:
        frames: `[t, h, w, c]`; channels move together.

    Returns:
        `[h, w, 2]`, rows and columns per frame. Where nothing is seen, it is that of
        what is nearest.
    """
    _, h, w, c = frames.shape
    levels = max(1, 1 + int(math.log2(max(min(h, w) / COARSEST, 1))))
    flow = None
    for level in reversed(range(levels)):
        size = (-(-h // 2**level), -(-w // 2**level))
        plane = jax.image.resize(frames, (len(frames), *size, c), "linear")
        if flow is None:
            flow = jnp.zeros((*size, 2))
        else:
            finer = np.array(size) / flow.shape[:2]
            flow = jax.image.resize(flow, (*size, 2), "linear") * finer
        for _ in range(PASSES):
            flow = flow + _correction(plane, flow)
    assert flow is not None
    return flow


def _correction(frames: jax.Array, flow: jax.Array) -> jax.Array:
    """What a motion lacks, at most one cell: `[h, w, 2]`."""
    size = flow.shape[:2]
    if min(size) < 2:
        return jnp.zeros_like(flow)
    first, second = frames[:-1], shifted(frames[1:], flow)
    slopes = jnp.stack(jnp.gradient((first + second) / 2, axis=(1, 2)))
    end = jnp.array(size) - 1
    place = places(size) + flow
    is_seen = jnp.all((place >= 0) & (place <= end), axis=-1).astype(jnp.float32)

    def window(product: jax.Array) -> jax.Array:
        return _smooth(product.sum(axis=(0, -1)) * is_seen)

    yy, yx, xx = (window(slopes[i] * slopes[j]) for i, j in ((0, 0), (0, 1), (1, 1)))
    y, x = (window(slope * (first - second)) for slope in slopes)
    contrast = jnp.maximum(jnp.mean(yy + xx), NO_CONTRAST)
    yy, yx, xx, y, x = (mean / contrast for mean in (yy, yx, xx, y, x))
    yy, xx = yy + LEAST_CONTRAST, xx + LEAST_CONTRAST
    determinant = yy * xx - yx * yx
    correction = jnp.stack([xx * y - yx * x, yy * x - yx * y], -1)
    return jnp.clip(correction / determinant[..., None], -1, 1)


def _smooth(plane: jax.Array) -> jax.Array:
    """Gaussian means `[h, w]` over windows of `WINDOW`."""
    for axis in (0, 1):
        distance = np.subtract.outer(*[np.arange(plane.shape[axis])] * 2) / WINDOW
        weights = np.exp(-0.5 * distance**2)
        weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
        plane = jnp.moveaxis(
            jnp.tensordot(weights, plane, ((1,), (axis,)), precision="highest"), 0, axis
        )
    return plane
