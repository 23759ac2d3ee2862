"""Our module for each class of the reference, from the arguments a fixture stores."""

from collections.abc import Callable
from typing import Any, NamedTuple

from earthformer_jax.interop import official, torch_names
from earthformer_jax.interop.official_options import model_options
from earthformer_jax.layers.embedding import PositionEmbedding
from earthformer_jax.layers.feed_forward import FeedForward, FeedForwardOptions
from earthformer_jax.layers.norm import RMSNorm
from earthformer_jax.layers.resample import PatchMerging, Upsample
from earthformer_jax.models.earthformer.blocks import (
    CrossAttentionBlock,
    SelfAttentionBlock,
)
from earthformer_jax.models.earthformer.cuboid_attention import (
    CuboidCrossAttention,
    CuboidSelfAttention,
)
from earthformer_jax.models.earthformer.hierarchy import (
    Decoder,
    Encoder,
    level_features,
)
from earthformer_jax.models.earthformer.options import AttentionOptions, BlockOptions
from earthformer_jax.models.earthformer.stem import (
    Head,
    HeadStage,
    Stage,
    Stem,
)
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec


class Case(NamedTuple):
    """A module, how to call it, and how its parameters are called in torch.

    `call(module, variables, inputs)` returns the outputs by name. Rules are applied
    below `ours` and the result starts with `theirs`, as inside a whole model.
    """

    module: Any
    call: Callable
    rules: tuple = torch_names.LAYER_RULES
    ours: str = ""
    theirs: str = ""


def _call_with(*names):
    """Calls the module with the named inputs; they are absent where not stored."""

    def call(module, variables, inputs):
        out = module.apply(variables, *(inputs.get(name) for name in names))
        out = out if isinstance(out, tuple) else (out,)
        return dict(zip(("out", "global_vectors"), out, strict=False))

    return call


def _factor(value):
    return (1, value, value) if isinstance(value, int) else (1, *value)[-3:]


def _attention(c):
    return AttentionOptions(
        num_heads=c["num_heads"],
        qkv_bias=c.get("qkv_bias", False),
        qk_scale=c.get("qk_scale"),
        attn_drop=c["attn_drop"],
        proj_drop=c["proj_drop"],
        norm=c["norm_layer"],
        padding=c["padding_type"],
        use_relative_pos=c["use_relative_pos"],
        separate_global_qkv=c["separate_global_qkv"],
        use_global_self_attn=c.get("use_global_self_attn", False),
        use_final_proj=c.get("use_final_proj", c.get("self_attn_use_final_proj", True)),
        match_reference=True,
    )


def _block_options(c, activation="activation"):
    feed_forward = FeedForwardOptions(
        activation=c[activation],
        gated=c["gated_ffn"],
        dropout=c["ffn_drop"],
        norm=c["norm_layer"],
    )
    return BlockOptions(
        _attention(c),
        feed_forward,
        use_global_vector_ffn=c.get("use_global_vector_ffn", False),
        remat=int(c["checkpoint_level"]),
    )


def self_attention(c, inputs):
    module = CuboidSelfAttention(
        _attention(c), CuboidSpec(c["cuboid_size"], c["strategy"], c["shift_size"])
    )
    return Case(module, _call_with("x", "global_vectors"))


def cross_attention(c, inputs):
    module = CuboidCrossAttention(
        options=_attention(c),
        spec=CrossSpec(c["cuboid_hw"], c["strategy"], c["shift_hw"], c["n_temporal"]),
        max_temporal_relative=c["max_temporal_relative"],
        last_n_frames=c["cross_last_n_frames"],
    )
    return Case(module, _call_with("x", "mem", "mem_global_vectors"))


def feed_forward(c, inputs):
    options = FeedForwardOptions(
        hidden=c["hidden_size"],
        activation=c["activation"],
        gated=c["gated_proj"],
        pre_norm=c["pre_norm"],
        dropout=c["dropout"],
        norm=c["normalization"],
    )
    return Case(
        FeedForward(options), _call_with("data"), ours="b/ffn_0/", theirs="b.ffn_l.0."
    )


def rms_norm(c, inputs):
    portion = c["p"] if 0 < c["p"] <= 1 else 1.0
    return Case(RMSNorm(c["eps"], portion, c["bias"]), _call_with("x"))


def patch_merging(c, inputs):
    module = PatchMerging(
        c["out_dim"],
        _factor(c["downsample"]),
        c["padding_type"],
        norm=c["norm_layer"],
    )
    return Case(module, _call_with("x"))


def upsample(c, inputs):
    module = Upsample(c["out_dim"], tuple(c["target_size"][1:]), c["kernel_size"])
    return Case(module, _call_with("x"))


def position_embedding(c, inputs):
    module = PositionEmbedding((c["maxT"], c["maxH"], c["maxW"]), c["typ"])
    return Case(module, _call_with("x"))


_STEM = dict(ours="stem/", theirs="initial_encoder.")
_HEAD = dict(ours="head/", theirs="final_decoder.")


def _model_rules(stacked=False, cross_start=0):
    return torch_names.earthformer_rules(stacked_stem=stacked, cross_start=cross_start)


def initial_encoder(c, inputs):
    stage = Stage(c["out_dim"], _factor(c["downsample_scale"]), c["num_conv_layers"])
    module = Stem(
        (stage,), "conv", c["activation"], c["padding_type"], linear_init="fan_in"
    )
    return Case(module, _call_with("x"), _model_rules(), **_STEM)


def final_decoder(c, inputs):
    stage = HeadStage(tuple(c["target_thw"][1:]), c["dim"], c["num_conv_layers"])
    module = Head((stage,), "conv", c["activation"])
    return Case(module, _call_with("x"), _model_rules(), **_HEAD)


def stack_encoder(c, inputs):
    stages = tuple(
        Stage(features, _factor(scale), convs)
        for features, scale, convs in zip(
            c["out_dim_list"],
            c["downsample_scale_list"],
            c["num_conv_per_merge_list"],
            strict=True,
        )
    )
    module = Stem(
        stages, "stack_conv", c["activation"], c["padding_type"], linear_init="fan_in"
    )
    return Case(module, _call_with("x"), _model_rules(stacked=True), **_STEM)


def stack_decoder(c, inputs):
    stages = tuple(
        HeadStage(tuple(shape[1:3]), shape[3], convs)
        for shape, convs in zip(
            c["target_shape_list"], c["num_conv_per_up_list"], strict=True
        )
    )
    module = Head(stages, "stack_conv", c["activation"])
    return Case(module, _call_with("x"), _model_rules(stacked=True), **_HEAD)


def self_block(c, inputs):
    columns = (c["block_cuboid_size"], c["block_strategy"], c["block_shift_size"])
    specs = tuple(CuboidSpec(*layer) for layer in zip(*columns, strict=True))
    module = SelfAttentionBlock(specs, _block_options(c), c["use_inter_ffn"])
    return Case(module, _call_with("x", "global_vectors"))


def cross_block(c, inputs):
    columns = (
        c["block_cuboid_hw"],
        c["block_strategy"],
        c["block_shift_hw"],
        c["block_n_temporal"],
    )
    module = CrossAttentionBlock(
        tuple(CrossSpec(*layer) for layer in zip(*columns, strict=True)),
        _block_options(c),
        c["max_temporal_relative"],
        c["cross_last_n_frames"],
        c["use_inter_ffn"],
    )
    return Case(module, _call_with("x", "mem", "mem_global_vector"))


def encoder(c, inputs):
    patterns = c["block_attn_patterns"]
    levels = len(c["depth"])
    patterns = [patterns] * levels if isinstance(patterns, str) else patterns
    downsample = _factor(c["downsample"])
    module = Encoder(
        c["depth"],
        level_features(c["base_units"], levels, downsample, c["scale_alpha"]),
        patterns,
        _block_options(c, "ffn_activation"),
        downsample,
        c["use_inter_ffn"],
        c["global_dim_ratio"],
        resample_init="fan_in",
    )

    def call(module, variables, inputs):
        memories, vectors = module.apply(
            variables, inputs["x"], inputs.get("global_vectors")
        )
        named = {f"mem_{i}": memory for i, memory in enumerate(memories)}
        return named | {f"global_{i}": g for i, g in enumerate(vectors)}

    return Case(module, call, _model_rules(), "encoder/", "encoder.")


def decoder(c, inputs):
    levels = len(c["depth"])
    module = Decoder(
        c["depth"],
        [c["block_self_attn_patterns"]] * levels,
        [c["block_cross_attn_patterns"]] * levels,
        _block_options(c, "ffn_activation"),
        max_temporal_relative=c["max_temporal_relative"],
        cross_start=c["cross_start"],
        last_n_frames=c["cross_last_n_frames"],
        inter_ffn=c["use_inter_ffn"],
        hierarchical_pos_embed=c["hierarchical_pos_embed"],
        pos_embed=c["pos_embed_type"],
        use_self_global=c["use_self_global"],
        self_update_global=c["self_update_global"],
        use_cross_global=c["use_cross_global"],
        first_self_attn=c["use_first_self_attn"],
        upsample_kernel=c["upsample_kernel_size"],
    )

    def call(module, variables, inputs):
        memories = [inputs[f"mem_{i}"] for i in range(levels)]
        vectors = [inputs.get(f"g{i}") for i in range(levels)]
        return {"out": module.apply(variables, inputs["x"], memories, vectors)}

    rules = _model_rules(cross_start=c["cross_start"])
    return Case(module, call, rules, "decoder/", "decoder.")


def model(c, inputs):
    module = official.earthformer_from_config(c)
    stacked = model_options(c)["stem"] == "stack_conv"
    return Case(module, _call_with("x"), _model_rules(stacked, c["dec_cross_start"]))


CLASSES = {
    "CuboidSelfAttentionLayer": self_attention,
    "CuboidCrossAttentionLayer": cross_attention,
    "PositionwiseFFN": feed_forward,
    "RMSNorm": rms_norm,
    "PatchMerging3D": patch_merging,
    "Upsample3DLayer": upsample,
    "PosEmbed": position_embedding,
    "InitialEncoder": initial_encoder,
    "FinalDecoder": final_decoder,
    "InitialStackPatchMergingEncoder": stack_encoder,
    "FinalStackUpsamplingDecoder": stack_decoder,
    "StackCuboidSelfAttentionBlock": self_block,
    "StackCuboidCrossAttentionBlock": cross_block,
    "CuboidTransformerEncoder": encoder,
    "CuboidTransformerDecoder": decoder,
    "CuboidTransformerModel": model,
}
