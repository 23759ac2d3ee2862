"""Frames carried along by a motion, backward along their trajectories.

Reference:
    Germann and Zawadzki 2002, "Scale-dependence of the predictability of precipitation
    from continental radar images".
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

PASSES = 2  # of the refinement of each trajectory


def extrapolate(frame: jax.Array, flow: jax.Array, steps: int) -> jax.Array:
    """A frame carried along by a steady motion, backward along its trajectories.

    Args:
        frame: `[h, w, c]`.
        flow: `[h, w, 2]`, rows and columns per step.
        steps: number of frames to make.

    Returns:
        `[steps, h, w, c]`.
    """

    travelled = trajectories(flow, steps)
    return jax.lax.map(lambda way: shifted(frame, -way), travelled)


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
