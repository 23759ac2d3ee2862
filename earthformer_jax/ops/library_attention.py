"""Softmax attention of cuboids with JAX's own function, for comparison and cuDNN."""

import einops
import jax
import jax.numpy as jnp
import numpy as np

IMPLEMENTATIONS = ("xla", "cudnn")


def library_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    mask: np.ndarray | None = None,
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    *,
    implementation: str = "xla",
) -> jax.Array:
    """As `attention.softmax_attention`, without dropout.

    Cuboids become examples of `jax.nn.dot_product_attention`, and heads move behind
    positions, which is a copy unless the compiler avoids it. A mask is repeated for
    every example. If queries and values differ in width, the narrower ones are padded
    with zeros.

    cuDNN supports bfloat16 and float16 only, and heads whose width is a multiple of 8
    and at most 128 (256 from Hopper on); its gradient with a bias or a mask needs even
    numbers of queries and of keys. It adds the mask to the bias, which makes one bias
    of `[b n, a, q, s]`, and rounds both to the type of the queries.

    Args:
        query: `[b, n, a, q, e]` (example, cuboid, head, position, width), scaled.
        key: `[b, n, a, s, e]`.
        value: `[b, n, a, s, d]`.
        bias: `[a, q, s]` added to the scores (a may be 1), or None.
        mask: bool `[n, q, s]`, True where attention is allowed, or None.
        dropout_rate: share of attention weights dropped; must be 0 if a key is given.
        dropout_key: PRNG key, or None.
        implementation: "xla" or "cudnn".

    Returns:
        `[b, n, a, q, d]` in the type of `value`; zeros where nothing is allowed.

    Raises:
        ValueError: for dropout, an unknown implementation, or float32 with cuDNN.
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be one of {', '.join(IMPLEMENTATIONS)}; "
            f"got {implementation!r}"
        )
    if dropout_key is not None and dropout_rate:
        raise ValueError(
            "jax.nn.dot_product_attention has no dropout; got a key and "
            f"dropout_rate={dropout_rate}. Use softmax_attention, or dropout_rate=0"
        )
    if implementation == "cudnn" and query.dtype not in (jnp.bfloat16, jnp.float16):
        raise ValueError(
            f"cuDNN's attention needs bfloat16 or float16; got {query.dtype}. Use "
            "implementation='xla'"
        )
    b, width = query.shape[0], value.shape[-1]
    widest = max(query.shape[-1], width)
    query, key, value = (
        _widened(einops.rearrange(x, "b n a q d -> (b n) q a d"), widest)
        for x in (query, key, value)
    )
    if bias is not None:
        bias = jnp.broadcast_to(bias, (query.shape[2], query.shape[1], key.shape[1]))
        if implementation == "cudnn":
            bias = bias.astype(query.dtype)
        bias = bias[None]
    some = None
    if mask is not None:
        # A row without any allowed key attends to every key, so that its result is
        # finite, and is set to zero afterwards.
        some = np.asarray(np.any(mask, axis=-1))
        mask = einops.repeat(mask | ~some[..., None], "n q s -> (b n) 1 q s", b=b)
        some = einops.repeat(some, "n q -> (b n) q 1 1", b=b)
    out = jax.nn.dot_product_attention(
        query, key, value, bias, mask, scale=1.0, implementation=implementation
    )
    out = out[..., :width]
    if some is not None:
        out = jnp.where(some, out, 0)
    return einops.rearrange(out, "(b n) q a d -> b n a q d", b=b)


def _widened(x, width):
    """`x`, padded with zeros at the end of its last axis."""
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, width - x.shape[-1])))
