"""The feed-forward layer of a transformer block in C++, with its gradient.

Blocks of rows go through norm, both products, GELU and dropout without leaving the
core's cache, and nothing but the input is kept for the gradient. The same elements are
dropped as in JAX. The functions are in feed_forward.cc.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from earthformer_jax.checks import check_array
from earthformer_jax.ops import dropout
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.gelu import gelu
from earthformer_jax.ops.norm import layer_norm
from earthformer_jax.ops.tuned.hashed_key import hashed_bits, key_words, positions
from earthformer_jax.ops.tuned.native.calls import (
    LANES,
    differentiable,
    given,
    like,
    run,
    suit,
)


class Weights(NamedTuple):
    """Parameters of the layer, float32.

    Attributes:
        scale: `[c]`, of the norm.
        offset: `[c]`, of the norm.
        widen: `[c, h]`.
        widen_bias: `[h]`.
        narrow: `[h, c]`.
        narrow_bias: `[c]`.
    """

    scale: jax.Array
    offset: jax.Array
    widen: jax.Array
    widen_bias: jax.Array
    narrow: jax.Array
    narrow_bias: jax.Array


AXES = ("c", "c", "c h", "h", "h c", "c")  # of the weights


def suits(x: jax.Array, weights: Weights) -> bool:
    """Whether `feed_forward` takes these arrays."""
    whole = all(size % LANES == 0 for size in weights.widen.shape)
    return whole and x.ndim > 2 and suit(x, *weights)


def feed_forward(
    x: jax.Array,
    weights: Weights,
    *,
    epsilon: float,
    rate: float = 0.0,
    keys: tuple[jax.Array | None, jax.Array | None] = (None, None),
) -> jax.Array:
    """`x + drop(drop(gelu(norm(x) widen + widen_bias)) narrow + narrow_bias)`.

    Args:
        x: `[b, ..., c]`.
        weights: of the layer.
        epsilon: of the norm, added to the variance.
        rate: share of the elements that are dropped, less than 1.
        keys: for what is dropped after GELU, and in the end; None drops nothing.

    Returns:
        `[b, ..., c]`.

    Raises:
        ValueError: for arrays of other shapes or types.
    """
    sizes = check_array("widen", weights.widen, "c h", kind=jnp.float32)
    for name, axes in zip(Weights._fields, AXES, strict=True):
        check_array(name, getattr(weights, name), axes, sizes, kind=jnp.float32)
    check_array("x", x, "... c", sizes, kind=jnp.float32)
    shape, (c, h) = x.shape, weights.widen.shape
    rows = x.reshape(len(x), -1, c)
    elements = math.prod(rows.shape[:2])
    call = _Call(epsilon, rate, elements * h, elements * c)
    words = [None if key is None or not rate else key_words(key) for key in keys]

    def own(shared, rows, example):
        weights, words = shared
        return (_feed_forward(call, *vary_like(((rows, weights), (example, *words)))),)

    of_examples = shared_by_examples(own, axes=(0, 0), out_axes=(0,))
    example = jnp.arange(len(x), dtype=jnp.uint32)
    return of_examples((weights, words), rows, example)[0].reshape(shape)


@dataclasses.dataclass(frozen=True)
class _Call:
    """What a call knows besides its arrays.

    Attributes:
        epsilon: of the norm.
        rate: share of the elements that are dropped.
        hidden_numbers: how many random numbers are drawn for the hidden layer.
        numbers: how many are drawn for the result.
    """

    epsilon: float
    rate: float
    hidden_numbers: int
    numbers: int

    @property
    def attributes(self) -> dict[str, Any]:
        """As feed_forward.cc reads them."""
        return dict(
            epsilon=self.epsilon,
            threshold=int(dropout.threshold(self.rate)),
            factor=1.0 / (1.0 - self.rate),
            hidden_numbers=self.hidden_numbers,
            numbers=self.numbers,
        )


def _value(call, arrays, rest):
    """`arrays` have gradients, `rest` are integers."""
    x = arrays[0]
    return run("feed_forward", call.attributes, _given(arrays, rest), like(x, x.shape))


def _gradients(call, arrays, rest, dout):
    """Of the arrays."""
    given = [*_given(arrays, rest), dout]
    results = [like(x, x.shape) for x in jax.tree.leaves(arrays)]
    found = run("feed_forward_gradient", call.attributes, given, results)
    return jax.tree.unflatten(jax.tree.structure(arrays), found)


def _in_jax(call, arrays, rest):
    """As `_value`."""
    (x, own), (example, hidden_words, words) = arrays, rest

    def drop(y, words):
        if words is None:
            return y
        within = positions(y.shape[1:])
        position = example[:, None, None] * jnp.uint32(within.size) + within
        return dropout.drop(y, call.rate, hashed_bits(position, words))

    up = gelu(
        layer_norm(x, own.scale, own.offset, call.epsilon) @ own.widen + own.widen_bias
    )
    return x + drop(drop(up, hidden_words) @ own.narrow + own.narrow_bias, words)


def _given(arrays, rest):
    """The arrays in the order of feed_forward.cc."""
    (x, weights), (example, *words) = arrays, rest
    return vary_like([x, *weights, example, *(given(y, jnp.uint32) for y in words)])


_feed_forward = differentiable(_value, _gradients, _in_jax)
