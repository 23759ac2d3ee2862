"""Softmax attention of many small cuboids in C++, with its gradient.

Each head of each cuboid goes from the rows of its projections to the rows of the result
without leaving the core's cache; nothing is copied to bring heads before positions.
Dropout draws the numbers of `tuned.hashed_key`, so the same weights are dropped as in
JAX. The functions are in attention.cc.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops import attention as plain
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.dropout import Reordered, drop, threshold
from earthformer_jax.ops.tuned.hashed_key import hashed_bits, key_words, positions
from earthformer_jax.ops.tuned.native.calls import (
    differentiable,
    given,
    like,
    run,
    sizes_are_known,
    suit,
)

# Of one head and cuboid. Larger ones leave the cache: with 1,024 queries and keys the
# forward pass takes 134 ms, XLA's 160; with 2,048 it takes 473, XLA's 336 (two cores).
MOST_SCORES = 2**20


def suits(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: Any = None,
    global_query: jax.Array | None = None,
    global_key: jax.Array | None = None,
    global_value: jax.Array | None = None,
    dropout_rate: float = 0.0,
    reordered: Reordered | None = None,
    **others: Any,
) -> bool:
    """Whether `attend` takes these arguments of `ops.attention.attend`."""
    del others
    near = query, key, value
    far = global_query, global_key, global_value, bias
    if any(getattr(x, "ndim", None) != 5 for x in near):
        return False
    if not sizes_are_known(*near, *(x for x in far if x is not None)):
        return False
    keys = key.shape[2] + (0 if global_key is None else global_key.shape[1])
    widths = {x.shape[-1] for x in (*near, global_value) if x is not None}
    return (
        len(widths) == 1
        and 0 < query.shape[2] * keys <= MOST_SCORES
        and (mask is None or isinstance(mask, np.ndarray))
        and (reordered is None or reordered.axis == 1)
        and 0.0 <= dropout_rate < 1.0
        and suit(*near, *far)
    )


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    scale: float,
    bias: jax.Array | None = None,
    mask: np.ndarray | None = None,
    global_query: jax.Array | None = None,
    global_key: jax.Array | None = None,
    global_value: jax.Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    reordered: Reordered | None = None,
) -> jax.Array:
    """As `ops.attention.attend`, of arguments that `suits` takes."""
    far = global_query, global_key, global_value
    plain.check_arguments(query, key, value, scale, bias, mask, *far)
    b, n, q, a, d = query.shape
    g = 0 if global_key is None else global_key.shape[1]
    dropout_key = plain.checked_key(dropout_rate, dropout_key)
    # Every query sees the global vectors.
    mask, some = (mask, None) if g else plain.opened(mask)
    near, columns = _packed(query, key, value)
    call = Call(
        heads=a,
        width=d,
        columns=columns,
        scale=float(scale),
        rate=float(dropout_rate) if dropout_rate else 0.0,
        numbers=b * n * a * q * (key.shape[2] + g),
    )
    far = [None if x is None else x.reshape(*x.shape[:-2], a * d) for x in far]
    of_share = bias is not None and bias.ndim == 4
    weights = dict(
        bias=None if bias is None or of_share else bias[None],
        mask=None if mask is None or mask.all() else jnp.asarray(mask),
        cuboid=order_of(n, reordered),
        words=None if dropout_key is None else key_words(dropout_key),
    )
    examples = dict(near=near, far=far, bias=bias if of_share else None)

    def own(weights, examples, example):
        rest = weights["mask"], example, weights["cuboid"], weights["words"]
        biases = examples["bias"] if of_share else weights["bias"]
        arrays = examples["near"], biases, examples["far"]
        return (_attend(call, *vary_like((arrays, rest))),)

    shared = shared_by_examples(own, axes=(0, 0), out_axes=(0,))
    (out,) = shared(weights, examples, jnp.arange(b, dtype=jnp.uint32))
    out = out.reshape(b, n, q, a, d)
    return out if some is None else jnp.where(some[:, :, None, None], out, 0)


@dataclasses.dataclass(frozen=True)
class Call:
    """What a call knows besides its arrays.

    Attributes:
        heads: their number.
        width: of each head.
        columns: where the first heads of query, key and value begin in their arrays.
        scale: factor on the scores.
        rate: share of the weights that are dropped.
        numbers: how many random numbers the call draws for all examples.
    """

    heads: int
    width: int
    columns: tuple[int, int, int]
    scale: float
    rate: float
    numbers: int

    @property
    def attributes(self) -> dict[str, Any]:
        """As attention.cc reads them."""
        integers = dict(
            heads=self.heads,
            width=self.width,
            query_column=self.columns[0],
            key_column=self.columns[1],
            value_column=self.columns[2],
            threshold=int(threshold(self.rate)),
            numbers=self.numbers,
        )
        floats = dict(scale=self.scale, factor=1.0 / (1.0 - self.rate))
        return integers | floats


def _packed(query, key, value):
    """Arrays `[b, n, q, c]` of as many channels as possible, and where each begins.

    What was projected together is one array again, and the compiler finds that it need
    not be taken apart.
    """
    query, key, value = (x.reshape(*x.shape[:3], -1) for x in (query, key, value))
    c = query.shape[-1]
    if query.shape == key.shape:
        return [jnp.concatenate([query, key, value], axis=-1)], (0, c, 2 * c)
    return [query, jnp.concatenate([key, value], axis=-1)], (0, 0, c)


def order_of(cuboids: int, reordered: Reordered | None) -> jax.Array:
    """uint32 `[n]`: the place of each cuboid in the order of random numbers."""
    order = jnp.arange(cuboids, dtype=jnp.uint32)
    if reordered is None:
        return order
    return reordered.merge(order.reshape(1, *reordered.sizes))[0]


def _value(call, arrays, rest):
    """`[b, n, q, c]`; `arrays` have gradients, `rest` are integers."""
    (near, _, _), given = arrays, _given(arrays, rest)
    shape = (*near[0].shape[:3], call.heads * call.width)
    return run("attention", call.attributes, given, like(near[0], shape))


def _gradients(call, arrays, rest, dout):
    """Of the arrays."""
    near, bias, far = arrays
    given = _given(arrays, rest)
    empty = like(near[0], (0,))
    results = [
        *(like(x, x.shape) for x in near),
        *[empty] * (3 - len(near)),
        *(empty if x is None else like(x, x.shape) for x in (bias, *far)),
    ]
    found = run("attention_gradient", call.attributes, [*given, dout], results)
    of_bias, *of_far = (
        None if x is None else y for x, y in zip((bias, *far), found[3:], strict=True)
    )
    return list(found[: len(near)]), of_bias, of_far


def in_jax(call, arrays, rest):
    """As `_value`."""
    (near, bias, far), (mask, example, cuboid, words) = arrays, rest
    c = call.heads * call.width
    taken = zip((near[0], near[-1], near[-1]), call.columns, strict=True)
    query, key, value = (_heads(call, x[..., n : n + c]) for x, n in taken)
    far_query, far_key, far_value = (
        None if x is None else _heads(call, x) for x in far
    )
    scores = call.scale * jnp.einsum("bnqad,bnsad->bnaqs", query, key)
    if bias is not None:
        scores = scores + jnp.repeat(bias, len(query) // len(bias), axis=0)[:, None]
    if mask is not None:
        scores = jnp.where(mask[:, None], scores, np.finfo(np.float32).min)
    if far_key is not None:
        far_query = query if far_query is None else far_query
        more = call.scale * jnp.einsum("bnqad,bgad->bnaqg", far_query, far_key)
        scores = jnp.concatenate([scores, more], axis=-1)
    weights = jax.nn.softmax(scores)
    if words is not None:
        place = places(example, cuboid, positions(weights.shape[2:]))
        weights = drop(weights, call.rate, hashed_bits(place, words))
    out = jnp.einsum("bnaqs,bnsad->bnqad", weights[..., : key.shape[2]], value)
    if far_key is not None:
        of_far = weights[..., key.shape[2] :]
        out = out + jnp.einsum("bnaqg,bgad->bnqad", of_far, far_value)
    return out.reshape(*out.shape[:3], c)


def places(example: jax.Array, cuboid: jax.Array, within: jax.Array) -> jax.Array:
    """The place of each random number of a call among all of them.

    Args:
        example: uint32 `[b]`.
        cuboid: uint32 `[n]`, of `order_of`.
        within: uint32, those of one cuboid.

    Returns:
        uint32 `[b, n, ...]`, with the axes of `within` at the end.
    """
    first = example[:, None] * np.uint32(len(cuboid)) + cuboid
    first = first.reshape(*first.shape, *(1,) * within.ndim)
    return first * np.uint32(within.size) + within


def _heads(call, x):
    return x.reshape(*x.shape[:-1], call.heads, call.width)


def _given(arrays, rest):
    """The arrays in the order of attention.cc; what there is not has no elements."""
    (near, bias, far), (mask, *numbers) = arrays, rest
    query, key, value = near[0], near[-1], near[-1]
    numbers = [given(x, jnp.uint32) for x in numbers]
    return vary_like(
        [query, key, value, given(bias), given(mask, bool), *map(given, far), *numbers]
    )


_attend = differentiable(_value, _gradients, in_jax)
