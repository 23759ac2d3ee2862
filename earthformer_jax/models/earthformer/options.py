"""Options of the layers that all blocks of a model share, in groups.

The fields of `Earthformer` are flat, so that each can be set by its name; layers take
whole groups. A default stands in the group, and the model's field refers to it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from earthformer_jax.checks import check_fields, inherited
from earthformer_jax.layers.feed_forward import FeedForwardOptions
from earthformer_jax.models import remat as remat_lib
from earthformer_jax.ops.resample import PADDINGS
from earthformer_jax.settings import DECAY, at_least, choice, setting


@dataclasses.dataclass(frozen=True)
class AttentionOptions:
    """Options of self- and cross-attention layers, the same throughout a model.

    Attributes:
        num_heads: attention heads; divides the channels.
        qkv_bias: biases in the projections to queries, keys and values.
        qk_scale: factor on the scores; None is head width ** -0.5.
        attn_drop: dropout rate on attention weights.
        proj_drop: dropout rate after the output projection.
        norm: "layer_norm" or "rms_norm".
        padding: "ignore", "zeros" or "nearest".
        use_relative_pos: add a learned bias by relative position in the cuboid.
        separate_global_qkv: separate projections for local-to-global, global-to-local
            and global-to-global attention.
        use_global_self_attn: global vectors attend to each other as well.
        use_final_proj: output projections of self-attention, of the field and of the
            global vectors.
        linear_init: linear initialisation, "fan_in" or "fan_out".
        implementation: of attention inside cuboids, see `ops.attention.attend`.
        match_reference: repeat two slips of the reference implementation that the
            released weights do not depend on: bias rows taken as a prefix of the flat
            index when a cuboid shrinks in height or width, and the mask of global
            attention in raster order when padding is "ignore".
        dtype: of the arithmetic; None follows the input.
        param_dtype: of the parameters.
    """

    num_heads: int = setting(4, at_least(1))
    qkv_bias: bool = False
    qk_scale: float | None = None
    attn_drop: float = setting(0.1, DECAY)
    proj_drop: float = setting(0.1, DECAY)
    norm: str = inherited(FeedForwardOptions, "norm")
    padding: str = setting("zeros", choice(*PADDINGS))
    use_relative_pos: bool = True
    separate_global_qkv: bool = False
    use_global_self_attn: bool = True
    use_final_proj: bool = True
    linear_init: str = inherited(FeedForwardOptions, "linear_init")
    implementation: str | Callable = "xla"
    match_reference: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32

    def __post_init__(self):
        check_fields(self)

    @property
    def types(self) -> dict[str, Any]:
        """Types of arithmetic and parameters, as arguments of a layer."""
        return dict(dtype=self.dtype, param_dtype=self.param_dtype)


@dataclasses.dataclass(frozen=True)
class BlockOptions:
    """Options that all blocks of a model share.

    Attributes:
        attention: of attention layers.
        feed_forward: of feed-forward layers.
        use_global_vector_ffn: feed-forward layers for the global vectors.
        remat: what of the layers is computed again in the backward pass;
            see `models.remat`.
        scan_blocks: equal blocks of a level run as a loop, which is compiled once.
    """

    attention: AttentionOptions = AttentionOptions()
    feed_forward: FeedForwardOptions = FeedForwardOptions()
    use_global_vector_ffn: bool = False
    remat: remat_lib.Remat = setting("none", remat_lib.ACCEPTED)
    scan_blocks: bool = False

    def __post_init__(self):
        check_fields(self)

    def calls(self, train: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """How to call attention layers, and feed-forward layers: `call(layer, *args)`.

        Args:
            train: the argument of the layers.
        """
        remat = remat_lib.name_of(self.remat)
        call = functools.partial(remat_lib.call_block, train=train)
        of_attention = "none" if remat == remat_lib.FEED_FORWARD else remat
        return (
            functools.partial(call, remat=of_attention),
            functools.partial(call, remat=remat),
        )


def block_options(model, dtype) -> BlockOptions:
    """The groups made of the fields of an `Earthformer`.

    Args:
        model: the model.
        dtype: of the arithmetic.
    """
    types = dict(dtype=dtype, param_dtype=model.param_dtype)
    attention = AttentionOptions(
        num_heads=model.num_heads,
        attn_drop=model.attn_drop,
        proj_drop=model.proj_drop,
        norm=model.norm,
        padding=model.padding,
        use_relative_pos=model.use_relative_pos,
        separate_global_qkv=model.separate_global_qkv,
        use_global_self_attn=model.use_global_self_attn,
        use_final_proj=model.self_attn_use_final_proj,
        linear_init=model.attn_init,
        implementation=model.attn_implementation,
        match_reference=model.match_reference,
        **types,
    )
    feed_forward = FeedForwardOptions(
        activation=model.ffn_activation,
        gated=model.gated_ffn,
        dropout=model.ffn_drop,
        norm=model.norm,
        linear_init=model.ffn_init,
        **types,
    )
    return BlockOptions(
        attention,
        feed_forward,
        model.use_global_vector_ffn,
        remat_lib.name_of(model.remat),
        model.scan_blocks,
    )
