"""A linear layer."""

import jax

from earthformer_jax.checks import check_array
from earthformer_jax.ops.devices import split


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`x @ kernel + bias`: `[..., c]` to `[..., g]`, as a product of two matrices.

    Args:
        x: `[..., c]`.
        kernel: `[c, g]`.
        bias: `[g]`, or None.
    """
    sizes = check_array("x", x, "... c")
    sizes = check_array("kernel", kernel, "c g", sizes)
    if bias is not None:
        check_array("bias", bias, "g", sizes)
    rows = x if split.parts(x) > 1 else x.reshape(-1, x.shape[-1])
    y = rows @ kernel
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], kernel.shape[-1])
