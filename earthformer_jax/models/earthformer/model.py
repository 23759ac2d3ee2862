"""Earthformer: a hierarchical encoder-decoder of cuboid attention.

The stem shrinks every frame; the encoder alternates blocks of cuboid self-attention
with patch merging and keeps one memory per level; the decoder starts from learned
position embeddings of the frames to come, reads the memories by cuboid cross-attention
from the coarsest level to the finest, and the head restores the frames. All output
frames are computed at once.

Reference:
    Gao et al. 2022, Earthformer: Exploring Space-Time Transformers for Earth System
    Forecasting, NeurIPS. https://arxiv.org/abs/2207.05833
"""

from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.checks import (
    NONE,
    ODD,
    SIZES,
    check_fields,
    check_value,
    either,
    grid,
    inherited,
)
from earthformer_jax.layers import initializers
from earthformer_jax.layers.activation import ACTIVATIONS
from earthformer_jax.layers.dense import Dense
from earthformer_jax.layers.embedding import KINDS as POSITIONS
from earthformer_jax.layers.embedding import PositionEmbedding
from earthformer_jax.layers.feed_forward import FeedForwardOptions
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.earthformer.hierarchy import (
    CrossPattern,
    Decoder,
    Encoder,
    SelfPattern,
    check_pattern,
    level_features,
    per_level,
)
from earthformer_jax.models.earthformer.options import (
    AttentionOptions,
    BlockOptions,
    block_options,
)
from earthformer_jax.models.earthformer.stem import KINDS as STEMS
from earthformer_jax.models.earthformer.stem import (
    Head,
    Stage,
    Stem,
    group_count,
    head_stages,
)
from earthformer_jax.models.shapes import check_inputs, check_shapes
from earthformer_jax.ops import attention, resample
from earthformer_jax.ops.dense import repeat_to, widen
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.resample import Grid, merged_grid
from earthformer_jax.settings import (
    NOT_NEGATIVE,
    Accepted,
    at_least,
    choice,
    setting,
)

_STAGE = Accepted(
    "stages of (features, factor along (t, h, w), convolutions)",
    lambda stage: (
        isinstance(stage, list | tuple)
        and len(stage) == 3
        and at_least(1).test(stage[0])
        and grid().test(stage[1])
        and at_least(0).test(stage[2])
    ),
)
START_METHODS = ("zeros", "nearest_interp", "last", "mean")


class Earthformer(nn.Module):
    """The direct (not auto-regressive) Earthformer.

    The defaults are the model of table 8 with 8 global vectors; `variants.VARIANTS` has
    others. Shapes are without the batch axis. Options of the layers, which all blocks
    share, are described in `AttentionOptions` (num_heads, attn_drop, proj_drop, norm,
    padding, use_relative_pos, separate_global_qkv, use_global_self_attn,
    match_reference, and self_attn_use_final_proj, attn_init, attn_implementation),
    `FeedForwardOptions` (ffn_activation, gated_ffn, ffn_drop, ffn_init, norm) and
    `BlockOptions` (use_global_vector_ffn, remat, scan_blocks).

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out).
        base_units: channels of the finest level.
        block_units: channels per level; None: `level_features`.
        scale_alpha: growth of the channels from level to level.
        downsample: factor between levels along (t, h, w).
        upsample_kernel: side of the decoder's up-sampling convolutions.
        enc_depth: encoder blocks per level; its length is the number of levels.
        enc_pattern: a name of `ops.patterns`, or for each level a name or a tuple of
            cuts; "axial,full" gives one name per level.
        enc_use_inter_ffn: whether a feed-forward layer follows every attention layer,
            or only the last one of a block.
        dec_depth: decoder blocks per level.
        dec_self_pattern: self-attention pattern of the decoder, like `enc_pattern`.
        dec_cross_pattern: cross-attention pattern, like `enc_pattern`.
        dec_cross_start: first level with cross-attention.
        dec_cross_last_n_frames: attend to the memory's last n frames; None is all.
        dec_use_inter_ffn: like `enc_use_inter_ffn`, for the decoder.
        dec_hierarchical_pos_embed: position embeddings after every up-sampling.
        dec_use_first_self_attn: start the decoder with self-attention.
        num_global_vectors: number of global vectors; 0 switches them off.
        use_dec_self_global: decoder self-attention uses global vectors.
        dec_self_update_global: decoder self-attention also updates them within a
            level; needs `use_dec_self_global`.
        use_dec_cross_global: cross-attention uses global vectors.
        global_dim_ratio: width of global vectors relative to the channels; other than
            1 needs `separate_global_qkv`.
        start: the decoder's first state: "zeros" (position embeddings alone), or from
            the coarsest memory "nearest_interp", "last", "mean".
        stem: "conv" (one stage) or "stack_conv".
        stem_scale: factor of the one-stage stem along (t, h, w).
        stem_conv_layers: convolutions of the one-stage stem.
        head_conv_layers: convolutions of the one-stage head.
        stem_stages: (features, factor, convolutions) per stage of a "stack_conv" stem.
        stem_activation: activation of the convolutions in stem and head.
        pos_embed: "t+h+w" or "t+hw".
        resample_init: linear initialisation of patch merging and of the projections
            before and after the decoder.
        forecast_change: add the last input frame to the network's output. Not in the
            paper; helps when training is short.
        dtype: of the arithmetic; None is float32.
        param_dtype: of the parameters.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    base_units: int = setting(64, at_least(1))
    block_units: Sequence[int] | None = setting(None, either(SIZES, NONE))
    scale_alpha: float = setting(1.0, NOT_NEGATIVE)
    num_heads: int = inherited(AttentionOptions, "num_heads")
    attn_drop: float = inherited(AttentionOptions, "attn_drop")
    proj_drop: float = inherited(AttentionOptions, "proj_drop")
    ffn_drop: float = inherited(FeedForwardOptions, "dropout")
    downsample: Grid = setting((1, 2, 2), grid())
    upsample_kernel: int = setting(3, ODD)
    enc_depth: Sequence[int] = setting((4, 4), SIZES)
    enc_pattern: str | Sequence[SelfPattern] = "axial"
    enc_use_inter_ffn: bool = True
    dec_depth: Sequence[int] = setting((4, 4), SIZES)
    dec_self_pattern: str | Sequence[SelfPattern] = "axial"
    dec_cross_pattern: str | Sequence[CrossPattern] = "cross_1x1"
    dec_cross_start: int = setting(0, at_least(0))
    dec_cross_last_n_frames: int | None = setting(None, either(at_least(1), NONE))
    dec_use_inter_ffn: bool = True
    dec_hierarchical_pos_embed: bool = False
    dec_use_first_self_attn: bool = False
    num_global_vectors: int = setting(8, at_least(0))
    use_dec_self_global: bool = False
    dec_self_update_global: bool = True
    use_dec_cross_global: bool = False
    use_global_vector_ffn: bool = inherited(BlockOptions, "use_global_vector_ffn")
    use_global_self_attn: bool = inherited(AttentionOptions, "use_global_self_attn")
    separate_global_qkv: bool = inherited(AttentionOptions, "separate_global_qkv")
    global_dim_ratio: int = setting(1, at_least(1))
    start: str = setting("zeros", choice(*START_METHODS))
    stem: str = setting("conv", choice(*STEMS))
    stem_scale: Grid = setting((1, 2, 2), grid())
    stem_conv_layers: int = setting(2, at_least(0))
    head_conv_layers: int = setting(1, at_least(0))
    stem_stages: Sequence[Stage | Sequence] = ()
    stem_activation: str = setting("leaky", choice(*ACTIVATIONS))
    ffn_activation: str = inherited(FeedForwardOptions, "activation")
    gated_ffn: bool = inherited(FeedForwardOptions, "gated")
    norm: str = inherited(FeedForwardOptions, "norm")
    padding: str = inherited(AttentionOptions, "padding")
    pos_embed: str = setting("t+h+w", choice(*POSITIONS))
    use_relative_pos: bool = inherited(AttentionOptions, "use_relative_pos")
    self_attn_use_final_proj: bool = inherited(AttentionOptions, "use_final_proj")
    remat: remat_lib.Remat = inherited(BlockOptions, "remat")
    scan_blocks: bool = inherited(BlockOptions, "scan_blocks")
    attn_implementation: str = inherited(AttentionOptions, "implementation")
    attn_init: str = inherited(AttentionOptions, "linear_init")
    ffn_init: str = inherited(FeedForwardOptions, "linear_init")
    resample_init: str = setting("fan_in", choice(*initializers.LINEAR))
    forecast_change: bool = False
    match_reference: bool = inherited(AttentionOptions, "match_reference")
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @property
    def levels(self) -> int:
        """Number of levels of the hierarchy."""
        return len(self.enc_depth)

    @property
    def features(self) -> tuple[int, ...]:
        """Channels of each level."""
        if self.block_units is not None:
            return tuple(self.block_units)
        return level_features(
            self.base_units, self.levels, self.downsample, self.scale_alpha
        )

    @property
    def memory_grids(self) -> tuple[Grid, ...]:
        """(t, h, w) of the encoder's memory of each level."""
        grid = tuple(self.input_shape[:3])
        for stage in self.stages:
            grid = merged_grid(grid, stage.factor)
        grids = [grid]
        for _ in range(self.levels - 1):
            grids.append(merged_grid(grids[-1], self.downsample))
        return tuple(grids)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages of the stem."""
        if self.stem == "stack_conv":
            return tuple(Stage(*cast(Any, stage)) for stage in self.stem_stages)
        return (Stage(self.base_units, self.stem_scale, self.stem_conv_layers),)

    def check(self) -> None:
        """Raises ValueError for inconsistent options."""
        check_shapes(self.input_shape, self.target_shape)
        check_fields(self)
        try:
            attention.implementation_of(self.attn_implementation)
        except ValueError as error:
            raise ValueError(f"attn_{error}") from None
        if self.attn_implementation in ("library", "cudnn") and self.attn_drop:
            raise ValueError(
                f"attn_implementation={self.attn_implementation!r} cannot drop "
                f"attention weights; got attn_drop={self.attn_drop}, expected 0"
            )
        if self.attn_implementation == "cudnn":
            # Asked only here: the question makes JAX look for devices.
            platform = jax.default_backend()
            if platform != "gpu":
                raise ValueError(
                    f"attn_implementation={self.attn_implementation!r} needs a GPU; "
                    f"JAX runs on {platform}, use 'xla'"
                )
        if len(self.dec_depth) != self.levels:
            raise ValueError(
                "enc_depth and dec_depth need one entry per level; got "
                f"{tuple(self.enc_depth)} and {tuple(self.dec_depth)}"
            )
        if len(self.features) != self.levels or self.features[0] != self.base_units:
            raise ValueError(
                f"block_units needs {self.levels} entries that start with base_units "
                f"{self.base_units}; got {self.features}"
            )
        if any(c % self.num_heads for c in self.features):
            raise ValueError(
                f"num_heads must divide the channels of every level {self.features}; "
                f"got {self.num_heads}"
            )
        if self.dec_cross_start >= self.levels:
            raise ValueError(
                f"dec_cross_start must be a level, 0 ... {self.levels - 1}; "
                f"got {self.dec_cross_start}"
            )
        for stage in self.stem_stages:
            check_value("stem_stages", stage, _STAGE)
        if not self.stages or self.stages[-1].features != self.base_units:
            raise ValueError(
                f"the stem's last stage must have base_units={self.base_units} "
                f"channels; got stages {self.stages}"
            )
        if self.global_dim_ratio != 1 and not self.separate_global_qkv:
            raise ValueError(
                f"global_dim_ratio={self.global_dim_ratio} needs "
                "separate_global_qkv=True"
            )
        try:
            group_count(self.stem, self.base_units)
        except ValueError as error:
            raise ValueError(f"base_units={self.base_units}: {error}") from None
        for name in ("enc_pattern", "dec_self_pattern", "dec_cross_pattern"):
            check_pattern(name, getattr(self, name), self.memory_grids)
        if self.forecast_change and (
            self.target_shape[1:3] != self.input_shape[1:3]
            or self.target_shape[3] > self.input_shape[3]
        ):
            raise ValueError(
                f"forecast_change needs targets {tuple(self.target_shape)} on the grid "
                f"of the inputs {tuple(self.input_shape)}, with no more channels"
            )

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Forecasts the next frames.

        Args:
            inputs: `[b, T, H, W, C_in]`.
            train: whether dropout acts (needs the rng "dropout").

        Returns:
            float32 `[b, K, H, W, C_out]`.

        Raises:
            ValueError: for inconsistent options, or inputs of another shape
                than `input_shape`.
        """
        self.check()
        check_inputs(inputs, self.input_shape)
        dtype = self.dtype or jnp.promote_types(inputs.dtype, jnp.float32)
        types: dict[str, Any] = dict(dtype=dtype, param_dtype=self.param_dtype)
        options = block_options(self, dtype)

        x = Stem(
            self.stages,
            self.stem,
            self.stem_activation,
            self.padding,
            self.resample_init,
            name="stem",
            **types,
        )(inputs.astype(dtype))
        x = PositionEmbedding(
            x.shape[1:4], self.pos_embed, name="encoder_position", **types
        )(x)
        frames_in = x.shape[1]

        memories, global_memories = Encoder(
            self.enc_depth,
            self.features,
            per_level(self.enc_pattern, self.levels, "enc_pattern"),
            options,
            self.downsample,
            self.enc_use_inter_ffn,
            self.global_dim_ratio,
            self.resample_init,
            name="encoder",
        )(x, self._global_vectors(inputs.shape[0], dtype), train=train)

        z = self._first_state(memories[-1], types)
        z = Decoder(
            self.dec_depth,
            per_level(self.dec_self_pattern, self.levels, "dec_self_pattern"),
            per_level(self.dec_cross_pattern, self.levels, "dec_cross_pattern"),
            options,
            max_temporal_relative=frames_in + self.target_shape[0],
            cross_start=self.dec_cross_start,
            last_n_frames=self.dec_cross_last_n_frames,
            inter_ffn=self.dec_use_inter_ffn,
            hierarchical_pos_embed=self.dec_hierarchical_pos_embed,
            pos_embed=self.pos_embed,
            use_self_global=self.use_dec_self_global,
            self_update_global=self.dec_self_update_global,
            use_cross_global=self.use_dec_cross_global,
            first_self_attn=self.dec_use_first_self_attn,
            upsample_kernel=self.upsample_kernel,
            name="decoder",
        )(z, memories, global_memories, train=train)

        z = Head(
            self._head_stages(), self.stem, self.stem_activation, name="head", **types
        )(z)
        forecast = Dense(
            self.target_shape[-1],
            kernel_init=initializers.linear(self.resample_init),
            name="head_proj",
            **types,
        )(z)
        forecast = forecast.astype(jnp.promote_types(dtype, jnp.float32))
        if self.forecast_change:
            forecast += inputs[:, -1:, ..., : self.target_shape[-1]]
        return forecast

    def _head_stages(self):
        stages = head_stages(self.stages, self.target_shape[:3])
        if self.stem == "stack_conv":
            return stages
        return (stages[0]._replace(conv_layers=self.head_conv_layers),)

    def _global_vectors(self, batch: int, dtype) -> jax.Array | None:
        """The learned global vectors `[b, g, c]`, or None."""
        if not self.num_global_vectors:
            return None
        vectors = self.param(
            "global_vectors",
            initializers.table,
            (self.num_global_vectors, self.global_dim_ratio * self.base_units),
            self.param_dtype,
        )
        return repeat_to(vectors, (batch, *vectors.shape), dtype)

    def _first_state(self, memory: jax.Array, types) -> jax.Array:
        """The decoder's first state `[b, K, h', w', c']`."""
        batch, frames = memory.shape[0], self.target_shape[0]
        _, h, w, features = memory.shape[1:]
        position = PositionEmbedding(
            (frames, h, w), self.pos_embed, name="decoder_position", **types
        )
        z = jnp.zeros((frames, h, w, features), memory.dtype)
        copied = split.copies(z, memory)
        z = z[None] if copied is None else copied
        if self.start == "zeros" or self.is_initializing():
            # Created for every method, so that the parameters are always the same.
            z = position(z)
        if self.start == "nearest_interp":
            z = resample.resize_nearest(memory, (frames, h, w))
        elif self.start == "last":
            z = jnp.repeat(memory[:, -1:], frames, axis=1)
        elif self.start == "mean":
            z = jnp.repeat(memory.mean(axis=1, keepdims=True), frames, axis=1)
        z = Dense(
            features,
            kernel_init=initializers.linear(self.resample_init),
            name="z_proj",
            **types,
        )(z)
        if len(z) == batch:
            return z
        return split.of_examples(widen(z), batch).astype(z.dtype)
