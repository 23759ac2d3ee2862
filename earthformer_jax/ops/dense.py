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
    if split.parts(x) > 1:
        # Likewise the gradients of both, which that of the kernel is a product of.
        (x,) = split.split_alike(x)
        (y,) = split.split_alike(x @ kernel)
    else:
        y = x.reshape(-1, x.shape[-1]) @ kernel
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], kernel.shape[-1])
