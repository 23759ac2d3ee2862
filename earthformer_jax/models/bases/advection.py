"""Advection: what the last frame shows moves on as the frames before it moved.

Reference:
    Lucas and Kanade 1981, "An iterative image registration technique with an
    application to stereo vision"; Bouguet 2001 for its pyramid. Germann and Zawadzki
    2002, "Scale-dependence of the predictability of precipitation from continental
    radar images", for the semi-Lagrangian extrapolation.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.scipy.ndimage import map_coordinates

from earthformer_jax.models.persistence import check_channels
from earthformer_jax.models.shapes import check_inputs, check_shapes

FRAMES = 6  # the last input frames that show the motion
COARSEST = 8  # cells along the shorter side of the coarsest plane
WINDOW = 4.0  # standard deviation in cells of the window that moves as one
PASSES = 2  # of the refinement of the motion on each plane, and of each trajectory
LEAST_CONTRAST = 1e-2  # of the mean contrast: less of it does not show a motion
NO_CONTRAST = 1e-12  # keeps a field without any, and its gradient, from 0 / 0


class Advection(nn.Module):
    """The last frame, moved on with the motion of the last input frames.

    It has neither parameters nor constants. Values at the edge stay where something
    flows in from outside.

    Attributes:
        input_shape: (T, H, W, C_in) with T of at least 2.
        target_shape: (K, H, W, C_out) with C_out of at most C_in; the targets are the
            first channels of the inputs, and move together.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]

    def check(self) -> None:
        """Raises ValueError for shapes that show no motion."""
        check_shapes(self.input_shape, self.target_shape)
        check_channels(self.input_shape, self.target_shape)
        if self.input_shape[0] < 2:
            raise ValueError("one input frame shows no motion; expected at least 2")

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Float32 forecast `[b, K, H, W, C_out]` of inputs `[b, T, H, W, C_in]`."""
        check_inputs(inputs, self.input_shape)
        steps, *_, channels = self.target_shape
        frames = inputs[:, -FRAMES:, ..., :channels].astype(jnp.float32)
        return jax.vmap(lambda x: extrapolate(x[-1], motion(x), steps))(frames)


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
    place = _places(size) + flow
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


def extrapolate(frame: jax.Array, flow: jax.Array, steps: int) -> jax.Array:
    """A frame carried along by a steady motion, backward along its trajectories.

    Args:
        frame: `[h, w, c]`.
        flow: `[h, w, 2]`, rows and columns per step.
        steps: number of frames to make.

    Returns:
        `[steps, h, w, c]`.
    """

    def step(travelled: jax.Array, _):
        # The motion half-way between a place and where it came from.
        moved = shifted(flow, -travelled)
        for _ in range(PASSES):
            moved = shifted(flow, -travelled - moved / 2)
        travelled = travelled + moved
        return travelled, shifted(frame, -travelled)

    return jax.lax.scan(step, jnp.zeros_like(flow), length=steps)[1]


def shifted(fields: jax.Array, by: jax.Array) -> jax.Array:
    """Fields `[..., h, w, c]` at places moved by `[h, w, 2]` cells, bilinearly.

    Outside are the values of the edge.
    """
    places = tuple(jnp.moveaxis(_places(by.shape[:2]) + by, -1, 0))
    sample = functools.partial(
        map_coordinates, coordinates=places, order=1, mode="nearest"
    )
    planes = jnp.moveaxis(fields, -1, -3).reshape(-1, *by.shape[:2])
    moved = jax.vmap(sample)(planes).reshape(*fields.shape[:-3], -1, *by.shape[:2])
    return jnp.moveaxis(moved, -3, -1)


def _places(size: tuple[int, ...]) -> np.ndarray:
    """Row and column of each cell, `[h, w, 2]`."""
    return np.moveaxis(np.indices(size), 0, -1).astype(np.float32)


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
