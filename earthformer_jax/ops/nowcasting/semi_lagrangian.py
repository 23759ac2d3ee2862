"""Frames carried along by a motion, backward along their trajectories.

What flows in from outside the frame is unknown. There the value of the edge that the
trajectory left through is kept, and `is_known` says where: on four sets of radar frames
this has smaller squared errors and a higher CSI than the last frame unmoved, the mean
of the frame, or no rain.

Reference:
    Germann and Zawadzki 2002, "Scale-dependence of the predictability of precipitation
    from continental radar images".
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

PASSES = 3  # of the fixed-point iteration for each step of a trajectory


def extrapolate(frame: jax.Array, flow: jax.Array, steps: int) -> jax.Array:
    """A frame carried along by a steady motion, backward along its trajectories.

    Args:
        frame: `[h, w, c]`.
        flow: `[h, w, 2]`, rows and columns per step.
        steps: number of frames to make.

    Returns:
        `[steps, h, w, c]`; see the top of the module for what flows in from outside.
    """
    travelled = trajectories(flow, steps)
    return jax.lax.map(lambda way: shifted(frame, -way), travelled)


def extrapolate_observed(
    frame: jax.Array, observed: jax.Array, flow: jax.Array, steps: int
) -> tuple[jax.Array, jax.Array]:
    """As `extrapolate`, of a frame in which some values are unknown.

    Args:
        frame: `[h, w, c]`; any finite number where it is unknown.
        observed: bool `[h, w, c]`.
        flow: `[h, w, 2]`, rows and columns per step.
        steps: number of frames to make.

    Returns:
        forecast `[steps, h, w, c]`, and bool `[steps, h, w, c]`, True for values that
        come from inside the frame and were observed. A forecast is made of observed
        values alone; where there are none, of what `frame` holds.
    """
    weights = observed.astype(frame.dtype)
    fields = jnp.concatenate([frame, frame * weights, weights], axis=-1)

    def step(way: jax.Array) -> tuple[jax.Array, jax.Array]:
        filled, product, weight = jnp.split(shifted(fields, -way), 3, axis=-1)
        any_known = weight > 1e-6
        mean = product / jnp.where(any_known, weight, 1)
        known = is_known(way)[..., None] & (weight > 1 - 1e-6)
        return jnp.where(any_known, mean, filled), known

    return jax.lax.map(step, trajectories(flow, steps))


def is_known(travelled: jax.Array) -> jax.Array:
    """Whether what arrives in each cell was inside the frame: bool `[..., h, w]`.

    Args:
        travelled: `[..., h, w, 2]`, as from `trajectories`.
    """
    size = travelled.shape[-3:-1]
    origin = places(size) - travelled
    end = np.array(size, np.float32) - 1
    return jnp.all((origin >= 0) & (origin <= end), axis=-1)


def trajectories(flow: jax.Array, steps: int) -> jax.Array:
    """How far what arrives in each cell has come, following a steady motion.

    Args:
        flow: `[h, w, 2]`, rows and columns per step.
        steps: number of steps.

    Returns:
        `[steps, h, w, 2]`, rows and columns travelled since the beginning.
    """

    def step(travelled: jax.Array, _):
        # The motion half-way between a place and where it came from.
        moved = shifted(flow, -travelled)
        for _ in range(PASSES):
            moved = shifted(flow, -travelled - moved / 2)
        travelled = travelled + moved
        return travelled, travelled

    return jax.lax.scan(step, jnp.zeros_like(flow), length=steps)[1]


def shifted(fields: jax.Array, by: jax.Array) -> jax.Array:
    """Fields `[..., h, w, c]` at places moved by `[h, w, 2]` cells, bilinearly.

    Outside are the values of the edge.
    """
    moved_to = tuple(jnp.moveaxis(places(by.shape[:2]) + by, -1, 0))
    sample = functools.partial(
        map_coordinates, coordinates=moved_to, order=1, mode="nearest"
    )
    planes = jnp.moveaxis(fields, -1, -3).reshape(-1, *by.shape[:2])
    moved = jax.vmap(sample)(planes).reshape(*fields.shape[:-3], -1, *by.shape[:2])
    return jnp.moveaxis(moved, -3, -1)


def places(size: tuple[int, ...]) -> np.ndarray:
    """Row and column of each cell, `[h, w, 2]`."""
    return np.moveaxis(np.indices(size), 0, -1).astype(np.float32)
