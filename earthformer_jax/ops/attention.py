"""Softmax attention inside cuboids, with relative position bias and global vectors.

Argument conventions, the same in every function here: queries are `[b, n, q, a, d]`
(example, cuboid, position, head, width), keys and values `[b, n, s, a, d]`; global
vectors carry no cuboid axis, `[b, g, a, d]`. Logits and softmax are float32.
"""

import functools

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.resample import Grid


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
) -> jax.Array:
    """Attention of every position to its cuboid and to the global vectors.

    Both kinds of keys share one softmax; global keys carry no bias and are never
    masked. A position that may attend to nothing gets zeros.

    Args:
        query: `[b, n, q, a, d]`.
        key: `[b, n, s, a, d]`.
        value: `[b, n, s, a, d]`.
        scale: factor on the scores, usually d ** -0.5.
        bias: `[a, q, s]` added to the scores inside the cuboid, or None.
        mask: bool `[n, q, s]`, True where attention is allowed, or None.
        global_query: `[b, n, q, a, d]`, queries against the global keys where they
            have projections of their own; None uses `query`.
        global_key: `[b, g, a, d]`, or None without global vectors.
        global_value: `[b, g, a, d]`.
        dropout_rate: share of attention weights dropped.
        dropout_key: PRNG key; needed when `dropout_rate` > 0.

    Returns:
        `[b, n, q, a, d]` in the type of `value`.

    Reference:
        Gao et al. 2022, Earthformer, equations 4 and 7.
    """
    scores = _scores("bnqad,bnsad->bnaqs", query, key, scale)
    if bias is not None:
        scores += bias.astype(scores.dtype)
    size = key.shape[2]
    where = None if mask is None else mask[:, None]
    if global_key is not None:
        far = query if global_query is None else global_query
        far_scores = _scores("bnqad,bgad->bnaqg", far, global_key, scale)
        scores = jnp.concatenate([scores, far_scores], axis=-1)
        if where is not None:
            seen = np.ones((*where.shape[:-1], global_key.shape[1]), bool)
            where = np.concatenate([where, seen], axis=-1)
    weights = jax.nn.softmax(scores, axis=-1, where=where)
    weights = _dropout(weights, dropout_rate, dropout_key).astype(value.dtype)
    out = jnp.einsum("bnaqs,bnsad->bnqad", weights[..., :size], value)
    if global_key is not None:
        out += jnp.einsum("bnaqg,bgad->bnqad", weights[..., size:], global_value)
    return out


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
) -> jax.Array:
    """Attention of the global vectors to every position, and to each other.

    Args:
        query: `[b, g, a, d]`.
        key: `[b, n, s, a, d]`, all positions of all cuboids.
        value: `[b, n, s, a, e]`; e may differ from d.
        scale: factor on the scores.
        valid: bool `[n, s]`, False for positions to be left out, or None.
        global_query: `[b, g, a, d']` queries against the global keys where they have
            projections of their own; None uses `query`.
        global_key: `[b, g, a, d']` to attend to the global vectors too, or None.
        global_value: `[b, g, a, e]`.
        dropout_rate: share of attention weights dropped.
        dropout_key: PRNG key; needed when `dropout_rate` > 0.

    Returns:
        `[b, g, a, e]`.

    Reference:
        Gao et al. 2022, Earthformer, equation 8.
    """
    key = einops.rearrange(key, "b n s a d -> b (n s) a d")
    value = einops.rearrange(value, "b n s a d -> b (n s) a d")
    scores = _scores("bgad,bsad->bags", query, key, scale)
    size = key.shape[1]
    where = None if valid is None else valid.reshape(-1)
    if global_key is not None:
        own = query if global_query is None else global_query
        own_scores = _scores("bgad,bsad->bags", own, global_key, scale)
        scores = jnp.concatenate([scores, own_scores], axis=-1)
        if where is not None:
            where = np.concatenate([where, np.ones(global_key.shape[1], bool)])
    weights = jax.nn.softmax(scores, axis=-1, where=where)
    weights = _dropout(weights, dropout_rate, dropout_key).astype(value.dtype)
    out = jnp.einsum("bags,bsad->bgad", weights[..., :size], value)
    if global_key is not None:
        out += jnp.einsum("bags,bsad->bgad", weights[..., size:], global_value)
    return out


def _scores(equation, query, key, scale):
    """Scaled products in float32, whatever the inputs are (float64 stays float64)."""
    dtype = jnp.promote_types(query.dtype, jnp.float32)
    return jnp.einsum(equation, query * scale, key, preferred_element_type=dtype)


def _dropout(weights, rate, key):
    if not rate:
        return weights
    if key is None:
        raise ValueError(f"dropout_rate={rate} needs a dropout_key; got None")
    keep = jax.random.bernoulli(key, 1.0 - rate, weights.shape)
    return jnp.where(keep, weights / (1.0 - rate), 0.0)


@functools.lru_cache(maxsize=1024)
def relative_position_index(size: Grid, memory_size: Grid, reach: Grid) -> np.ndarray:
    """Row of the bias table for each pair of positions.

    Args:
        size: (t, h, w) of the cuboid of queries.
        memory_size: (t, h, w) of the cuboid of keys; both count time from zero.
        reach: the table covers offsets -(reach - 1) ... reach - 1 on each axis, so it
            has prod(2 reach - 1) rows.

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
        query = np.indices(size)[axis].reshape(-1, 1)
        key = np.indices(memory_size)[axis].reshape(1, -1)
        row = row * (2 * r - 1) + (query - key + r - 1)
    row = row.astype(np.int32)
    row.setflags(write=False)
    return row


def table_rows(reach: Grid) -> int:
    """Rows of a relative position bias table."""
    return int(np.prod([2 * r - 1 for r in reach]))


def relative_position_bias(table: jax.Array, index: np.ndarray) -> jax.Array:
    """`[a, q, s]` from the table `[rows, a]` and an index `[q, s]`."""
    return einops.rearrange(table[index], "q s a -> a q s")
