"""A layer of cuboid self-attention in C++, with its gradient.

A few cuboids at a time go through layer norm, projections, attention and the last
projection without leaving the core's cache; nothing is copied to cut the field into
cuboids and to merge them again, and nothing but the field is kept for the gradient. The
same elements are dropped as in JAX. The functions are in self_attention.cc.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array
from earthformer_jax.ops import cuboid, dropout
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.norm import layer_norm
from earthformer_jax.ops.resample import Grid
from earthformer_jax.ops.tuned.hashed_key import hashed_bits, key_words, positions
from earthformer_jax.ops.tuned.native import attention
from earthformer_jax.ops.tuned.native.calls import (
    LANES,
    differentiable,
    given,
    like,
    run,
    sizes_are_known,
    suit,
)


class Weights(NamedTuple):
    """Parameters of the layer, float32.

    Attributes:
        scale: `[c]`, of the norm.
        offset: `[c]`, of the norm.
        qkv: `[c, 3 c]`, to queries, keys and values.
        proj: `[c, c]`, of the result.
        proj_bias: `[c]`.
        bias: `[a, q, q]` added to the scores, or None.
    """

    scale: jax.Array
    offset: jax.Array
    qkv: jax.Array
    proj: jax.Array
    proj_bias: jax.Array
    bias: jax.Array | None


AXES = ("c", "c", "c k", "c c", "c")  # of the weights but for the bias


@dataclasses.dataclass(frozen=True)
class Options:
    """What a layer knows besides its arrays.

    Attributes:
        spec: the cut; it does not pad the grid.
        heads: attention heads.
        scale: factor on the scores.
        epsilon: of the norm, added to the variance.
        rate: share of the attention weights that are dropped.
        out_rate: share of the update that is dropped.
    """

    spec: CuboidSpec
    heads: int
    scale: float
    epsilon: float
    rate: float
    out_rate: float


def suits(x: jax.Array, weights: Weights, options: Options) -> bool:
    """Whether `self_attention` takes these arguments."""
    if not sizes_are_known(x):
        return False
    grid, spec = x.shape[1:4], options.spec
    return (
        x.shape[-1] % LANES == 0
        and x.shape[-1] % options.heads == 0
        and weights.qkv.shape[1] == 3 * x.shape[-1]
        and spec.volume**2 <= attention.MOST_SCORES
        and tuple(spec.padded(grid)) == tuple(grid)
        and max(options.rate, options.out_rate) < 1
        and suit(x, *weights)
    )


def self_attention(
    x: jax.Array,
    weights: Weights,
    options: Options,
    *,
    mask: np.ndarray | None = None,
    key: jax.Array | None = None,
    out_key: jax.Array | None = None,
) -> jax.Array:
    """The update of a field by attention inside its cuboids, without the residual.

    Args:
        x: `[b, t, h, w, c]`.
        weights: of the layer.
        options: of the layer.
        mask: bool `[n, q, q]`, True where attention is allowed, or None; every position
            sees some other, or itself.
        key: for dropout of attention weights, or None.
        out_key: for dropout of the update, or None.

    Returns:
        `[b, t, h, w, c]`.

    Raises:
        ValueError: for arrays of other shapes or types.

    Reference:
        Gao et al. 2022, Earthformer, equations 2 to 5.
    """
    _check(x, weights, options, mask)
    grid, c = x.shape[1:4], x.shape[-1]
    rows = x.reshape(len(x), math.prod(grid), c)
    position = _positions(grid, options.spec)
    key = key if options.rate else None
    out_key = out_key if options.out_rate else None
    call = _Call(
        options=dataclasses.replace(
            options,
            rate=0.0 if key is None else options.rate,
            out_rate=0.0 if out_key is None else options.out_rate,
        ),
        numbers=len(x) * options.heads * position.size * position.shape[1],
        out_numbers=rows.size,
    )
    rest = dict(
        position=jnp.asarray(position),
        mask=None if mask is None or mask.all() else jnp.asarray(mask),
        cuboid=attention.order_of(len(position), options.spec.reordered(grid)),
        words=None if key is None else key_words(key),
        out_words=None if out_key is None else key_words(out_key),
    )
    biases = None if weights.bias is None else weights.bias[None]

    def own(shared, rows, example):
        weights, rest = shared
        arrays, rest = vary_like(((rows, weights), rest | dict(example=example)))
        return (_self_attention(call, arrays, rest),)

    of_examples = shared_by_examples(own, axes=(0, 0), out_axes=(0,))
    shared = weights._replace(bias=biases), rest
    example = jnp.arange(len(x), dtype=jnp.uint32)
    return of_examples(shared, rows, example)[0].reshape(x.shape)


def _check(x, weights, options, mask):
    sizes = check_array("x", x, "b t h w c", kind=jnp.float32)
    sizes |= dict(k=3 * sizes["c"], a=options.heads, q=options.spec.volume)
    for name, axes in zip(Weights._fields[:-1], AXES, strict=True):
        check_array(name, getattr(weights, name), axes, sizes, kind=jnp.float32)
    if weights.bias is not None:
        heads = "1" if weights.bias.shape[:1] == (1,) else "a"
        check_array("bias", weights.bias, f"{heads} q q", sizes, kind=jnp.float32)
    if mask is not None:
        sizes["n"] = math.prod(options.spec.counts(x.shape[1:4]))
        check_array("mask", mask, "n q q", sizes, kind=bool)


@functools.lru_cache(maxsize=256)
def _positions(grid: Grid, spec: CuboidSpec) -> np.ndarray:
    """int32 `[n, q]`: where each position of each cuboid lies in the flat field."""
    position = np.arange(math.prod(grid), dtype=np.int32).reshape(1, *grid, 1)
    position = np.roll(position, [-s for s in spec.shift], axis=(1, 2, 3))
    position = cuboid.cut(position, spec.size, spec.strategy, spec.order)[0, ..., 0]
    position = np.ascontiguousarray(position)
    position.setflags(write=False)
    return position


@dataclasses.dataclass(frozen=True)
class _Call:
    """The options, and how many random numbers a call draws for all examples."""

    options: Options
    numbers: int
    out_numbers: int

    @property
    def attributes(self) -> dict[str, Any]:
        """As self_attention.cc reads them."""
        options = self.options
        return dict(
            heads=options.heads,
            scale=float(options.scale),
            epsilon=options.epsilon,
            threshold=int(dropout.threshold(options.rate)),
            out_threshold=int(dropout.threshold(options.out_rate)),
            factor=1.0 / (1.0 - options.rate),
            out_factor=1.0 / (1.0 - options.out_rate),
            numbers=self.numbers,
            out_numbers=self.out_numbers,
        )


def _value(call, arrays, rest):
    """`arrays` have gradients, `rest` are integers."""
    x = arrays[0]
    given = _given(arrays, rest)
    return run("self_attention", call.attributes, given, like(x, x.shape))


def _gradients(call, arrays, rest, dout):
    """Of the arrays."""
    x, weights = arrays
    results = [like(x, (0,) if y is None else y.shape) for y in (x, *weights)]
    given = [*_given(arrays, rest), dout]
    dx, *found = run("self_attention_gradient", call.attributes, given, results)
    if weights.bias is None:
        found = [*found[:-1], None]
    return dx, weights._make(found)


def _in_jax(call, arrays, rest):
    """As `_value`."""
    (x, own), options = arrays, call.options
    c, position = x.shape[-1], rest["position"]
    normed = layer_norm(x, own.scale, own.offset, options.epsilon)
    inside = attention.Call(
        heads=options.heads,
        width=c // options.heads,
        columns=(0, c, 2 * c),
        scale=options.scale,
        rate=options.rate,
        numbers=call.numbers,
    )
    numbers = tuple(rest[name] for name in ("mask", "example", "cuboid", "words"))
    near = [normed[:, position] @ own.qkv]
    out = attention.in_jax(inside, (near, own.bias, [None] * 3), numbers)
    out = out @ own.proj + own.proj_bias
    if rest["out_words"] is not None:
        within = positions(out.shape[2:])
        place = attention.places(rest["example"], rest["cuboid"], within)
        bits = hashed_bits(place, rest["out_words"])
        out = dropout.drop(out, options.out_rate, bits)
    return jnp.zeros_like(x).at[:, position].set(out)


def _given(arrays, rest):
    """The arrays in the order of self_attention.cc; without elements if None."""
    x, weights = arrays
    words = [given(rest[name], jnp.uint32) for name in ("words", "out_words")]
    return vary_like(
        [x, rest["position"], *weights[:-1], given(weights.bias)]
        + [given(rest["mask"], bool), rest["example"], rest["cuboid"], *words]
    )


_self_attention = differentiable(_value, _gradients, _in_jax)
