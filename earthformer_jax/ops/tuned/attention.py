"""Softmax attention of many small cuboids, with a custom gradient.

Gain: attention along time and its gradient take 30 instead of 53 ms (one CPU core).

Heads come before positions, so that each product is a batch of products of two
matrices. By default, the gradient of the softmax's products contracts over the first
axis of the weights, which XLA's CPU compiler does seven times more slowly than over the
last. Here the gradient recomputes the weights transposed, keys by queries. Then all but
one of its products can use their operands as they are stored, and the weights need not
be kept.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops import attention as plain
from earthformer_jax.ops.devices.varying import vary_alike
from earthformer_jax.ops.dropout import Reordered
from earthformer_jax.ops.tuned.choice import instead_of
from earthformer_jax.ops.tuned.hashed_key import keep_mask, key_words
from earthformer_jax.ops.tuned.native import attention as native
from earthformer_jax.ops.tuned.order import flatten_rows, materialize, schedule_after


@functools.wraps(plain.attend)
def attend(*arrays, implementation="xla", **options):
    if implementation == "xla":
        if native.suits(*arrays, **options):
            return native.attend(*arrays, **options)
        implementation = softmax_attention
    return plain.attend(*arrays, implementation=implementation, **options)


@instead_of(plain.softmax_attention)
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
    """As `ops.attention.softmax_attention`.

    The same weights are dropped if the key is one of `tuned.hashed_key`.

    Reference:
        Dao et al. 2022, FlashAttention, https://arxiv.org/abs/2205.14135, appendix B,
        for the gradient.
    """
    words = None
    if dropout_key is not None and dropout_rate:
        if not 0.0 < dropout_rate < 1.0:  # all dropped, or an error
            return plain.softmax_attention(
                query, key, value, bias, mask, dropout_rate, dropout_key, reordered
            )
        words = key_words(dropout_key)
    if bias is not None:
        shape = (*bias.shape[:-3], query.shape[2], query.shape[3], key.shape[3])
        bias = jnp.broadcast_to(bias.astype(plain.score_type(query)), shape)
    mask, some = plain.opened(mask)
    if mask is not None:
        mask = mask[:, None]
    steps = _Attention(mask, dropout_rate, reordered)

    @jax.custom_vjp
    def attend(query, key, value, bias, words):
        return steps.forward(query, key, value, bias, words)[0]

    attend.defvjp(steps.forward, steps.backward)
    out = attend(*vary_alike(*materialize(query, key, value), bias, words))
    return out if some is None else jnp.where(some[:, None, :, None], out, 0)


_LOWEST = np.finfo(np.float32).min


@dataclasses.dataclass(frozen=True)
class _Attention:
    """What is computed on the way to the result, and for the gradient.

    Attributes:
        mask: bool `[n, 1, q, s]`, as scores have their axes; or None.
        dropout_rate: share of the weights that are dropped, where there are `words`.
        reordered: see `ops.dropout`.
    """

    mask: np.ndarray | None
    dropout_rate: float
    reordered: Reordered | None

    def _keep(self, shape, words, swap=False):
        rate, order = self.dropout_rate, self.reordered
        return keep_mask(shape, rate, words, swap=swap, reordered=order)

    def forward(self, query, key, value, bias, words):
        scores = _products(query, key, bias)
        if self.mask is not None:
            scores = jnp.where(self.mask, scores, -jnp.inf)
        # Finite where a row has no finite score.
        highest = jnp.maximum(scores.max(axis=-1, keepdims=True), _LOWEST)
        weights = jnp.exp(scores - highest)
        total = weights.sum(axis=-1, keepdims=True)
        kept = weights / total
        if words is not None:
            keep = self._keep(kept.shape, words)
            kept = jnp.where(keep, kept / (1.0 - self.dropout_rate), 0)
        out = materialize(
            jnp.einsum("bnaqs,bnasd->bnaqd", kept.astype(value.dtype), value)
        )
        # In two parts: their sum would round the second one away where scores are
        # large, and the weights of the backward pass would not sum to 1.
        level = highest.squeeze(-1), jnp.log(total).squeeze(-1)
        return out, (query, key, value, bias, words, level, out)

    def backward(self, kept, dout):
        query, key, value, bias, words, (highest, level), out = kept
        query, key, value = materialize(
            *(schedule_after(dout, x) for x in (query, key, value))
        )
        turned_bias = None if bias is None else bias.swapaxes(-1, -2)
        scores = _products(key, query, turned_bias)
        if self.mask is not None:
            scores = jnp.where(self.mask.swapaxes(-1, -2), scores, -jnp.inf)
        weights = jnp.exp(scores - highest[..., None, :] - level[..., None, :])
        # Sum over keys of each weight times its gradient.
        products = flatten_rows(dout) * flatten_rows(out)
        along = jnp.sum(products.astype(weights.dtype), axis=-1)
        weights, along = materialize(weights, along.reshape(out.shape[:-1]))
        dropped, dweights = weights, _products(value, dout)
        if words is not None:
            keep = self._keep(weights.shape, words, swap=True)
            factor = jnp.where(keep, 1.0 / (1.0 - self.dropout_rate), 0.0)
            factor = schedule_after(dout, factor)
            dropped, dweights = weights * factor, dweights * factor
        dropped = materialize(dropped.astype(value.dtype))
        dvalue = jnp.einsum("bnasq,bnaqd->bnasd", dropped, dout)
        dscores = weights * (dweights - along[..., None, :])
        dbias = None
        if bias is not None:
            parts = dscores
            if bias.ndim == 4:
                parts = dscores.reshape(len(bias), -1, *dscores.shape[1:])
            dbias = parts.sum(axis=(-5, -4)).swapaxes(-1, -2)
        dscores = materialize(dscores.astype(query.dtype))
        dkey = jnp.einsum("bnasq,bnaqe->bnase", dscores, query)
        back = materialize(dscores.swapaxes(-1, -2))
        dquery = jnp.einsum("bnaqs,bnase->bnaqe", back, key)
        return dquery, dkey, dvalue, dbias, None


def _products(rows, columns, bias=None):
    """`[b, n, a, rows, columns]`: products over the last axis, plus a bias."""
    products = jnp.einsum(
        "bnaqd,bnasd->bnaqs",
        rows,
        columns,
        preferred_element_type=plain.score_type(rows),
    )
    if bias is None:
        return products
    return products + plain.bias_of_examples(bias, rows.shape[0])
