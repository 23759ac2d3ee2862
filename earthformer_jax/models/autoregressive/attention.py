"""Causal self-attention and cross-attention, of whole fields and of single cells.

In training all cells of a field are known and are computed at once. In generation a
layer is given a few cells: it puts their keys and values into arrays of fixed size,
laid out by cuboids, and reads the one cuboid of each cell, which costs the same
whatever came before. Both ways have the same parameters and give the same results.
"""

from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.models.earthformer.cuboid_attention import (
    CuboidCrossAttention,
    CuboidSelfAttention,
)
from earthformer_jax.ops import attention, cuboid
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.resample import Grid


class Cells(NamedTuple):
    """Some cells of a grid; their features are `[b, r, c]`.

    Attributes:
        grid: (t, h, w), static.
        number: int32 `[r]`, their positions in raster order.
    """

    grid: Grid
    number: jax.Array

    def places(self, spec: CuboidSpec, padding: str) -> tuple[jax.Array, jax.Array]:
        """Cuboid and place in it of each cell, int32 `[r]` both."""
        cuboids, places = cuboid.places(self.grid, spec, padding).T
        return jnp.asarray(cuboids)[self.number], jnp.asarray(places)[self.number]


class CausalSelfAttention(CuboidSelfAttention):
    """Attention of each cell to those of its cuboid that do not come after it.

    Cells must be given in raster order, each once. The collection "cache" keeps
    their keys and values, `[b, a, n, s, d]`; it is zero before the first cell.

    Reference:
        Gao et al. 2022, Earthformer, appendix C. https://arxiv.org/abs/2207.05833
    """

    causal: bool = True

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        global_vectors: jax.Array | None = None,
        *,
        cells: Cells | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """The update of a field `[b, t, h, w, c]`, or of `cells` `[b, r, c]`.

        There are no global vectors, neither given nor returned.
        """
        if cells is None:
            return super().__call__(x, global_vectors, train=train)
        features, padding = x.shape[-1], self.options.padding
        spec = self.spec.fit(cells.grid)
        row, place = cells.places(spec, padding)
        layer = self._bind("qkv", features, 3 * features)
        query, *new = self._by_head(layer, self._norm("norm")(x), count=3)
        shape = cuboid.raster_order(cells.grid, spec, padding).shape
        key, value = (
            self._keep(name, part, shape, row, place)
            for name, part in zip(("key", "value"), new, strict=True)
        )
        mask = cuboid.causal_mask(cells.grid, spec, padding)
        out = attention.attend_in_place(
            query,
            key,
            value,
            row,
            scale=self._scale(features),
            bias=self._bias_table(
                self.spec.size, jnp.asarray(self._bias_index(spec))[place]
            ),
            mask=None if mask is None else jnp.asarray(mask)[row, place],
        )
        out = einops.rearrange(out, "b r a d -> b r (a d)")
        out = self._project(out, train) if self.options.use_final_proj else out
        return out, None

    def _keep(self, name, new, shape, row, place):
        """All that is kept under this name, with `new` `[b, r, a, d]` in its places."""
        b, _, a, d = new.shape
        kept = self.variable("cache", name, jnp.zeros, (b, a, *shape, d), new.dtype)
        new = einops.rearrange(new, "b r a d -> b a r d")
        kept.value = kept.value.at[:, :, row, place].set(new)
        return kept.value


class WindowAttention(CuboidCrossAttention):
    """Attention of a field, or of single cells of it, to windows of a memory.

    The memory is the past: all of it may be seen. The collection "memory" keeps its
    keys and values, `[b, a, n, s, d]`.
    """

    @nn.compact
    def __call__(
        self,
        x: jax.Array | None,
        memory: Any,
        global_vectors: jax.Array | None = None,
        *,
        cells: Cells | None = None,
        train: bool = False,
    ) -> Any:
        """The update of a field or of cells.

        Args:
            x: `[b, t, h, w, c]`, or of `cells` `[b, r, c]`; None: the memory's keys and
                values are stored, and nothing else is done.
            memory: `[b, t', h, w, c]`. Only its shape matters to cells, whose keys and
                values must have been stored before.
            global_vectors: of the memory, for fields alone.
            cells: where the cells are, or None for a field.
            train: whether dropout acts.

        Returns:
            The same shape as `x`, or None.
        """
        memory_grid, features = memory.shape[1:4], memory.shape[-1]
        memory_cut = self.spec.cuboid(memory_grid)
        if x is None:
            keys = self._cuts(memory, memory_cut, time_at_front=True)
            layer = self._bind("kv_proj", features, 2 * features)
            parts = self._by_head(layer, *keys, count=2)
            for name, part in zip(("key", "value"), parts, strict=True):
                by_head = einops.rearrange(part, "b n s a d -> b a n s d")
                self.put_variable("memory", name, by_head)
            return None
        if cells is None:
            return super().__call__(x, memory, global_vectors, train=train)
        padding, cut = self.options.padding, self.spec.cuboid(cells.grid)
        row, place = cells.places(cut, padding)
        reach = (self.max_temporal_relative, *self.spec.size)
        index = attention.relative_position_index(cut.size, memory_cut.size, reach)
        mask = cuboid.cross_attention_mask(
            cells.grid, cut, memory_grid, memory_cut, padding
        )
        layer = self._bind("q_proj", features, features)
        query: Any = self._by_head(layer, self._norm("norm")(x))
        out = attention.attend_in_place(
            query,
            self.get_variable("memory", "key"),
            self.get_variable("memory", "value"),
            row,
            scale=self._scale(features),
            bias=self._bias_table(reach, jnp.asarray(index)[place]),
            mask=None if mask is None else jnp.asarray(mask)[row, place],
        )
        return self._project(einops.rearrange(out, "b r a d -> b r (a d)"), train)
