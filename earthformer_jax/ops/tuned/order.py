"""Keeping a compiler from fusing or reordering computations where that is slow.

Gain: `materialize` along the residual path and gradients that find their operands as
they lie took a feed-forward layer and its gradient from 51 to 30 ms; flat rows took the
gradient of layer norm from 2.4 to 0.9 ms, that of attention along height from 22.8 to
19.7 ms (one CPU core).
"""

import jax
import jax.numpy as jnp
from jax import lax

from earthformer_jax.ops.tuned.choice import instead_of


def _as_they_are(*arrays):
    return arrays[0] if len(arrays) == 1 else arrays


@instead_of(_as_they_are)
def materialize(*arrays):
    """The arrays, each computed once and stored, and their gradients as well.

    XLA fuses sums along the residual path into everything that reads them, and
    computes them again for each reader. Without tuning the arrays are returned as they
    are.

    Returns:
        One array for one, else a tuple.
    """
    stored = lax.optimization_barrier(arrays)
    return stored[0] if len(arrays) == 1 else stored


def flatten_rows(x: jax.Array) -> jax.Array:
    """`[..., c]` as `[n, c]`, which the compiler cannot undo.

    Where products of two arrays are summed over their last axis, XLA's CPU compiler
    makes a batch of scalar products of it, which takes ten times as long if the batch
    has several axes.
    """
    return materialize(x.reshape(-1, x.shape[-1]))


def schedule_after(first: jax.Array, x: jax.Array) -> jax.Array:
    """`x`, but not before `first` is computed.

    A compiler is free to recompute what a gradient needs long before it is needed, or
    to notice that it already exists. An order survives until the end of compilation
    only as arithmetic: this adds a zero that the compiler cannot simplify away.

    Args:
        first: `[b, ...]`.
        x: `[b, ...]`; each example depends only on itself, so devices never
            synchronise.
    """
    corner = first[(slice(None), *(0,) * (first.ndim - 1))]
    zero = jnp.minimum(jnp.abs(corner), 0).astype(x.dtype)
    return x + zero.reshape(-1, *(1,) * (x.ndim - 1))
