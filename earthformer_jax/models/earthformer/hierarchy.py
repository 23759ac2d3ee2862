"""Encoder and decoder of the Earthformer: blocks of attention on several levels.

The encoder alternates blocks of cuboid self-attention with patch merging and keeps one
memory per level. The decoder reads the memories by cuboid cross-attention from the
coarsest level to the finest.

Reference:
    Gao et al. 2022, Earthformer, section 3.3. https://arxiv.org/abs/2207.05833
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import linen as nn

from earthformer_jax.checks import shown
from earthformer_jax.layers import initializers
from earthformer_jax.layers.dense import Dense
from earthformer_jax.layers.embedding import PositionEmbedding
from earthformer_jax.layers.repeat import repeat
from earthformer_jax.layers.resample import PatchMerging, Upsample
from earthformer_jax.models.earthformer.blocks import (
    CrossAttentionBlock,
    SelfAttentionBlock,
)
from earthformer_jax.models.earthformer.options import BlockOptions
from earthformer_jax.ops import patterns
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.ops.resample import Grid

SelfPattern = str | tuple[CuboidSpec, ...]
CrossPattern = str | tuple[CrossSpec, ...]


def level_features(
    base_units: int, levels: int, downsample: Grid, scale_alpha: float = 1.0
) -> tuple[int, ...]:
    """Channels of each level: base_units * int((max(downsample) ** alpha) ** level)."""
    growth = max(downsample) ** scale_alpha
    return tuple(base_units * int(growth**i) for i in range(levels))


def per_level(pattern, levels, kind):
    """One pattern for every level, from one name or one entry per level.

    A string may hold one name per level, separated by commas.
    """
    if isinstance(pattern, str):
        pattern = tuple(name.strip() for name in pattern.split(","))
        pattern = pattern * levels if len(pattern) == 1 else pattern
    if len(pattern) != levels:
        raise ValueError(
            f"{kind} needs one pattern for all levels or one for each of {levels}; "
            f"got {len(pattern)}: {pattern}"
        )
    return tuple(pattern)


def self_specs(pattern: SelfPattern, grid: Grid) -> tuple[CuboidSpec, ...]:
    """The cuts of a self-attention pattern, named or given, on a grid."""
    if isinstance(pattern, str):
        return patterns.self_attention(pattern, grid)
    return tuple(pattern)


def cross_specs(pattern: CrossPattern, grid: Grid) -> tuple[CrossSpec, ...]:
    """The windows of a cross-attention pattern, named or given, on a grid."""
    if isinstance(pattern, str):
        return patterns.cross_attention(pattern, grid)
    return tuple(pattern)


def check_pattern(name: str, pattern: Any, grids: Sequence[Grid]) -> None:
    """Rejects patterns that are unknown, or made of something else than cuts.

    Args:
        name: of the option; one with "cross" in it is a cross-attention pattern.
        pattern: its value.
        grids: (t, h, w) of each level.

    Raises:
        ValueError: naming the option and its value.
    """
    is_cross = "cross" in name
    specs, kind = (cross_specs, CrossSpec) if is_cross else (self_specs, CuboidSpec)
    try:
        if not isinstance(pattern, str | list | tuple):
            raise ValueError("expected a name, or a name or cuts for each level")
        levels = per_level(pattern, len(grids), name)
        for level, grid in zip(levels, grids, strict=True):
            if not isinstance(level, str | list | tuple):
                raise ValueError(f"{shown(level)} is neither a name nor cuts")
            cuts = specs(level, grid)
            if not cuts or not all(isinstance(cut, kind) for cut in cuts):
                raise ValueError(f"{shown(level)} is not made of {kind.__name__}")
    except ValueError as error:
        raise ValueError(f"{name}={shown(pattern)}: {error}") from None


class Encoder(nn.Module):
    """Self-attention blocks and patch merging; returns the memory of every level.

    Attributes:
        depth: blocks per level.
        features: channels per level.
        patterns: attention pattern per level.
        options: shared by all blocks.
        downsample: factor between levels along (t, h, w).
        inter_ffn: a feed-forward layer after every attention layer.
        global_dim_ratio: width of the global vectors relative to the channels.
        resample_init: linear initialisation of the merges.
    """

    depth: Sequence[int]
    features: Sequence[int]
    patterns: Sequence[SelfPattern]
    options: BlockOptions
    downsample: Grid
    inter_ffn: bool
    global_dim_ratio: int
    resample_init: str

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        global_vectors: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[list[jax.Array], list[jax.Array | None]]:
        """Field `[b, t, h, w, c]` and vectors `[b, g, c']` to those of every level."""
        types = self.options.attention.types
        g, memories, global_memories = global_vectors, [], []
        for level, depth in enumerate(self.depth):
            if level:
                x = PatchMerging(
                    self.features[level],
                    self.downsample,
                    self.options.attention.padding,
                    linear_init=self.resample_init,
                    name=f"merge_{level - 1}",
                    **types,
                )(x)
                if g is not None:
                    g = Dense(
                        self.global_dim_ratio * self.features[level],
                        kernel_init=initializers.torch_kernel,
                        bias_init=initializers.torch_bias(g.shape[-1]),
                        name=f"global_merge_{level - 1}",
                        **types,
                    )(g)
            specs = self_specs(self.patterns[level], x.shape[1:4])
            blocks = [
                SelfAttentionBlock(
                    specs, self.options, self.inter_ffn, name=f"block_{level}_{k}"
                )
                for k in range(depth)
            ]
            x, g = repeat(
                self,
                [(block,) for block in blocks],
                lambda group, state: group[0](*state, train=train),
                (x, g),
                scan=self.options.scan_blocks,
            )
            self.sow("intermediates", "memories", x)
            if g is not None:
                self.sow("intermediates", "global_vectors", g)
            memories.append(x)
            global_memories.append(g)
        return memories, global_memories


class Decoder(nn.Module):
    """Cross- and self-attention blocks from the coarsest level to the finest.

    At the coarsest level cross-attention comes first and there is one self-attention
    block fewer, unless `first_self_attn`. The self-attention patterns are made for the
    memory's grid, so their temporal cuboids are T_in long, as the released weights
    need.

    Attributes:
        depth: blocks per level.
        self_patterns: self-attention pattern per level.
        cross_patterns: cross-attention pattern per level.
        options: shared by all blocks.
        max_temporal_relative: reach of the cross-attention bias tables in time.
        cross_start: first level that has cross-attention.
        last_n_frames: attend to the memory's last n frames only; None is all.
        inter_ffn: a feed-forward layer after every attention layer.
        hierarchical_pos_embed: add position embeddings after every up-sampling.
        pos_embed: kind of these embeddings, "t+h+w" or "t+hw".
        use_self_global: self-attention uses the global vectors of the level.
        self_update_global: the next block of the level uses the vectors as
            self-attention updated them.
        use_cross_global: cross-attention uses the global vectors of the level.
        first_self_attn: start the coarsest level with self-attention.
        upsample_kernel: side of the up-sampling convolutions' windows.
    """

    depth: Sequence[int]
    self_patterns: Sequence[SelfPattern]
    cross_patterns: Sequence[CrossPattern]
    options: BlockOptions
    max_temporal_relative: int
    cross_start: int
    last_n_frames: int | None
    inter_ffn: bool
    hierarchical_pos_embed: bool
    pos_embed: str
    use_self_global: bool
    self_update_global: bool
    use_cross_global: bool
    first_self_attn: bool
    upsample_kernel: int

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        memories: Sequence[jax.Array],
        global_memories: Sequence[jax.Array | None],
        *,
        train: bool = False,
    ) -> jax.Array:
        """`[b, K, h', w', c']` of the coarsest level to `[b, K, h, w, c]`."""
        types = self.options.attention.types
        top = len(self.depth) - 1
        for level in range(top, -1, -1):
            memory, g = memories[level], global_memories[level]
            grid = memory.shape[1:4]
            self_cuts = self_specs(self.self_patterns[level], grid)
            cross_cuts = cross_specs(self.cross_patterns[level], grid)
            late_start = level == top and not self.first_self_attn
            groups: list[Any] = [
                self._pair(level, k, late_start, self_cuts, cross_cuts)
                for k in range(self.depth[level])
            ]

            def step(group, state, memory=memory):
                x, g = state
                attend, *cross = group
                if attend is not None:
                    x, new_g = attend(
                        x, g if self.use_self_global else None, train=train
                    )
                    if self.use_self_global and self.self_update_global:
                        g = new_g
                for layer in cross:
                    used = g if self.use_cross_global else None
                    x = layer(x, memory, used, train=train)
                return x, g

            state = x, g
            if late_start:
                state = step(groups.pop(0), state)
            x, _ = repeat(self, groups, step, state, scan=self.options.scan_blocks)
            if level:
                _, _, h, w, features = memories[level - 1].shape
                x = Upsample(
                    features,
                    (h, w),
                    self.upsample_kernel,
                    name=f"upsample_{level - 1}",
                    **types,
                )(x)
                if self.hierarchical_pos_embed:
                    x = PositionEmbedding(
                        x.shape[1:4],
                        self.pos_embed,
                        name=f"position_{level - 1}",
                        **types,
                    )(x)
        return x

    def _pair(self, level, k, late_start, self_cuts, cross_cuts):
        """Self-attention block number k of a level (or None), and cross-attention."""
        attend, cross = None, ()
        if k or not late_start:
            attend = SelfAttentionBlock(
                self_cuts,
                self.options,
                self.inter_ffn,
                name=f"self_{level}_{k - late_start}",
            )
        if level >= self.cross_start:
            block = CrossAttentionBlock(
                cross_cuts,
                self.options,
                self.max_temporal_relative,
                self.last_n_frames,
                self.inter_ffn,
                name=f"cross_{level}_{k}",
            )
            cross = (block,)
        return attend, *cross
