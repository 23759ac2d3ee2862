"""Loops whose weights are shared by examples that lie on several devices.

In a loop over time every step adds to the gradient of the same weights. Where the
compiler divides the examples among devices, it exchanges what each step adds, so that
the devices wait for each other in every step. A loop that each device runs for its own
examples sums over time first, and exchanges the sum once.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from earthformer_jax.ops.devices import split
from earthformer_jax.ops.devices.varying import vary_like


def shared_by_examples(
    function: Callable[..., tuple],
    axes: Sequence[int | None],
    out_axes: Sequence[int | None],
) -> Callable[..., tuple]:
    """The function, which each device calls with the examples that it has.

    Values are those of one call for all examples. There is one call for all where the
    devices do not have equal shares of the examples, and where fields are split.

    Args:
        function: of weights, a tree of arrays, and of more trees; it returns as many
            trees as there are `out_axes`. No example has to do with another in it, and
            it draws no random numbers.
        axes: of the examples in the arrays of each tree but the weights; None for a
            tree that is the same for all examples and has no gradient.
        out_axes: of the examples in the arrays of each result; None for a result that
            is the same on all devices (`examples.mean`).
    """

    def call(weights: Any, *trees: Any) -> tuple:
        count = split.shares(*jax.tree.leaves(trees))
        alone = count == 1 or split.parts(*jax.tree.leaves(trees)) > 1
        if alone or _examples(trees, axes) % count:
            return function(weights, *trees)

        def own(weights, *trees):
            # Each device has a copy, so that gradients are summed once, in the end.
            return function(vary_like(weights, *trees), *trees)

        mesh, names = split.devices_of_examples(*jax.tree.leaves(trees))

        def specs(axes):
            return tuple(
                jax.P() if axis is None else jax.P(*[None] * axis, names)
                for axis in axes
            )

        mapped = jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(jax.P(), *specs(axes)),
            out_specs=specs(out_axes),
        )
        return mapped(weights, *trees)

    return call


def _examples(trees: Sequence, axes: Sequence[int | None]) -> int:
    """Number of the examples, all of which are in every array that has them."""
    return next(
        leaf.shape[axis]
        for tree, axis in zip(trees, axes, strict=True)
        for leaf in jax.tree.leaves(tree)
        if axis is not None
    )
