"""Inside `jax.shard_map`: arrays that are the same on all devices, and ones that vary.

With `check_vma=True` JAX knows over which axes of the mesh each array varies: a batch
that is split over "data" does, replicated parameters do not. Arithmetic may combine
both, but the gradients that a function defines itself must vary as its arguments do,
and the state of a loop must vary as much in the beginning as after a step. Gradients
of arguments that were made to vary are summed over the devices, as they have to be.

Outside `shard_map` nothing varies, and every function here returns its arguments.
"""

from typing import Any

import jax
import jax.numpy as jnp


def varying_axes(*trees: Any) -> frozenset:
    """The axes of the mesh over which some array of the trees varies."""
    leaves = jax.tree.leaves(trees)
    return frozenset().union(*(jax.typeof(x).mat.varying for x in leaves))


def vary_alike(*trees: Any) -> tuple:
    """The arguments of a function that defines its own gradient.

    Floating-point numbers, which have gradients, vary over all axes over which any
    argument varies; others are returned as they are.
    """
    axes = varying_axes(trees)

    def cast(x):
        return _cast(x, axes) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(cast, trees) if axes else trees


def vary_like(tree: Any, *others: Any) -> Any:
    """The first state of a loop that reads the other arrays in its steps."""
    axes = varying_axes(tree, others)
    return jax.tree.map(lambda x: _cast(x, axes), tree) if axes else tree


def _cast(x, axes):
    missing = tuple(sorted(axes - varying_axes(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x
