"""Devices: laying batches and states over them, and the memory they have."""

import math
import os
import pathlib
import resource
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from earthformer_jax.training.devices.checks import check_fields, check_parts
from earthformer_jax.training.settings import ParallelSettings

DATA, SPACE, MODEL = AXES = ("data", "space", "model")
EXAMPLES = (DATA, MODEL)  # devices with parts of the parameters have own examples
FIELD_AXES = 5  # [b, t, h, w, c]
SMALL = 1024  # arrays of fewer values are not divided

CGROUPS = pathlib.Path("/sys/fs/cgroup")


def make_mesh(
    parallel: ParallelSettings,
    # jax assigns this class to a variable, which pyright accepts as no type.
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore
) -> jax.sharding.Mesh:
    """A mesh with the axes "data", "space" and "model" over all of the devices.

    The axes are Auto: programs are written as if there were one device, and the
    compiler follows the layout of batches and states. (With the default, Explicit,
    cutting a sharded field into cuboids is rejected.)

    Args:
        parallel: parts of fields and of parameters; the other devices divide batches.
        devices: default: all devices.

    Raises:
        ConfigError: if the devices cannot be divided in this way.
    """
    devices = jax.devices() if devices is None else devices
    check_parts(parallel, len(devices))
    shape = len(devices) // (parallel.space * parallel.model)
    return jax.make_mesh(
        (shape, parallel.space, parallel.model),
        AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * len(AXES),
        devices=devices,
    )


def data_mesh(
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore
) -> jax.sharding.Mesh:
    """A mesh of devices that divide nothing but batches; default: all devices."""
    return make_mesh(ParallelSettings(), devices)


def replicated(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """The same array on every device."""
    return jax.NamedSharding(mesh, jax.P())


def by_example(mesh: jax.sharding.Mesh) -> jax.NamedSharding:
    """Examples (the first axis) in equal shares."""
    return jax.NamedSharding(mesh, jax.P(EXAMPLES))


def by_field(mesh: jax.sharding.Mesh, shape: Sequence[int]) -> jax.NamedSharding:
    """Examples in equal shares, and each field in parts of its height, or its width.

    Args:
        mesh: of the devices.
        shape: of an array; with five axes it is that of fields `[b, t, h, w, c]`, with
            any other number nothing but examples is divided.

    Raises:
        ConfigError: if neither height nor width can be divided.
    """
    parts = mesh.shape[SPACE]
    if parts == 1 or len(shape) != FIELD_AXES:
        return by_example(mesh)
    check_fields(ParallelSettings(space=parts), [shape[1:]])
    axes = (None, SPACE) if shape[2] % parts == 0 else (None, None, SPACE)
    return jax.NamedSharding(mesh, jax.P(EXAMPLES, *axes))


def state_sharding(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """How the arrays of a state lie on the devices, for each leaf.

    Large ones are divided along the last of their longest axes that the parts of the
    axis "model" divide; small ones are everywhere.

    Args:
        tree: of arrays, or of their shapes.
        mesh: of the devices.
    """
    parts = mesh.shape[MODEL]

    def of_leaf(leaf) -> jax.NamedSharding:
        sizes = {
            axis: n for axis, n in enumerate(np.shape(leaf)) if n and n % parts == 0
        }
        if parts == 1 or math.prod(np.shape(leaf)) < SMALL or not sizes:
            return replicated(mesh)
        axis = max(sizes, key=lambda axis: (sizes[axis], axis))
        return jax.NamedSharding(mesh, jax.P(*[None] * axis, MODEL))

    return jax.tree.map(of_leaf, tree)


def put_batch(
    mesh: jax.sharding.Mesh, batch: Mapping[str, np.ndarray]
) -> dict[str, jax.Array]:
    """Lays this process's share of a batch over its devices.

    Args:
        mesh: all devices of all processes.
        batch: arrays `[b, ...]` with b = examples of this process, a multiple of its
            number of shares of a batch.

    Returns:
        Global arrays `[b * processes, ...]`. The copy runs in the background.
    """
    return {
        name: jax.make_array_from_process_local_data(
            by_field(mesh, np.shape(array)), np.asarray(array)
        )
        for name, array in batch.items()
    }


def abstract(tree: Any, sharding: Any) -> Any:
    """Shapes and types of a tree, laid out as `sharding` says: one, or one a leaf."""
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, tree)
    return jax.tree.map(
        lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s),
        tree,
        sharding,
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
