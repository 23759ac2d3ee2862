"""Softmax attention inside cuboids, with relative position bias and global vectors.

Argument conventions, the same in every public function here: queries are
`[b, n, q, a, d]` (example, cuboid, position, head, width), keys and values
`[b, n, s, a, d]`; global vectors have no cuboid axis, `[b, g, a, d]`. Logits and
softmax are float32.
"""

import functools
from collections.abc import Callable
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array, check_value
from earthformer_jax.ops.dense import widen
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.dropout import Reordered, dropout
from earthformer_jax.ops.library_attention import library_attention
from earthformer_jax.ops.resample import Grid
from earthformer_jax.settings import FINITE

Implementation = Callable[..., jax.Array]


def softmax_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: np.ndarray | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    reordered: Reordered | None = None,
) -> jax.Array:
    """Attention inside each cuboid, with heads before positions.

    Args:
        query: `[b, n, a, q, e]` (example, cuboid, head, position, width), scaled.
        key: `[b, n, a, s, e]`.
        value: `[b, n, a, s, d]`.
        bias: `[a, q, s]` added to the scores (a may be 1), `[p, a, q, s]` with one for
            each of p equal parts of the examples (`devices.split.copies`), or None.
        mask: bool `[n, q, s]`, True where attention is allowed, or None.
        dropout_rate: share of attention weights dropped.
        dropout_key: PRNG key; None drops nothing.
        reordered: cuboids that are not in raster order, for dropout.

    Returns:
        `[b, n, a, q, d]` in the type of `value`; zeros where nothing is allowed.
    """
    scores = jnp.einsum(
        "bnaqe,bnase->bnaqs", query, key, preferred_element_type=score_type(query)
    )
    if bias is not None:
        scores = scores + bias_of_examples(bias, query.shape[0])
    mask, some = opened(mask)
    weights = jax.nn.softmax(scores, where=None if mask is None else mask[:, None])
    # As in PyTorch, dropout acts on the normalised weights.
    weights = dropout(weights, dropout_rate, dropout_key, reordered)
    out = jnp.einsum("bnaqs,bnasd->bnaqd", weights.astype(value.dtype), value)
    return out if some is None else jnp.where(some[:, None, :, None], out, 0)


def bias_of_examples(bias: jax.Array, examples: int) -> jax.Array:
    """`[b, 1, a, q, s]` as scores have it, from `[p, a, q, s]` of p parts of examples.

    A bias `[a, q, s]` of all examples is returned as it is.
    """
    return bias if bias.ndim == 3 else split.of_examples(bias, examples)[:, None]


def opened(mask: Any) -> tuple[Any, Any]:
    """A mask in which every query may attend to some key, so that no softmax is empty.

    Args:
        mask: bool `[n, q, s]`, or None.

    Returns:
        The mask, where queries without any allowed key may attend to all keys; and
        bool `[n, q]`, False for those, whose result is to be zero. None if there are
        none.
    """
    if mask is None:
        return None, None
    some = mask.any(axis=-1)
    if isinstance(mask, np.ndarray) and some.all():
        return mask, None
    return mask | ~some[..., None], some


IMPLEMENTATIONS: dict[str, Implementation] = {
    "xla": softmax_attention,
    "library": library_attention,
    "cudnn": functools.partial(library_attention, implementation="cudnn"),
}


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    scale: float,
    bias: jax.Array | None = None,
    mask: np.ndarray | jax.Array | None = None,
    global_query: jax.Array | None = None,
    global_key: jax.Array | None = None,
    global_value: jax.Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    reordered: Reordered | None = None,
    implementation: str | Implementation = "xla",
) -> jax.Array:
    """Attention of each position to its cuboid and to the global vectors.

    Both kinds of keys share one softmax; global keys have no bias and are never
    masked. A position that may attend to nothing gets zeros.

    Args:
        query: `[b, n, q, a, d]`.
        key: `[b, n, s, a, d]`.
        value: `[b, n, s, a, d]`.
        scale: factor on the scores, usually d ** -0.5.
        bias: `[a, q, s]` added to the scores inside the cuboid, or None; "xla" also
            takes `[p, a, q, s]`, with one for each of p equal parts of the examples.
        mask: bool `[n, q, s]`, True where attention is allowed, or None.
        global_query: `[b, n, q, a, d]`, queries against the global keys if those have
            their own projections; None uses `query`.
        global_key: `[b, g, a, d]`, or None without global vectors.
        global_value: `[b, g, a, d]`.
        dropout_rate: share of attention weights dropped.
        dropout_key: PRNG key; needed when `dropout_rate` > 0.
        reordered: cuboids that are not in raster order, for dropout.
        implementation: a function with the arguments of `softmax_attention`, or its
            name in `IMPLEMENTATIONS`: "xla" (`softmax_attention`), "library" or "cudnn"
            (`library_attention`, without dropout).

    Returns:
        `[b, n, q, a, d]` in the type of `value`.

    Raises:
        ValueError: for an unknown implementation, for a dropout rate without a key,
            or if the implementation does not support the arguments.

    Reference:
        Gao et al. 2022, Earthformer, equations 4 and 7.
    """
    attention = implementation_of(implementation)
    far = global_query, global_key, global_value
    check_arguments(query, key, value, scale, bias, mask, *far)
    cuboids = key.shape[1]
    query, key, value = (_by_head(x) for x in (query * scale, key, value))
    if global_key is not None:
        far_key, far_value = (
            _in_every_cuboid(x, cuboids) for x in (global_key, global_value)
        )
        if global_query is not None:
            # Two kinds of queries, concatenated; each meets zeros in the other's keys.
            query = jnp.concatenate([query, _by_head(global_query * scale)], axis=-1)
            key = jnp.concatenate([key, jnp.zeros_like(key)], axis=-1)
            far_key = jnp.concatenate([jnp.zeros_like(far_key), far_key], axis=-1)
        key = jnp.concatenate([key, far_key], axis=-2)
        value = jnp.concatenate([value, far_value], axis=-2)
        more = ((0, 0), (0, 0), (0, global_key.shape[1]))
        if bias is not None:
            bias = jnp.pad(bias, ((0, 0),) * (bias.ndim - 3) + more)
        mask = None if mask is None else np.pad(mask, more, constant_values=True)
    dropout_key = checked_key(dropout_rate, dropout_key)
    extra = {}
    if reordered is not None and dropout_key is not None:
        extra = dict(reordered=reordered)
    out = attention(query, key, value, bias, mask, dropout_rate, dropout_key, **extra)
    return einops.rearrange(out, "b n a q d -> b n q a d")


def attend_in_place(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    cuboid: jax.Array,
    *,
    scale: float,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Attention of single positions, each to the keys of one cuboid.

    Args:
        query: `[b, r, a, d]`, of r positions.
        key: `[b, a, n, s, d]`, of all cuboids; heads come first, so that the products
            can use the arrays as they are stored.
        value: `[b, a, n, s, e]`.
        cuboid: integers `[r]`, the cuboid of each query.
        scale: factor on the scores.
        bias: `[a, r, s]` added to the scores, or None.
        mask: bool `[r, s]`, True where attention is allowed, or None; every query sees
            some key.

    Returns:
        `[b, r, a, e]` in the type of `value`.
    """
    check_value("scale", scale, FINITE)
    sizes = check_array("query", query, "b r a d", kind=jnp.floating)
    sizes = check_array("key", key, "b a n s d", sizes, kind=jnp.floating)
    sizes = check_array("value", value, "b a n s e", sizes, kind=jnp.floating)
    check_array("cuboid", cuboid, "r", sizes, kind=jnp.integer)
    key, value = (jnp.take(x, cuboid, axis=2) for x in (key, value))
    scores = jnp.einsum(
        "brad,barsd->bars",
        query * scale,
        key,
        preferred_element_type=score_type(query),
    )
    if bias is not None:
        check_array("bias", bias, "a r s", sizes)
        scores = scores + bias
    if mask is not None:
        check_array("mask", mask, "r s", sizes, kind=bool)
    weights = jax.nn.softmax(scores, where=mask).astype(value.dtype)
    return jnp.einsum("bars,barse->brae", weights, value)


def implementation_of(implementation: str | Implementation) -> Implementation:
    """Looks up a name in `IMPLEMENTATIONS`; functions are returned unchanged.

    Raises:
        ValueError: if the name is unknown.
    """
    if callable(implementation):
        return implementation
    if isinstance(implementation, str) and implementation in IMPLEMENTATIONS:
        return IMPLEMENTATIONS[implementation]
    known = f"use one of {', '.join(IMPLEMENTATIONS)}, or a function"
    if implementation == "auto":
        raise ValueError(
            "implementation='auto' no longer exists: measure the implementations on "
            f"your device (benchmarks/attention.py) and {known}"
        )
    raise ValueError(f"implementation={implementation!r} is unknown; {known}")


def check_arguments(
    query: Any,
    key: Any,
    value: Any,
    scale: Any,
    bias: Any,
    mask: Any,
    global_query: Any,
    global_key: Any,
    global_value: Any,
) -> None:
    """Refuses arguments of `attend` with other axes or types than it says.

    Raises:
        ValueError: naming the argument, and what was expected.
    """
    check_value("scale", scale, FINITE)
    sizes = _check_cuboids(query, key, value)
    _check_extra(bias, mask, sizes)
    near = dict(sizes)
    if global_query is not None:
        near = check_array("global_query", global_query, "b n q a f", sizes)
        near["d"] = near["f"]
    if global_key is not None:
        far = check_array("global_key", global_key, "b g a d", near)
        check_array("global_value", global_value, "b g a e", far)


def _check_cuboids(query, key, value):
    sizes = check_array("query", query, "b n q a d", kind=jnp.floating)
    sizes = check_array("key", key, "b n s a d", sizes, kind=jnp.floating)
    return check_array("value", value, "b n s a e", sizes, kind=jnp.floating)


def _check_extra(bias, mask, sizes):
    if bias is not None:
        shape = getattr(bias, "shape", ())
        if len(shape) == 4 and shape[0] and sizes["b"] % shape[0] == 0:
            check_array("bias", bias, "p a q s", sizes)
        else:
            check_array("bias", bias, "1 q s" if shape[:1] == (1,) else "a q s", sizes)
    if mask is not None:
        check_array("mask", mask, "n q s", sizes, kind=bool)


def _by_head(x):
    return einops.rearrange(x, "b n q a d -> b n a q d")


def _in_every_cuboid(x, cuboids):
    """`[b, g, a, d]` to `[b, n, a, g, d]`."""
    x = einops.rearrange(x, "b g a d -> b 1 a g d")
    return jnp.broadcast_to(x, (x.shape[0], cuboids, *x.shape[2:]))


def checked_key(rate: float, key: jax.Array | None) -> jax.Array | None:
    """The key, or None where nothing is dropped.

    Raises:
        ValueError: for a dropout rate without a key.
    """
    if not rate:
        return None
    if key is None:
        raise ValueError(f"dropout_rate={rate} needs a dropout_key; got None")
    return key


def score_type(x: jax.Array) -> jnp.dtype:
    """Scores are float32, whatever the inputs are (float64 stays float64)."""
    return jnp.promote_types(x.dtype, jnp.float32)


@functools.lru_cache(maxsize=1024)
def relative_position_index(size: Grid, memory_size: Grid, reach: Grid) -> np.ndarray:
    """Row of the bias table for each pair of positions.

    Args:
        size: (t, h, w) of the cuboid of queries.
        memory_size: (t, h, w) of the cuboid of keys; both count time from zero.
        reach: the table covers offsets from -(reach - 1) to reach - 1 on each axis, so
            it has prod(2 reach - 1) rows.

    Returns:
        int32 `[q, s]`.

    Raises:
        ValueError: if an offset lies outside the table.
    """
    if any(max(q, s) > r for q, s, r in zip(size, memory_size, reach, strict=True)):
        raise ValueError(
            f"cuboids {size} and {memory_size} do not fit a bias table made for {reach}"
        )
    row = np.zeros((1, 1), np.int32)
    for axis, r in enumerate(reach):
        query = np.indices(size, np.int32)[axis].reshape(-1, 1)
        key = np.indices(memory_size, np.int32)[axis].reshape(1, -1)
        row = row * np.int32(2 * r - 1) + (query - key + np.int32(r - 1))
    row.setflags(write=False)
    return row


def table_rows(reach: Grid) -> int:
    """Rows of a relative position bias table."""
    return int(np.prod([2 * r - 1 for r in reach]))


def relative_position_bias(
    table: jax.Array, index: np.ndarray | jax.Array
) -> jax.Array:
    """`[..., a, q, s]`, at least float32, from `[..., rows, a]` and `[q, s]`.

    Args:
        table: `[..., rows, a]`.
        index: integers `[q, s]`, the row of each pair.
    """
    biases = widen(table)[..., index, :]
    return einops.rearrange(biases, "... q s a -> ... a q s")
