"""Laying batches and states over devices."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np


def data_mesh(
    # jax assigns this class to a variable, which pyright accepts as no type.
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore
) -> jax.sharding.Mesh:
    """A mesh with one axis "data" over all devices of all processes.

    The axis is Auto: programs are written as if there were one device, and the compiler
    follows the layout of the batch. (With the default, Explicit, cutting a sharded
    field into cuboids is rejected.)

    Args:
        devices: default: all devices.
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh(
        (len(devices),),
        ("data",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=devices,
    )


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """The same array on every device."""
    return jax.NamedSharding(mesh, jax.P())


def by_example(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """Examples (the first axis) in equal shares."""
    return jax.NamedSharding(mesh, jax.P("data"))


def put_batch(
    mesh: jax.sharding.Mesh, batch: Mapping[str, np.ndarray]
) -> dict[str, jax.Array]:
    """Lays this process's share of a batch over its devices.

    Args:
        mesh: all devices of all processes.
        batch: arrays `[b, ...]` with b = examples of this process, a multiple of its
            number of devices.

    Returns:
        Global arrays `[b * processes, ...]`. The copy runs in the background.
    """
    sharding = by_example(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(array))
        for name, array in batch.items()
    }


def abstract(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Shapes and types of a tree, laid out as `sharding` says."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
    )
