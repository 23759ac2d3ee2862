"""Devices: laying batches and states over them, and the memory they have."""

import math
import os
import pathlib
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

CGROUPS = pathlib.Path("/sys/fs/cgroup")


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


def host_bytes(cgroups: pathlib.Path = CGROUPS) -> int:
    """Memory this process may use: the least of RAM, cgroup and address space."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    address_space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if address_space != resource.RLIM_INFINITY:
        limits.append(address_space)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # versions 2 and 1
        try:
            text = (cgroups / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return min(limits)


def device_bytes() -> int:
    """Memory of all devices of this process together; a CPU has that of the host."""
    limits = []
    for device in jax.local_devices():
        statistics: Mapping[str, Any] = device.memory_stats() or {}
        if "bytes_limit" not in statistics:
            return host_bytes()
        limits.append(statistics["bytes_limit"])
    return sum(limits)


def program_bytes(compiled: Any) -> int:
    """Memory that a compiled program needs on all devices of this process together.

    Args:
        compiled: `jax.jit(...).lower(...).compile()`.

    Returns:
        the peak as XLA plans it; 0 if the devices do not tell.
    """
    plan = compiled.memory_analysis()
    if plan is None:
        return 0
    one = plan.temp_size_in_bytes + plan.argument_size_in_bytes
    one += max(plan.output_size_in_bytes - plan.alias_size_in_bytes, 0)
    return one * len(jax.local_devices())


def size_text(count: float) -> str:
    """ "32.0 GiB" of a number of bytes."""
    power = min(max(int(math.log(max(count, 1), 1024)), 2), 4)
    return f"{count / 1024**power:,.1f} {('MiB', 'GiB', 'TiB')[power - 2]}"
