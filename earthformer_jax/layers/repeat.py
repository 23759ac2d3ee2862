"""Identical blocks in sequence, compiled once.

Every block keeps its own parameters, under its own name. For a loop they are stacked,
which costs a copy of the parameters and of what the gradient keeps.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.ops.devices.varying import vary_like

State = Any
Blocks = tuple[Callable, ...]


def repeat(
    parent: nn.Module,
    groups: Sequence[Sequence[nn.Module]],
    step: Callable[[Blocks, State], State],
    state: State,
    *,
    scan: bool,
) -> State:
    """`state = step(blocks, state)` for each group of blocks.

    Args:
        parent: the module whose compact method made the blocks.
        groups: blocks of `parent`; those of different groups differ only in name.
        step: function of a group and the state that returns the next state, of the same
            shapes. In a loop it is given functions instead of blocks. The blocks may
            draw from the random stream "dropout" and have no variables but parameters.
        state: tree of arrays.
        scan: whether to use a loop. There is none while parameters are created or
            intermediate results collected.
    """
    collected = parent.is_mutable_collection("intermediates")
    if not scan or len(groups) < 2 or parent.is_initializing() or collected:
        return functools.reduce(lambda s, blocks: step(tuple(blocks), s), groups, state)
    pure = [block.clone(parent=None, name=None) for block in groups[0]]
    params = parent.variables["params"]
    stacked = [
        jax.tree.map(lambda *x: jnp.stack(x), *(params[block.name] for block in alike))
        for alike in zip(*groups, strict=True)
    ]
    keys = None
    if parent.has_rng("dropout"):
        keys = jax.random.split(parent.make_rng("dropout"), (len(groups), len(pure)))

    def body(state, numbered):
        params, keys = numbered
        blocks = []
        for i, block in enumerate(pure):
            rngs = None if keys is None else {"dropout": keys[i]}
            apply = functools.partial(block.apply, {"params": params[i]}, rngs=rngs)
            blocks.append(apply)
        return step(tuple(blocks), state), None

    return jax.lax.scan(body, vary_like(state), (stacked, keys))[0]
