"""Stacks of cuboid attention and feed-forward layers: the blocks of Earthformer.

Each attention layer adds its update to the field; a feed-forward layer follows every
attention layer, or only the last (`inter_ffn`).
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from earthformer_jax.layers.feed_forward import FeedForward
from earthformer_jax.models.earthformer.cuboid_attention import (
    CuboidCrossAttention,
    CuboidSelfAttention,
)
from earthformer_jax.models.earthformer.options import BlockOptions
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.ops.tuned.order import materialize


class SelfAttentionBlock(nn.Module):
    """Self-attention layers of one pattern, with their feed-forward layers.

    Attributes:
        specs: the cut of each attention layer.
        options: shared by all blocks.
        inter_ffn: a feed-forward layer after every attention layer, or one at the end.

    Reference:
        Gao et al. 2022, Earthformer, equation 10.
    """

    specs: Sequence[CuboidSpec]
    options: BlockOptions
    inter_ffn: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        global_vectors: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array | None]:
        """`[b, t, h, w, c]` and `[b, g, c']` (or None) to the same shapes."""
        options, g = self.options, global_vectors
        attend, feed = options.calls(train)
        for i, spec in enumerate(self.specs):
            layer = CuboidSelfAttention(options.attention, spec, name=f"attention_{i}")
            dx, dg = attend(layer, x, g)
            x = materialize(x + dx)
            g = None if g is None or dg is None else g + dg
            if self.inter_ffn or i == len(self.specs) - 1:
                j = i if self.inter_ffn else 0
                ffn = FeedForward(options.feed_forward, name=f"ffn_{j}")
                x = materialize(feed(ffn, x))
                if g is not None and options.use_global_vector_ffn:
                    ffn = FeedForward(options.feed_forward, name=f"global_ffn_{j}")
                    g = feed(ffn, g)
        return x, g


class CrossAttentionBlock(nn.Module):
    """Cross-attention layers of one pattern, with their feed-forward layers.

    Attributes:
        specs: the windows of each attention layer.
        options: shared by all blocks.
        max_temporal_relative: reach of the bias tables in time.
        last_n_frames: attend to the memory's last n frames only; None is all.
        inter_ffn: a feed-forward layer after every attention layer, or one at the end.
    """

    specs: Sequence[CrossSpec]
    options: BlockOptions
    max_temporal_relative: int
    last_n_frames: int | None
    inter_ffn: bool

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memory: jax.Array,
        global_vectors: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> jax.Array:
        """`[b, t, h, w, c]` and memory `[b, t', h, w, c]` to the field's new value."""
        options = self.options
        attend, feed = options.calls(train)
        for i, spec in enumerate(self.specs):
            layer = CuboidCrossAttention(
                options.attention,
                spec,
                self.max_temporal_relative,
                self.last_n_frames,
                name=f"attention_{i}",
            )
            x = materialize(x + attend(layer, x, memory, global_vectors))
            if self.inter_ffn or i == len(self.specs) - 1:
                j = i if self.inter_ffn else 0
                ffn = FeedForward(options.feed_forward, name=f"ffn_{j}")
                x = materialize(feed(ffn, x))
        return x
