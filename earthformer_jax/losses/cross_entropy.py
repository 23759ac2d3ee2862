"""How improbable the true codes were: the loss of models that forecast codes."""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array


def cross_entropy(
    logits: jax.Array, codes: jax.Array, weights: jax.Array | np.ndarray | None = None
) -> jax.Array:
    """Mean over codes of weight times -log(probability of the true code), by example.

    Args:
        logits: `[b, k, h, w, q]`, of q codes.
        codes: integers `[b, k, h, w]`, from 0 to q - 1.
        weights: broadcastable to `codes`, of mean 1 where all codes are known, 0 where
            one is not; None: all have weight 1. An unknown code counts as no error, so
            that the loss of a batch is the mean of those of its parts.

    Returns:
        float32 `[b]`, in nats; log(q) if all codes are equally probable.

    Raises:
        ValueError: for arrays of other shapes.
    """
    sizes = check_array("logits", logits, "b k h w q", kind=jnp.floating)
    check_array("codes", codes, "b k h w", sizes, kind=jnp.integer)
    logits = logits.astype(jnp.float32)
    one_hot = jax.nn.one_hot(codes, sizes["q"])  # its gradient is a sum, no scatter
    true = jnp.sum(one_hot * logits, axis=-1)
    surprise = jax.nn.logsumexp(logits, axis=-1) - true
    surprise = surprise if weights is None else weights * surprise
    return jnp.mean(surprise, axis=(1, 2, 3))
