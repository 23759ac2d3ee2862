"""Recall: attention of a state over all the states that came before it."""

import jax
import jax.numpy as jnp

from earthformer_jax.checks import check_array


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
