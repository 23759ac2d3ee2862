"""Softmax attention of many small cuboids, with a gradient of its own.

Heads stand before positions, so that every product is a batch of products of two
matrices. Left to itself, the gradient of the softmax's products contracts over the
first axis of the weights, which XLA's CPU compiler does seven times more slowly than
over the last. Here the gradient computes the weights again, turned: keys by queries.
Then all but one of its products find their operands as they lie, and the weights need
not be kept.
"""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.dense import after, as_rows, settle
from earthformer_jax.ops.dropout import dropout, keep_mask


def softmax_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: np.ndarray | None = None,
    dropout_rate: float = 0.0,
    seed: jax.Array | None = None,
) -> jax.Array:
    """Attention inside every cuboid.

    Args:
        query: `[b, n, a, q, e]` (example, cuboid, head, position, width), scaled.
        key: `[b, n, a, s, e]`.
        value: `[b, n, a, s, d]`.
        bias: `[a, q, s]` added to the scores (a may be 1), or None.
        mask: bool `[n, q, s]`, True where attention is allowed, or None.
        dropout_rate: share of attention weights dropped.
        seed: of `ops.dropout.draw_seed`; None drops nothing.

    Returns:
        `[b, n, a, q, d]` in the type of `value`; zeros where nothing is allowed.

    Reference:
        Dao et al. 2022, FlashAttention, https://arxiv.org/abs/2205.14135, appendix B,
        for the gradient.
    """
    if bias is not None:
        shape = (query.shape[2], query.shape[3], key.shape[3])
        bias = jnp.broadcast_to(bias.astype(_score_type(query)), shape)
    if mask is not None:
        mask = mask[:, None]

    @jax.custom_vjp
    def attend(query, key, value, bias, seed):
        return forward(query, key, value, bias, seed)[0]

    def forward(query, key, value, bias, seed):
        scores = _products(query, key, bias)
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        # Finite where a row has no finite score.
        highest = jnp.maximum(scores.max(axis=-1, keepdims=True), _LOWEST)
        weights = jnp.exp(scores - highest)
        total = weights.sum(axis=-1, keepdims=True)
        total = total if mask is None else jnp.maximum(total, _SMALLEST)
        # As in PyTorch, what is dropped is the weight after the division.
        kept = dropout(weights / total, dropout_rate, seed).astype(value.dtype)
        out = settle(jnp.einsum("bnaqs,bnasd->bnaqd", kept, value))
        level = (highest + jnp.log(total)).squeeze(-1)
        return out, (query, key, value, bias, seed, level, out)

    def backward(kept, dout):
        query, key, value, bias, seed, level, out = kept
        query, key, value = settle(*(after(dout, x) for x in (query, key, value)))
        turned_bias = None if bias is None else bias.swapaxes(-1, -2)
        scores = _products(key, query, turned_bias)
        weights = jnp.exp(scores - level[..., None, :])  # [b, n, a, s, q]
        if mask is not None:
            weights = jnp.where(mask.swapaxes(-1, -2), weights, 0.0)
        # Sum over keys of weight times its gradient.
        along = jnp.sum((as_rows(dout) * as_rows(out)).astype(weights.dtype), axis=-1)
        weights, along = settle(weights, along.reshape(out.shape[:-1]))
        dropped, dweights = weights, _products(value, dout)
        if seed is not None:
            kept = keep_mask(weights.shape, dropout_rate, seed, swap=True)
            kept = after(dout, jnp.where(kept, 1.0 / (1.0 - dropout_rate), 0.0))
            dropped, dweights = weights * kept, dweights * kept
        dropped = settle(dropped.astype(value.dtype))
        dvalue = jnp.einsum("bnasq,bnaqd->bnasd", dropped, dout)
        dscores = weights * (dweights - along[..., None, :])
        dbias = None
        if bias is not None:
            dbias = dscores.sum(axis=(0, 1)).swapaxes(-1, -2)
        dscores = settle(dscores.astype(query.dtype))
        dkey = jnp.einsum("bnasq,bnaqe->bnase", dscores, query)
        back = settle(dscores.swapaxes(-1, -2))
        dquery = jnp.einsum("bnaqs,bnase->bnaqe", back, key)
        return dquery, dkey, dvalue, dbias, None

    attend.defvjp(forward, backward)
    return attend(query, key, value, bias, seed)


_LOWEST = np.finfo(np.float32).min
_SMALLEST = np.finfo(np.float32).tiny


def _score_type(x):
    """Scores are float32, whatever the inputs are (float64 stays float64)."""
    return jnp.promote_types(x.dtype, jnp.float32)


def _products(rows, columns, bias=None):
    """`[b, n, a, rows, columns]`: products over the last axis, and a bias."""
    products = jnp.einsum(
        "bnaqd,bnasd->bnaqs",
        rows,
        columns,
        preferred_element_type=_score_type(rows),
    )
    return products if bias is None else products + bias
