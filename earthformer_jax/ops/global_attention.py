"""Attention to all positions at once: of global vectors, and of a state to the past.

Shapes are those of `ops.attention`; global vectors have no cuboid axis, `[b, g, a, d]`.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array, check_value
from earthformer_jax.ops.attention import checked_key, score_type
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.dropout import Reordered, drop, dropout
from earthformer_jax.settings import FINITE


def attend_global(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    scale: float,
    valid: np.ndarray | None = None,
    global_query: jax.Array | None = None,
    global_key: jax.Array | None = None,
    global_value: jax.Array | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    reordered: Reordered | None = None,
) -> jax.Array:
    """Attention of the global vectors to every position, and to each other.

    Args:
        query: `[b, g, a, d]`.
        key: `[b, n, s, a, d]`, all positions of all cuboids.
        value: `[b, n, s, a, e]`; e may differ from d.
        scale: factor on the scores.
        valid: bool `[n, s]`, False for positions to leave out, or None.
        global_query: `[b, g, a, d']` queries against the global keys if those have
            their own projections; None uses `query`.
        global_key: `[b, g, a, d']` to attend to the global vectors too, or None.
        global_value: `[b, g, a, e]`.
        dropout_rate: share of attention weights dropped.
        dropout_key: PRNG key; needed when `dropout_rate` > 0.
        reordered: cuboids that are not in raster order, for dropout.

    Returns:
        `[b, g, a, e]`.

    Reference:
        Gao et al. 2022, Earthformer, equation 8.
    """
    check_value("scale", scale, FINITE)
    sizes = check_array("query", query, "b g a d", kind=jnp.floating)
    sizes = check_array("key", key, "b n s a d", sizes, kind=jnp.floating)
    sizes = check_array("value", value, "b n s a e", sizes, kind=jnp.floating)
    if valid is not None:
        check_array("valid", valid, "n s", sizes, kind=bool)
    if global_query is not None:
        near = check_array("global_query", global_query, "b g a f", sizes)
        check_array("global_key", global_key, "b g a f", near)
    elif global_key is not None:
        check_array("global_key", global_key, "b g a d", sizes)
    if global_key is not None:
        check_array("global_value", global_value, "b g a e", sizes)
    dropout_key = checked_key(dropout_rate, dropout_key)
    whole = split.parts(key) == 1
    flat = _positions if whole else _cuboids_and_positions
    scores, values = [_few_scores(query * scale, flat(key))], [flat(value)]
    if global_key is not None:
        own = query if global_query is None else global_query
        scores.append(_few_scores(own * scale, flat(global_key)))
        values.append(flat(global_value))
    if whole:
        scores, values = jnp.concatenate(scores, 1), [jnp.concatenate(values, 1)]
        where = None
        if valid is not None:
            others = scores.shape[1] - valid.size
            where = np.pad(valid.ravel(), (0, others), constant_values=True)[:, None]
        weights = jax.nn.softmax(scores, axis=1, where=where)
        weights = [dropout(weights, dropout_rate, dropout_key)]
        sums = "bsm,bsae->bmae"
    else:
        where = None if valid is None else valid[..., None]
        weights = softmax_in_parts(scores, (1, 2), where)
        weights = _drop_in_parts(weights, dropout_rate, dropout_key, reordered)
        sums = "bnsm,bnsae->bmae"
    # Each head's weights meet every head's values, and the matching pairs are picked
    # out: with few vectors that is cheaper than sorting positions by head.
    out = functools.reduce(
        jnp.add,
        (
            jnp.einsum(sums, w.astype(v.dtype), v)
            for w, v in zip(weights, values, strict=True)
        ),
    )
    out = einops.rearrange(out, "b (g h) a e -> b g h a e", h=query.shape[2])
    return jnp.einsum("bgaae->bgae", out)


class GlobalSums(NamedTuple):
    """What global vectors gather from some of the positions, for `join_sums`.

    Attributes:
        highest: `[b, ..., g * a]`, the highest score.
        total: `[b, ..., g * a]`, the sum of exponentials of scores minus the highest.
        values: `[b, ..., g * a, a, e]`, the values weighted by these exponentials.
    """

    highest: jax.Array
    total: jax.Array
    values: jax.Array


def global_sums(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    *,
    scale: float,
    valid: np.ndarray | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> GlobalSums:
    """`attend_global` to some of the positions: sums over them.

    Args:
        query: `[b, g, a, d]`.
        key: `[b, n, s, a, d]`.
        value: `[b, n, s, a, e]`.
        scale: factor on the scores.
        valid: bool `[n, s]`, False for positions to leave out, or None.
        dropout_rate: share of attention weights dropped.
        dropout_key: PRNG key, or keys `[b]`; needed when `dropout_rate` > 0.
    """
    dropout_key = checked_key(dropout_rate, dropout_key)
    scores = _few_scores(query * scale, _positions(key))
    if valid is not None:
        scores = jnp.where(valid.reshape(-1, 1), scores, -jnp.inf)
    highest = jax.lax.stop_gradient(scores.max(1))
    highest = jnp.maximum(highest, np.finfo(np.float32).min)
    weights = jnp.exp(scores - highest[:, None])
    total = weights.sum(1)
    if dropout_key is not None and dropout_key.ndim:
        of_example = functools.partial(dropout, rate=dropout_rate)
        weights = jax.vmap(lambda x, key: of_example(x, key=key))(weights, dropout_key)
    else:
        weights = dropout(weights, dropout_rate, dropout_key)
    values = _positions(value)
    values = jnp.einsum("bsm,bsae->bmae", weights.astype(value.dtype), values)
    return GlobalSums(highest, total, values)


def join_sums(sums: GlobalSums, more: GlobalSums | None = None) -> jax.Array:
    """What global vectors gather from all positions: the result of `attend_global`.

    Args:
        sums: of parts of the positions, `[b, parts, ...]`.
        more: of the global vectors themselves, `[b, ...]`, if they attend to them.

    Returns:
        `[b, g, a, e]`.

    Reference:
        Milakov and Gimelshein 2018, Online normalizer calculation for softmax,
        https://arxiv.org/abs/1805.02867
    """
    if more is not None:
        sums = GlobalSums(
            *(
                jnp.concatenate([x, y[:, None]], 1)
                for x, y in zip(sums, more, strict=True)
            )
        )
    highest = sums.highest.max(1, keepdims=True)
    share = jax.lax.stop_gradient(jnp.exp(sums.highest - highest))
    total = (sums.total * share).sum(1)
    values = (sums.values * share[..., None, None]).sum(1) / total[..., None, None]
    heads = values.shape[2]
    values = einops.rearrange(values, "b (g h) a e -> b g h a e", h=heads)
    return jnp.einsum("bgaae->bgae", values).astype(sums.values.dtype)


def softmax_in_parts(
    scores: Sequence[jax.Array], axis: int | tuple[int, ...], where: np.ndarray | None
) -> list[jax.Array]:
    """The softmax of arrays that together make one, along `axis`, left apart.

    Args:
        scores: arrays that differ in the size of `axis` only.
        axis: along which their weights sum to 1 together; several count as one.
        where: broadcastable to the first array, False for positions to leave out; or
            None. The others are left out nowhere.
    """
    if where is not None:
        scores = [jnp.where(where, scores[0], -jnp.inf), *scores[1:]]
    highest = [jax.lax.stop_gradient(x).max(axis, keepdims=True) for x in scores]
    highest = functools.reduce(jnp.maximum, highest)
    powers = [jnp.exp(x - highest) for x in scores]
    total = functools.reduce(jnp.add, (x.sum(axis, keepdims=True) for x in powers))
    return [x / total for x in powers]


def _drop_in_parts(weights, rate, key, reordered):
    """Dropout of weights `[b, n, s, m]` of positions, and `[b, 1, g, m]` of vectors.

    The same elements are dropped as if all positions and vectors were on one axis.
    """
    if key is None:
        return weights
    if rate == 1.0:
        return [jnp.zeros_like(x) for x in weights]
    b, n, s, m = shape = weights[0].shape
    total = sum(x.shape[1] * x.shape[2] for x in weights)
    bits = jax.random.bits(key, (b, total, m), jnp.uint32)
    apart = shape if reordered is None else reordered.apart(shape)
    if b == 1:
        # The first bits of the whole, by themselves: to sort parts of an axis that is
        # not a multiple of the devices, the compiler would gather it.
        near = jax.random.bits(key, apart, jnp.uint32)
    else:
        near = bits[:, : n * s].reshape(apart)
    near = near if reordered is None else reordered.merge(near)
    parts = zip(weights, (near, bits[:, None, n * s :]), strict=False)
    return [drop(x, rate, own) for x, own in parts]


def _few_scores(query, key):
    """`[b, ..., g * a]`: products of a few queries with keys at many positions.

    Args:
        query: `[b, g, a, d]`, scaled.
        key: `[b, ..., a, d]`; all axes between are positions.
    """
    heads = query.shape[2]
    own_head = np.eye(heads, dtype=bool)[:, :, None]
    spread = jnp.where(own_head, query[:, :, :, None], 0)
    spread = einops.rearrange(spread, "b g h a d -> b (a d) (g h)")
    key = einops.rearrange(key, "b ... a d -> b ... (a d)")
    return jnp.einsum(
        "b...c,bcm->b...m", key, spread, preferred_element_type=score_type(query)
    )


def _positions(x):
    """`[b, ..., a, d]` with all axes in between merged into one."""
    return x.reshape(x.shape[0], -1, *x.shape[-2:])


def _cuboids_and_positions(x):
    """`[b, n, s, a, d]`, also of global vectors `[b, g, a, d]`: as of one cuboid.

    Split fields keep both axes apart (`devices.split`).
    """
    return x[:, None] if x.ndim == 4 else x


def recall(
    query: jax.Array, history: jax.Array, known: jax.Array | int | None = None
) -> jax.Array:
    """Attention of each position of a state to the history, as both keys and values.

    All positions of all past states are attended to, and logits are not scaled. A
    history that grows in a loop is a buffer of fixed size here, of which only the
    first `known` slices count.

    Args:
        query: `[b, l, h, w, c]`.
        history: `[b, s, h, w, c]`: the past states, concatenated along s.
        known: number of slices that count, at least 1; may be traced. None: all.

    Returns:
        `[b, l, h, w, c]`: softmax(query history^T) history over s, h, w, in the type
        of the history.

    Reference:
        Wang et al. 2019, Eidetic 3D LSTM: A Model for Video Prediction and Beyond,
        the RECALL function. https://openreview.net/forum?id=B1lKS2AqtX
    """
    sizes = check_array("query", query, "b l h w c", kind=jnp.floating)
    shared = {axis: sizes[axis] for axis in "bhwc"}
    check_array("history", history, "b s h w c", shared, kind=jnp.floating)
    logits = jnp.einsum(
        "blhwc,bsijc->blhwsij",
        query.astype(history.dtype),
        history,
        preferred_element_type=jnp.promote_types(history.dtype, jnp.float32),
    )
    counts = None
    if known is not None:
        counts = (jnp.arange(history.shape[1]) < known)[:, None, None]
    weights = jax.nn.softmax(logits, axis=(-3, -2, -1), where=counts)
    return jnp.einsum("blhwsij,bsijc->blhwc", weights.astype(history.dtype), history)
