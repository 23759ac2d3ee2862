"""Batches of any size on any number of devices.

Devices hold equal shares of a batch. Where it cannot be divided equally, its last
example is repeated until it can, and the copies are dropped inside the program, before
anything is computed of several examples: loss, gradients, statistics of the batch and
scores are those of the examples that there are.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from earthformer_jax.training import mesh as mesh_lib


def shares(mesh: jax.sharding.Mesh) -> int:
    """Number of equal shares that a batch is divided into."""
    return math.prod(mesh.shape[axis] for axis in mesh_lib.EXAMPLES)


def padded(
    mesh: jax.sharding.Mesh, batch: Mapping[str, np.ndarray], parts: int = 1
) -> dict[str, np.ndarray]:
    """The batch of this process, with its last example repeated as often as needed.

    Args:
        mesh: of the devices of all processes, or of this one alone.
        batch: arrays `[b, ...]`.
        parts: micro-batches, each of which is shared equally.
    """
    own = shares(mesh) // _processes(mesh)

    def pad(x):
        missing = padded_size(own, len(x), parts) - len(x)
        return np.concatenate([x, x[-1:].repeat(missing, axis=0)]) if missing else x

    return {name: pad(np.asarray(x)) for name, x in batch.items()}


def padded_size(shares: int, examples: int, parts: int = 1) -> int:
    """Number of examples with the copies that make the shares of each part equal."""
    return examples + -examples % (shares * parts)


def unpadding(mesh: jax.sharding.Mesh, examples: int) -> Callable[[Any], Any] | None:
    """What drops the copies that `padded` has added to a batch, or to a part of one.

    Args:
        mesh: of the devices of all processes, or of this one alone.
        examples: that there are, of all processes on the mesh.

    Returns:
        Function of a tree of arrays `[b, ...]`, for use inside `jax.jit`; None if there
        are no copies.
    """
    if examples % shares(mesh) == 0:
        return None
    processes = _processes(mesh)

    def first(x):
        blocks = x.reshape(processes, len(x) // processes, *x.shape[1:])
        x = blocks[:, : examples // processes].reshape(examples, *x.shape[1:])
        # The compiler fills up the shares itself and knows what counts in them.
        return jax.lax.with_sharding_constraint(x, mesh_lib.by_field(mesh, x.shape))

    return lambda tree: jax.tree.map(first, tree)


def _processes(mesh: jax.sharding.Mesh) -> int:
    """Number of processes whose devices are on a mesh."""
    return len({device.process_index for device in mesh.devices.flat})
