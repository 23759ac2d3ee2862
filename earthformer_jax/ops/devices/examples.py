"""Inside `jax.shard_map` and `jax.pmap`: what the devices share of a batch.

A program for each device sees the examples of that device only. What depends on all
examples of a batch, as the statistics of batch norms do, is taken over all of them
here. Outside of such programs there is one program for the whole batch, and every
function here does what is plainly meant.
"""

from collections.abc import Callable

import jax


def axes() -> tuple[str, ...]:
    """The axes of the devices that divide the batch in this program."""
    mesh = jax.sharding.get_abstract_mesh()
    return tuple(name for name in mesh.manual_axes if mesh.shape[name] > 1)


def devices() -> int:
    """Number of devices that divide the batch, each of them into equal shares."""
    mesh, count = jax.sharding.get_abstract_mesh(), 1
    for name in axes():
        count *= mesh.shape[name]
    return count


def mean(x: jax.Array) -> jax.Array:
    """The mean over the devices of a mean over the examples of each."""
    return jax.lax.pmean(x, axes()) if axes() else x


def own_key(key: jax.Array) -> jax.Array:
    """A key of this device, for random numbers of its examples."""
    return jax.random.fold_in(key, jax.lax.axis_index(axes())) if axes() else key


def draw(of_batch: Callable[[int], jax.Array], examples: int) -> jax.Array:
    """Random numbers of the examples of this device, among those of the whole batch.

    They are then those that one program for the whole batch would draw.

    Args:
        of_batch: draws `[b, ...]` for a number of examples, on all devices alike.
        examples: of this device.
    """
    if not axes():
        return of_batch(examples)
    every = of_batch(examples * devices())
    first = jax.lax.axis_index(axes()) * examples
    return jax.lax.dynamic_slice_in_dim(every, first, examples)
