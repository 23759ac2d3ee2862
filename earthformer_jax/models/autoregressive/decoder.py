"""The causal decoder: logits of every code from those before it and from memories.

A level has the grid of the codes divided by a factor per level in space. On the way
down, blocks of causal self-attention and patch merging; on the way up, blocks of causal
self-attention and cross-attention to the encoder's memory of that level. A cell of a
coarse level is known after the last of the cells that it is made of. So it is added to
cells of the next coarse row alone: what comes up is shifted down by one coarse row,
past the end of a frame into the next one. Later rows see it by self-attention.

Reference:
    Gao et al. 2022, Earthformer, appendix C, https://arxiv.org/abs/2207.05833; the
    shifts are like those of Salimans et al. 2017, PixelCNN++,
    https://arxiv.org/abs/1701.05517.
"""

from collections.abc import Sequence
from typing import Any

import einops
import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers import initializers
from earthformer_jax.layers.dense import Dense
from earthformer_jax.layers.embedding import PositionEmbedding
from earthformer_jax.layers.feed_forward import FeedForward
from earthformer_jax.layers.norm import make_norm
from earthformer_jax.layers.resample import PatchMerging
from earthformer_jax.models.autoregressive.attention import (
    CausalSelfAttention,
    Cells,
    WindowAttention,
)
from earthformer_jax.models.earthformer.hierarchy import (
    CrossPattern,
    SelfPattern,
    cross_specs,
    self_specs,
)
from earthformer_jax.models.earthformer.options import BlockOptions
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.dense import repeat_to
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.ops.resample import Grid


class CausalBlock(nn.Module):
    """Causal self-attention of one pattern, then perhaps attention to a memory.

    A feed-forward layer follows every attention layer.

    Attributes:
        specs: the cut of each self-attention layer.
        cross: the windows of each cross-attention layer; none: no memory is read.
        options: shared by all blocks.
        max_temporal_relative: reach of the cross-attention bias tables in time.
    """

    specs: Sequence[CuboidSpec]
    cross: Sequence[CrossSpec]
    options: BlockOptions
    max_temporal_relative: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array | None,
        memory: Any = None,
        *,
        cells: Cells | None = None,
        train: bool = False,
    ) -> Any:
        """The new value of a field `[b, t, h, w, c]` or of `cells` `[b, r, c]`.

        Without `x`, keys and values of the memory are stored and nothing else is done.
        """
        attention = self.options.attention
        attend, call = self.options.calls(train)
        reach = self.max_temporal_relative
        own = [
            CausalSelfAttention(attention, spec, name=f"attention_{i}")
            for i, spec in enumerate(self.specs)
        ]
        cross = [
            WindowAttention(attention, spec, reach, name=f"cross_{i}")
            for i, spec in enumerate(self.cross)
        ]
        if x is None:
            for layer in cross:
                layer(None, memory)
            return None

        def update(layer, *arguments):
            if cells is not None:
                return layer(*arguments, cells=cells, train=train)
            return attend(layer, *arguments)

        def feed(name, x) -> jax.Array:
            return call(FeedForward(self.options.feed_forward, name=name), x)

        for i, layer in enumerate(own):
            x = feed(f"ffn_{i}", x + update(layer, x)[0])
        for i, layer in enumerate(cross):
            x = feed(f"cross_ffn_{i}", x + update(layer, x, memory))
        return x


class CausalDecoder(nn.Module):
    """Logits of codes.

    Attributes:
        grids: (K, h, w) of each level, the codes' first; height and width of a level
            are `factor` times those of the next.
        memory_frames: frames of the memories.
        codebook_size: number of codes, Q.
        features: channels of each level.
        factor: of height and width between levels.
        depth: blocks with cross-attention of each level, on the way up.
        down_depth: blocks of each level but the coarsest, on the way down.
        patterns: self-attention pattern of each level.
        cross_patterns: cross-attention pattern of each level.
        options: shared by all blocks.
        pos_embed: kind of the position embeddings, "t+h+w" or "t+hw".
    """

    grids: Sequence[Grid]
    memory_frames: int
    codebook_size: int
    features: Sequence[int]
    factor: int
    depth: Sequence[int]
    down_depth: int
    patterns: Sequence[SelfPattern]
    cross_patterns: Sequence[CrossPattern]
    options: BlockOptions
    pos_embed: str

    def setup(self):
        """Makes the parts."""
        attention = self.options.attention
        types: dict[str, Any] = attention.types
        shape = (self.features[0],)
        self.first = self.param(
            "first", initializers.table, shape, attention.param_dtype
        )
        self.position = PositionEmbedding(self.grids[0], self.pos_embed, **types)
        below = range(len(self.features) - 1)
        self.down = [
            [self._block(level) for _ in range(self.down_depth)] for level in below
        ]
        self.merge = [
            PatchMerging(
                self.features[level + 1], (1, self.factor, self.factor), **types
            )
            for level in below
        ]
        self.up = [
            [self._block(level, self.cross_patterns[level]) for _ in range(depth)]
            for level, depth in enumerate(self.depth)
        ]
        self.expand = [
            Dense(self.factor**2 * self.features[level], **types) for level in below
        ]
        self.norm = make_norm(attention.norm, name="norm", **types)
        self.logits = Dense(self.codebook_size, **types)

    def _block(self, level: int, cross: CrossPattern | None = None) -> CausalBlock:
        grid = self.grids[level]
        windows = ()
        if cross is not None:
            windows = cross_specs(cross, (self.memory_frames, *grid[1:]))
        return CausalBlock(
            self_specs(self.patterns[level], grid),
            windows,
            self.options,
            self.memory_frames + grid[0],
        )

    def __call__(
        self, codes: jax.Array, memories: Sequence[jax.Array], *, train: bool = False
    ) -> jax.Array:
        """Logits of all codes, each from those before it.

        Args:
            codes: `[b, K, h, w, c]`, embedded.
            memories: of each level `[b, T, h', w', c']`.
            train: whether dropout acts.

        Returns:
            float32 `[b, K, h, w, Q]`.
        """
        x, skips = self.position(self._shifted(codes)), []
        for blocks, merge in zip(self.down, self.merge, strict=True):
            for block in blocks:
                x = block(x, train=train)
            skips.append(x)
            x = merge(x)
        for level in reversed(range(len(self.up))):
            if level < len(skips):
                up = self._expanded(level, x)
                x = skips[level] + rows_later(up, self.factor)
            for block in self.up[level]:
                x = block(x, memories[level], train=train)
        return self._head(x)

    def remember(self, memories: Sequence[jax.Array]) -> None:
        """Stores keys and values of the memories in the collection "memory"."""
        for blocks, memory in zip(self.up, memories, strict=True):
            for block in blocks:
                block(None, memory)

    def positions(self) -> jax.Array:
        """What is added to each code before it is read, `[K * h * w, c]`."""
        zeros = jnp.zeros((1, *self.grids[0], self.features[0]), self.first.dtype)
        return self.position(zeros).reshape(-1, self.features[0])

    def cell(
        self, x: jax.Array, index: jax.Array, above: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """The logits of one code; `remember` and all codes before it come first.

        Args:
            x: `[b, c]`, the embedded code before it, at its position.
            index: int32 `()`, its place in raster order.
            above: `[b, c]`, what comes up from the coarse row above; None if there is
                one level.

        Returns:
            float32 `[b, Q]`, and `[b, c]`, what goes down to the next level.
        """
        cells = Cells(self.grids[0], index[None])
        x, down = self._row(0, x[:, None], cells, above)
        return self._head(x)[:, 0], None if down is None else down[:, 0]

    def row(
        self, rows: jax.Array, level: int, number: jax.Array, above: jax.Array | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """One row of cells of a coarse level.

        Args:
            rows: `[b, factor, w, c]`, what goes down from the finer level.
            level: from 1.
            number: int32 `()`, of the row, counted through all frames.
            above: `[b, w', c']`, what comes up from the row above of the next level;
                None at the coarsest.

        Returns:
            `[b, factor, w, c]`, what comes up to the next rows of the finer level, and
            `[b, w', c']`, what goes down to the next level, or None.
        """
        x = self.merge[level - 1](rows[:, None])[:, 0, 0]
        width = self.grids[level][2]
        cells = Cells(self.grids[level], number * width + jnp.arange(width))
        x, down = self._row(level, x, cells, above)
        return self._expanded(level - 1, x[:, None, None])[:, 0], down

    def _row(self, level: int, x: Any, cells: Cells, above: Any) -> tuple[Any, Any]:
        """What leaves a level upwards and downwards, for some of its cells."""
        down = None
        if level < len(self.merge):
            for block in self.down[level]:
                x = block(x, cells=cells)
            down = x
            x = x + above.reshape(x.shape)
        _, h, w = self.grids[level]
        shape = (x.shape[0], self.memory_frames, h, w, x.shape[-1])
        memory = jax.ShapeDtypeStruct(shape, x.dtype)
        for block in self.up[level]:
            x = block(x, memory, cells=cells)
        return x, down

    def _shifted(self, codes):
        """Each code in the place of the next one, the learned vector in the first."""
        b, *_, c = codes.shape
        flat = codes.reshape(b, -1, c)
        first = repeat_to(self.first, (b, 1, c), codes.dtype)
        return jnp.concatenate([first, flat[:, :-1]], axis=1).reshape(codes.shape)

    def _expanded(self, level, x):
        """`[b, t, h, w, c]` to the finer level `[b, t, h * f, w * f, c']`."""
        return einops.rearrange(
            self.expand[level](x),
            "b t h w (u v c) -> b t (h u) (w v) c",
            u=self.factor,
            v=self.factor,
        )

    def _head(self, x):
        out = self.logits(self.norm(x))
        return out.astype(jnp.promote_types(out.dtype, jnp.float32))


def rows_later(x: jax.Array, rows: int) -> jax.Array:
    """`[b, t, h, w, c]` moved down, past the end of a frame into the next one.

    The first rows of the first frame are zeros, the last ones of the last frame are
    lost.
    """
    flat = einops.rearrange(x, "b t h w c -> b (t h) w c")
    flat = jnp.pad(flat, ((0, 0), (rows, 0), (0, 0), (0, 0)))[:, :-rows]
    return flat.reshape(x.shape)
