"""Group norm of planes and the leaky ReLU after it in C++, with the gradient.

A plane is read twice for the result and three times for the gradient, and nothing but
the planes is kept. The functions are in group_norm.cc.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from earthformer_jax.checks import check_array
from earthformer_jax.ops import norm as plain
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.tuned.native.calls import (
    LANES,
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
    for name, array in dict(x=x, scale=scale, offset=offset).items():
        check_array(name, array, "...", kind=jnp.float32)
    plain.check_groups(x, scale, offset, groups)
    call = _Call(groups, epsilon, slope)

    def own(weights, x):
        return (_group_norm(call, vary_like((x, *weights)), ()),)

    shared = shared_by_examples(own, axes=(0,), out_axes=(0,))
    return shared((scale, offset), x)[0]


@dataclasses.dataclass(frozen=True)
class _Call:
    """What a call knows besides its arrays, as group_norm.cc reads it."""

    groups: int
    epsilon: float
    slope: float

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(
            groups=self.groups, epsilon=float(self.epsilon), slope=float(self.slope)
        )


def _value(call, arrays, rest):
    x = arrays[0]
    return run("group_norm", call.attributes, arrays, like(x, x.shape))


def _gradients(call, arrays, rest, dy):
    """Of the arrays."""
    results = [like(x, x.shape) for x in arrays]
    return tuple(run("group_norm_gradient", call.attributes, [*arrays, dy], results))


def _in_jax(call, arrays, rest):
    """As `_value`."""
    return plain.group_norm(*arrays, **dataclasses.asdict(call))


_group_norm = differentiable(_value, _gradients, _in_jax)
