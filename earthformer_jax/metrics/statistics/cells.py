"""Sums over the cells of a frame, or of regions of it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np


def total(
    x, regions: Mapping[str, np.ndarray], *, apart: bool, dtype=jnp.float32
) -> jax.Array:
    """Sums over cells.

    Args:
        x: `[b, k, h, w, c]`.
        regions: bool `[h, w]` by name; {}: all cells.
        apart: whether channels are kept; otherwise they are added.
        dtype: of the sums.

    Returns:
        `[b, k]`, then an axis for regions if there are any, and one for channels if
        they are kept `apart`.

    Raises:
        ValueError: if a region is not of the shape of a frame.
    """
    axes = (2, 3) if apart else (2, 3, 4)
    if not regions:
        return jnp.sum(x, axis=axes, dtype=dtype)
    sizes(x.shape[2:4], regions)
    parts = [
        jnp.sum(jnp.where(mask[..., None], x, 0), axis=axes, dtype=dtype)
        for mask in map(np.asarray, regions.values())
    ]
    return jnp.stack(parts, axis=2)


def sizes(frame: tuple[int, ...], regions: Mapping[str, np.ndarray]) -> np.ndarray:
    """Number of cells of a frame `[]`, or of each region `[r]`.

    Raises:
        ValueError: if a region is not of the shape of a frame, or is empty.
    """
    if not regions:
        return np.asarray(np.prod(frame))
    for name, mask in regions.items():
        if np.shape(mask) != tuple(frame) or np.asarray(mask).dtype != bool:
            raise ValueError(
                f"the region {name!r} has shape {np.shape(mask)} and type "
                f"{np.asarray(mask).dtype}: expected bool [h, w] = {list(frame)}"
            )
        if not np.any(mask):
            raise ValueError(f"the region {name!r} has no cells")
    return np.array([np.sum(mask) for mask in regions.values()])
