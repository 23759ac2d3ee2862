"""Parameters kept in bfloat16: updated in float32, and rounded at random.

bfloat16 has 8 significant bits: rounded to the nearest number, an update of less than
1/512 of a parameter is lost, in every step. Rounded up with a probability equal to the
part that is cut off, the sum of many small updates is right on average. The moments of
Adam and averaged parameters are float32.

Reference:
    Zamirai et al. 2021, Revisiting bfloat16 training. https://arxiv.org/abs/2010.06192
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

_CUT = 16  # bits of a float32 number that bfloat16 does not have


def to_float32(tree: Any) -> Any:
    """A tree with bfloat16 leaves as float32; others stay as they are."""
    return jax.tree.map(
        lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree
    )


def as_averaged(params: Any) -> Any:
    """Shapes and types of averaged parameters, from those of the parameters."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape,
            jnp.float32 if x.dtype == jnp.bfloat16 else x.dtype,
            sharding=x.sharding,
        ),
        params,
    )


def cast_like(tree: Any, like: Any) -> Any:
    """A tree whose leaves have the types of those of another one."""
    return jax.tree.map(
        lambda x, other: x if x.dtype == other.dtype else x.astype(other.dtype),
        tree,
        like,
    )


def in_float32(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimiser whose state and updates are float32 for bfloat16 parameters."""

    def update(updates, state, params=None):
        return tx.update(to_float32(updates), state, to_float32(params))

    def init(params):
        return tx.init(to_float32(params))

    return optax.GradientTransformation(init, update)


def apply_updates(params: Any, updates: Any, key: jax.Array) -> Any:
    """Parameters after a step, in their types.

    Args:
        params: before it.
        updates: to add, float32 for bfloat16 parameters.
        key: decides how sums are rounded to bfloat16; nothing is drawn for others.
    """
    leaves, structure = jax.tree.flatten(params)
    added = structure.flatten_up_to(updates)
    new = []
    for number, (old, more) in enumerate(zip(leaves, added, strict=True)):
        if old.dtype == jnp.bfloat16:
            total = old.astype(jnp.float32) + more
            new.append(round_at_random(total, jax.random.fold_in(key, number)))
        else:
            new.append(jnp.asarray(old + more).astype(old.dtype))
    return jax.tree.unflatten(structure, new)


def round_at_random(x: jax.Array, key: jax.Array) -> jax.Array:
    """float32 numbers as bfloat16, rounded up or down; the mean is the number itself.

    Args:
        x: of any shape.
        key: of the random numbers.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    kept = ((bits + noise) >> _CUT).astype(jnp.uint16)
    rounded = jax.lax.bitcast_convert_type(kept, jnp.bfloat16)
    return jnp.where(jnp.isfinite(x), rounded, x.astype(jnp.bfloat16))
