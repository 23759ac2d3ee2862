"""A linear layer, and sums and products with what many positions share.

A bias is added to every position, so its gradient is a sum over all of them. In
bfloat16 or float16 such a sum stops growing once its terms are below the rounding of
what it has reached. `add`, `multiply` and `repeat_to` therefore compute in float32 (or
wider) and round the result; where everything is float32 already they change nothing.
"""

import functools

import jax
import jax.numpy as jnp

from earthformer_jax.checks import check_array
from earthformer_jax.ops.devices import split


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`x @ kernel + bias`: `[..., c]` to `[..., g]`, as a product of two matrices.

    Args:
        x: `[..., c]`.
        kernel: `[c, g]`.
        bias: `[g]`, or None; it may be wider than `x`, and should be.
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
        y = add(y, bias)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


def widen(x: jax.Array) -> jax.Array:
    """`x` in float32, or as it is where it is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def add(x: jax.Array, *others: jax.Array) -> jax.Array:
    """`x + others[0] + ...` in at least float32, in the type of `x`.

    Args:
        x: of any shape.
        *others: that broadcast against `x`; they should not be rounded before.
    """
    total = functools.reduce(jnp.add, (widen(y) for y in others), widen(x))
    return total.astype(x.dtype)


def multiply(x: jax.Array, factor: jax.Array) -> jax.Array:
    """`x * factor` in at least float32, in the type of `x`; the factor broadcasts."""
    return (widen(x) * widen(factor)).astype(x.dtype)


def repeat_to(x: jax.Array, shape: tuple[int, ...], dtype=None) -> jax.Array:
    """`jnp.broadcast_to` whose gradient is summed in at least float32.

    Args:
        x: that broadcasts to `shape`.
        shape: of the result.
        dtype: of the result; None is the type of `x`.
    """
    return jnp.broadcast_to(widen(x), shape).astype(dtype or x.dtype)
