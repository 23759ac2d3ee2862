"""Fields that are too large for one device: split along their height or width.

A program is written as if there were one device. Where its arrays lie on a mesh with an
axis "space" (`jax.sharding.Mesh`, `AxisType.Auto`), the compiler divides the fields
`[b, t, h, w, c]` among the devices of that axis, along the height, or along the width
if the number of devices does not divide the height. It follows a split axis through
most operations, but not when an axis that is not split is merged in front of it: rows
`(t h w)` of a field whose height is split lie on no device in one piece, and every
device would be sent the whole field. Functions that merge axes ask here whether fields
are split, which is known while a program is traced, and leave the axes apart then.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

AXIS = "space"
_ANY = jax.P.UNCONSTRAINED


def _mesh(x: Any):
    return jax.typeof(x).sharding.mesh


def _divided(x: Any) -> dict[str, int]:
    """Sizes of the axes of devices among which the compiler divides an array."""
    mesh = _mesh(x)
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {k: mesh.shape[k] for k, kind in kinds if kind == jax.sharding.AxisType.Auto}


def parts(*arrays: Any) -> int:
    """Into how many parts fields are split on the mesh of these arrays; 1: not at all.

    Inside `jax.shard_map` over that axis every array is a part, and is split no more.
    """
    return max(_divided(x).get(AXIS, 1) for x in arrays)


def shares(*arrays: Any) -> int:
    """The number of devices that may share the examples of these arrays; 1: just one.

    An axis in front of that of the examples is not to be merged with it where they are
    shared, and no loop is to run over it: every device would be sent all examples.
    """
    sizes = (_divided(x) | {AXIS: 1} for x in arrays)
    return max(math.prod(of_axes.values()) for of_axes in sizes)


def devices_of_examples(*arrays: Any) -> tuple[Any, tuple[str, ...]]:
    """The mesh that arrays lie on, and the names of the axes of their examples.

    That is the mesh of the first one that any axis of devices divides.
    """
    of_any = next(x for x in arrays if _divided(x))
    sizes = _divided(of_any) | {AXIS: 1}
    return _mesh(of_any), tuple(name for name, size in sizes.items() if size > 1)


def copies(parameter: jax.Array, x: jax.Array) -> jax.Array | None:
    """One copy of a parameter for each share of the examples of `x` `[b, ...]`.

    The gradient of a parameter is a sum over all examples, which the compiler exchanges
    among the devices as soon as it can. Where an array that is computed from the
    parameter is much larger, compute it from these copies instead: then each device
    sums what its own examples give, down to the parameter, and that is exchanged.

    Returns:
        `[shares, ...]`, each copy on the devices of its share; None where examples are
        not shared, or not equally, or fields are split.
    """
    count = shares(x)
    if count == 1 or x.shape[0] % count or parts(x) > 1:
        return None
    return _copies(parameter, x)


# Outside a program the parameter may still lie on one device, and the mesh of the type
# of `x` names none: as part of a program with `x`, it goes to the devices of `x`.
@functools.partial(jax.jit, inline=True, keep_unused=True)
def _copies(parameter: jax.Array, x: jax.Array) -> jax.Array:
    copied = jnp.broadcast_to(parameter, (shares(x), *parameter.shape))
    sharding = jax.NamedSharding(_mesh(x), jax.P(tuple(_divided(x))))
    return jax.lax.with_sharding_constraint(copied, sharding)


def of_examples(copied: jax.Array, examples: int) -> jax.Array:
    """What was computed of `copies`, `[shares, ...]`, for each example: `[b, ...]`."""
    if len(copied) == 1:
        return jnp.broadcast_to(copied, (examples, *copied.shape[1:]))
    return jnp.repeat(copied, examples // len(copied), axis=0)


def split_along(x: jax.Array, axis: int, *, uneven: bool = False) -> jax.Array:
    """The array, with `axis` split among the devices of "space".

    Unchanged where fields are not split, or the devices do not divide the axis: then
    the compiler decides. It also decides about all other axes.

    Args:
        x: any array.
        axis: to be split.
        uneven: also split an axis that the devices do not divide, but that has
            something for each of them; the last ones then have less.
    """
    count, size = parts(x), x.shape[axis]
    if count == 1 or size < count or (size % count and not uneven):
        return x
    spec: list[Any] = [_ANY] * x.ndim
    spec[axis] = AXIS
    sharding = jax.NamedSharding(_mesh(x), jax.P(*spec))
    return jax.lax.with_sharding_constraint(x, sharding)


def split_field(x: jax.Array, height: int | None = None) -> jax.Array:
    """A field `[b, t, h, w, c]`, split along its height, or else its width.

    Args:
        x: the field.
        height: of the field of another size that x is made of, or that is made of x.
            Both are split along the same axis then: the compiler would gather one on
            every device if the axes differed.
    """
    height = x.shape[2] if height is None else height
    return split_along(x, 3 if height % parts(x) else 2)


def split_alike(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays to be multiplied and summed over all positions, split in the same way.

    Where one field is split along its height and the other along its width, and the
    devices share the examples as well, XLA's partitioner gives a wrong sum. Arrays that
    are not fields with five axes are returned as they are.
    """
    return tuple(split_field(x) if x.ndim == 5 else x for x in arrays)
