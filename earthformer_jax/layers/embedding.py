"""Learned vectors of numbers, and of the positions of a space-time grid."""

from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.ops.dense import add, widen
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.resample import Grid

KINDS = ("t+h+w", "t+hw")


class Embed(nn.Module):
    """A learned vector of each number; the parameter is named as in `nn.Embed`.

    Vectors are read before they are rounded, so that the gradient of a vector that is
    read many times is summed in float32 (or wider).

    Attributes:
        count: of numbers, from 0.
        features: width of the vectors.
        embedding_init: initialiser of the table `[count, features]`.
        dtype: of the vectors; None: float32, or the parameters' where it is wider.
        param_dtype: parameter type.
    """

    count: int
    features: int
    embedding_init: Any = initializers.table
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def setup(self):
        """Makes the table."""
        shape = (self.count, self.features)
        self.embedding = self.param(
            "embedding", self.embedding_init, shape, self.param_dtype
        )

    def __call__(self, numbers: jax.Array | np.ndarray) -> jax.Array:
        """Integers `[...]` to `[..., features]`."""
        table = widen(self.embedding)
        found = jnp.take(table, numbers, axis=0)
        return found.astype(self.dtype or table.dtype)


class PositionEmbedding(nn.Module):
    """Adds one vector per time step and one per place, or per row and per column.

    Attributes:
        max_grid: (t, h, w) of the tables; a field may be smaller.
        kind: "t+h+w" (a table per axis) or "t+hw" (time and the plane).
        dtype: of the sum; None follows the input.
        param_dtype: of the tables.
    """

    max_grid: Grid
    kind: str = "t+h+w"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[b, t, h, w, c]` to the same shape."""
        if self.kind not in KINDS:
            raise ValueError(f"position embedding is one of {KINDS}; got {self.kind!r}")
        t, h, w, features = x.shape[1:]
        if any(n > m for n, m in zip((t, h, w), self.max_grid, strict=True)):
            raise ValueError(
                f"max_grid={tuple(self.max_grid)} is smaller than the grid {(t, h, w)}"
            )
        max_t, max_h, max_w = self.max_grid

        def table(name, rows, index):
            embed = Embed(
                rows,
                features,
                param_dtype=self.param_dtype,
                embedding_init=initializers.table,
                name=name,
            )
            rows = embed(index)
            copied = split.copies(rows, x)
            return rows if copied is None else split.of_examples(copied, len(x))

        time = table("time", max_t, np.arange(t))
        tables = [einops.rearrange(time, "... t c -> ... t 1 1 c")]
        if self.kind == "t+hw":
            index = np.arange(h)[:, None] * max_w + np.arange(w)
            plane = table("plane", max_h * max_w, index)
            tables.append(einops.rearrange(plane, "... h w c -> ... 1 h w c"))
        else:
            height = table("height", max_h, np.arange(h))
            tables.append(einops.rearrange(height, "... h c -> ... 1 h 1 c"))
            width = table("width", max_w, np.arange(w))
            tables.append(einops.rearrange(width, "... w c -> ... 1 1 w c"))
        return add(x.astype(self.dtype or x.dtype), *tables)
