"""A scaled loss: float16 cannot hold gradients below 6e-8, nor numbers above 65504.

The loss is multiplied by a scale, and the gradient divided by it in float32. A step
whose gradient overflows changes nothing but the scale, which is halved; it is doubled
after many steps without overflow. All scales are powers of two times the first one, so
that scaling by a power of two rounds nothing.

Reference:
    Micikevicius et al. 2018, Mixed precision training, section 3.2.
    https://arxiv.org/abs/1710.03740
"""

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

LEAST, MOST = 1.0, 2.0**24
FIRST, WINDOW = 2.0**15, 2000  # scale, and steps after which it is doubled
_JOINED = 32  # leaves at most, so that the compiler's functions stay small


@struct.dataclass
class LossScale:
    """The scale of the next step.

    Attributes:
        scale: float32 `()`, what the loss is multiplied by.
        clean_steps: int32 `()`, steps without overflow since the scale has changed.
        skipped: int32 `()`, steps that overflowed, of the whole training.
    """

    scale: jax.Array
    clean_steps: jax.Array
    skipped: jax.Array


def first(scale: float) -> LossScale:
    """Before the first step."""
    nothing = jnp.zeros((), jnp.int32)
    return LossScale(jnp.float32(scale), nothing, jnp.copy(nothing))


def following(now: LossScale, is_finite: jax.Array, window: int) -> LossScale:
    """After a step.

    Args:
        now: the scale of the step.
        is_finite: bool `()`, whether its gradient was.
        window: steps without overflow after which the scale is doubled.
    """
    clean_steps = jnp.where(is_finite, now.clean_steps + 1, 0)
    grows = clean_steps >= window
    larger = jnp.where(grows, jnp.minimum(2 * now.scale, MOST), now.scale)
    smaller = jnp.maximum(now.scale / 2, LEAST)
    return LossScale(
        scale=jnp.where(is_finite, larger, smaller),
        clean_steps=jnp.where(grows, 0, clean_steps),
        skipped=now.skipped + jnp.where(is_finite, 0, 1),
    )


def cannot_shrink(now: LossScale) -> jax.Array:
    """Whether an overflow has another cause than the scale; bool `()`."""
    return now.scale <= LEAST


def all_finite(tree: Any) -> jax.Array:
    """Whether all numbers of a tree are finite; bool `()`.

    Leaves of one shape are joined first: with a reduction for each of 2,000 leaves the
    training step on N-body MNIST compiles in 66 instead of 42 s (two CPU cores).
    """
    alike = collections.defaultdict(list)
    for x in jax.tree.leaves(tree):
        alike[jnp.shape(x)].append(jnp.isfinite(x))
    found = [
        functools.reduce(jnp.logical_and, same[start : start + _JOINED]).all()
        for same in alike.values()
        for start in range(0, len(same), _JOINED)
    ]
    return functools.reduce(jnp.logical_and, found, jnp.array(True))


def where(is_finite: jax.Array, new: Any, old: Any) -> Any:
    """What a step made of a tree, or the tree as it was."""
    return jax.tree.map(lambda a, b: jnp.where(is_finite, a, b), new, old)
