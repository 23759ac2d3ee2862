"""The program of a training step for the devices, and the batches that it takes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from earthformer_jax.data.source import Batch, Example
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.devices import padding
from earthformer_jax.training.settings import PMAP, SHARD_MAP, Settings
from earthformer_jax.training.step import update


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function of state and batch, as `training.step.update` is.

    Attributes:
        take_step: from a state, which it overwrites, and a batch on the devices to the
            state after the step and scalars.
        put: lays the batch of this process over its devices.
        batch_like: shapes and layouts of a batch of examples like this one.
    """

    take_step: Any
    put: Callable[[Batch], dict[str, jax.Array]]
    batch_like: Callable[[Example], dict[str, jax.ShapeDtypeStruct]]


def make_program(
    settings: Settings, mesh: jax.sharding.Mesh, layout: Any, **options: Any
) -> Program:
    """The program that `config.parallel.backend` names.

    Args:
        settings: of the training.
        mesh: of all devices.
        layout: sharding of each leaf of the state (`mesh.state_sharding`).
        **options: of `training.step.update`.
    """
    train, backend = settings.train, settings.parallel.backend
    parts = train.batch_size // train.micro_batch
    step = functools.partial(
        update,
        micro_batches=parts,
        loss_scale_window=settings.precision.loss_scale_window,
        **options,
    )
    out = layout, mesh_lib.replicated(mesh)
    compiled = functools.partial(jax.jit, donate_argnums=0, out_shardings=out)

    def put(batch: Batch) -> dict[str, jax.Array]:
        return mesh_lib.put_batch(mesh, padding.padded(mesh, batch, parts))

    def batch_like(example: Example) -> dict[str, jax.ShapeDtypeStruct]:
        shares = padding.shares(mesh)
        size = padding.padded_size(shares, train.batch_size, parts)
        first = (shares, size // shares) if backend == PMAP else (size,)
        found = {}
        for name, array in example.items():
            shape, kind = (size, *np.shape(array)), np.asarray(array).dtype
            layout = mesh_lib.by_field(mesh, shape)
            found[name] = jax.ShapeDtypeStruct(
                (*first, *shape[1:]), kind, sharding=layout
            )
        return found

    if backend == SHARD_MAP:
        mapped = jax.shard_map(
            functools.partial(step, axis_name=mesh_lib.DATA),
            mesh=mesh,
            in_specs=(jax.P(), jax.P(mesh_lib.DATA)),
            out_specs=jax.P(),
        )
        return Program(compiled(mapped), put, batch_like)
    if backend == PMAP:
        mapped = jax.pmap(
            functools.partial(step, axis_name=mesh_lib.DATA),
            axis_name=mesh_lib.DATA,
            in_axes=(None, 0),
            out_axes=None,
            devices=list(mesh.devices.flat),
        )
        return Program(mapped, lambda batch: _by_device(mesh, batch), batch_like)
    whole = None
    if mesh.shape[mesh_lib.MODEL] > 1:
        whole = gathering(mesh, layout.params)
    unpad = padding.unpadding(mesh, train.micro_batch)
    one = compiled(functools.partial(step, unpad=unpad, whole=whole))
    return Program(one, put, batch_like)


def gathering(mesh: jax.sharding.Mesh, layout: Any) -> Callable[[Any], Any]:
    """What makes parameters whole on every device, and divides their gradients again.

    Args:
        mesh: of the devices.
        layout: sharding of each parameter.
    """
    constrain = jax.lax.with_sharding_constraint

    @jax.custom_vjp
    def whole(params):
        return constrain(params, mesh_lib.replicated(mesh))

    # Left to itself, JAX would ask for whole gradients on every device as well.
    whole.defvjp(
        lambda params: (whole(params), None),
        lambda _, gradients: (constrain(gradients, layout),),
    )
    return whole


def _by_device(mesh: jax.sharding.Mesh, batch: Batch) -> dict[str, jax.Array]:
    """Arrays `[device, b, ...]` as `jax.pmap` takes them."""
    own = padding.shares(mesh) // jax.process_count()
    split = {k: x.reshape(own, len(x) // own, *x.shape[1:]) for k, x in batch.items()}
    sharding = mesh_lib.by_example(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in split.items()
    }
