"""A linear layer."""

import jax


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`x @ kernel + bias`: `[..., c]` to `[..., g]`, as a product of two matrices.

    Args:
        x: `[..., c]`.
        kernel: `[c, g]`.
        bias: `[g]`, or None.
    """
    y = x.reshape(-1, x.shape[-1]) @ kernel
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], kernel.shape[-1])
