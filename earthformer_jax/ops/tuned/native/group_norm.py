"""Group norm of planes and the leaky ReLU after it in C++, with the gradient.

A plane is read twice for the result and three times for the gradient, and nothing but
the planes is kept. The functions are in group_norm.cc.
"""

import dataclasses

import jax
import jax.numpy as jnp

from earthformer_jax.ops import norm as plain
from earthformer_jax.ops.tuned.native.calls import (
    LANES,
    by_examples,
    differentiable,
    like,
    run,
    sizes_are_known,
    suit,
)


def suits(x: jax.Array, scale: jax.Array, offset: jax.Array) -> bool:
    """Whether `group_norm` takes these arrays."""
    return (
        x.ndim == 4
        and sizes_are_known(x)
        and x.shape[-1] % LANES == 0
        and suit(x, scale, offset)
    )


def group_norm(
    x: jax.Array,
    scale: jax.Array,
    offset: jax.Array,
    *,
    groups: int,
    epsilon: float,
    slope: float = 1.0,
) -> jax.Array:
    """As `ops.norm.group_norm`, of arrays that `suits` takes.

    Args:
        x: float32 `[n, h, w, c]`.
        scale: float32 `[c]`.
        offset: float32 `[c]`.
        groups: how many; divides the channels.
        epsilon: added to the variance.
        slope: of the leaky ReLU where it is below zero; 1 for none.

    Returns:
        `[n, h, w, c]`.

    Raises:
        ValueError: for arrays of other shapes or types, or if the groups do not divide
            the channels.
    """
    plain.check_groups(x, scale, offset, groups, kind=jnp.float32)
    call = _Call(groups, float(epsilon), float(slope))
    return by_examples(_group_norm, call, x, scale, offset)


@dataclasses.dataclass(frozen=True)
class _Call:
    """What a call knows besides its arrays, as group_norm.cc reads it."""

    groups: int
    epsilon: float
    slope: float


def _value(call, arrays, rest):
    x = arrays[0]
    return run("group_norm", dataclasses.asdict(call), arrays, like(x, x.shape))


def _gradients(call, arrays, rest, dy):
    """Of the arrays."""
    options, types = dataclasses.asdict(call), [like(x, x.shape) for x in arrays]
    return tuple(run("group_norm_gradient", options, [*arrays, dy], types))


def _in_jax(call, arrays, rest):
    """As `_value`."""
    return plain.group_norm(*arrays, **dataclasses.asdict(call))


_group_norm = differentiable(_value, _gradients, _in_jax)
