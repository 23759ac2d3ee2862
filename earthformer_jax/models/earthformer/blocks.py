"""Stacks of cuboid attention and feed-forward layers: the blocks of Earthformer.

Each attention layer adds its update to the field; a feed-forward layer follows every
attention layer, or only the last (`inter_ffn`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.layers.feed_forward import FeedForward
from earthformer_jax.models.earthformer.cuboid_attention import (
    CuboidCrossAttention,
    CuboidSelfAttention,
)
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.dense import settle
from earthformer_jax.ops.patterns import CrossSpec


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """Options that all blocks of a model share.

    Attributes:
        num_heads: attention heads.
        attn_drop: dropout rate on attention weights.
        proj_drop: dropout rate after output projections.
        ffn_drop: dropout rate inside feed-forward layers.
        ffn_activation: name of `activation.ACTIVATIONS`.
        gated_ffn: gated feed-forward layers.
        norm: "layer_norm" or "rms_norm".
        padding: "ignore", "zeros" or "nearest".
        use_relative_pos: relative position biases.
        separate_global_qkv: own projections for attention with global vectors.
        use_global_self_attn: global vectors attend to each other as well.
        use_global_vector_ffn: feed-forward layers for the global vectors.
        use_final_proj: output projections of self-attention.
        remat: what is recomputed in the backward pass: 0 nothing, 1 feed-forward
            layers, 2 attention layers too.
        scan_blocks: equal blocks of a level run as a loop, which is compiled once.
        attn_implementation: see `ops.attention.attend`.
        attn_init: linear initialisation of attention layers.
        ffn_init: linear initialisation of feed-forward layers.
        match_reference: see `CuboidSelfAttention`.
        dtype: of the arithmetic; None follows the input.
        param_dtype: of the parameters.
    """

    num_heads: int = 4
    attn_drop: float = 0.0
    proj_drop: float = 0.0
    ffn_drop: float = 0.0
    ffn_activation: str = "gelu"
    gated_ffn: bool = False
    norm: str = "layer_norm"
    padding: str = "zeros"
    use_relative_pos: bool = True
    separate_global_qkv: bool = False
    use_global_self_attn: bool = False
    use_global_vector_ffn: bool = False
    use_final_proj: bool = True
    remat: int = 0
    scan_blocks: bool = False
    attn_implementation: str = "xla"
    attn_init: str = "fan_in"
    ffn_init: str = "fan_in"
    match_reference: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def attention(self) -> dict[str, Any]:
        """Arguments of both kinds of attention layer."""
        return dict(
            num_heads=self.num_heads,
            attn_drop=self.attn_drop,
            proj_drop=self.proj_drop,
            norm=self.norm,
            padding=self.padding,
            use_relative_pos=self.use_relative_pos,
            separate_global_qkv=self.separate_global_qkv,
            linear_init=self.attn_init,
            implementation=self.attn_implementation,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )

    def feed_forward(self) -> dict[str, Any]:
        """Arguments of a feed-forward layer."""
        return dict(
            activation=self.ffn_activation,
            gated=self.gated_ffn,
            dropout=self.ffn_drop,
            norm=self.norm,
            linear_init=self.ffn_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )


def _run(module, *args, train, remat):
    """Calls a module, recomputing it in the backward pass if `remat`."""
    if not remat:
        return module(*args, train=train)
    return nn.remat(lambda inner, *a: inner(*a, train=train))(module, *args)


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
    inter_ffn: bool = True

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
        for i, spec in enumerate(self.specs):
            layer = CuboidSelfAttention(
                spec=spec,
                use_global_self_attn=options.use_global_self_attn,
                use_final_proj=options.use_final_proj,
                match_reference=options.match_reference,
                name=f"attention_{i}",
                **options.attention(),
            )
            dx, dg = _run(layer, x, g, train=train, remat=options.remat >= 2)
            x = settle(x + dx)
            g = g if g is None else g + dg
            if self.inter_ffn or i == len(self.specs) - 1:
                j = i if self.inter_ffn else 0
                remat = options.remat >= 1
                ffn = FeedForward(name=f"ffn_{j}", **options.feed_forward())
                x = settle(_run(ffn, x, train=train, remat=remat))
                if g is not None and options.use_global_vector_ffn:
                    ffn = FeedForward(name=f"global_ffn_{j}", **options.feed_forward())
                    g = _run(ffn, g, train=train, remat=remat)
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
    last_n_frames: int | None = None
    inter_ffn: bool = True

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
        for i, spec in enumerate(self.specs):
            layer = CuboidCrossAttention(
                spec=spec,
                max_temporal_relative=self.max_temporal_relative,
                last_n_frames=self.last_n_frames,
                name=f"attention_{i}",
                **options.attention(),
            )
            dx = _run(
                layer,
                x,
                memory,
                global_vectors,
                train=train,
                remat=options.remat >= 2,
            )
            x = settle(x + dx)
            if self.inter_ffn or i == len(self.specs) - 1:
                j = i if self.inter_ffn else 0
                ffn = FeedForward(name=f"ffn_{j}", **options.feed_forward())
                x = settle(_run(ffn, x, train=train, remat=options.remat >= 1))
        return x
