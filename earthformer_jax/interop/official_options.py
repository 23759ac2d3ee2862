"""The reference's constructor arguments, and what they are called here."""

import difflib
from collections.abc import Mapping
from typing import Any

from earthformer_jax.models import remat as remat_lib
from earthformer_jax.models.earthformer.stem import Stage
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec

_REQUIRED = object()

# Arguments of the reference's `CuboidTransformerModel` with its defaults.
DEFAULTS: dict[str, Any] = dict(
    input_shape=_REQUIRED,
    target_shape=_REQUIRED,
    base_units=128,
    block_units=None,
    scale_alpha=1.0,
    num_heads=4,
    attn_drop=0.0,
    proj_drop=0.0,
    ffn_drop=0.0,
    downsample=2,
    downsample_type="patch_merge",
    upsample_type="upsample",
    upsample_kernel_size=3,
    enc_depth=(4, 4, 4),
    enc_attn_patterns=None,
    enc_cuboid_size=((4, 4, 4), (4, 4, 4)),
    enc_cuboid_strategy=(("l", "l", "l"), ("d", "d", "d")),
    enc_shift_size=((0, 0, 0), (0, 0, 0)),
    enc_use_inter_ffn=True,
    dec_depth=(2, 2),
    dec_cross_start=0,
    dec_self_attn_patterns=None,
    dec_self_cuboid_size=((4, 4, 4), (4, 4, 4)),
    dec_self_cuboid_strategy=(("l", "l", "l"), ("d", "d", "d")),
    dec_self_shift_size=((1, 1, 1), (0, 0, 0)),
    dec_cross_attn_patterns=None,
    dec_cross_cuboid_hw=((4, 4), (4, 4)),
    dec_cross_cuboid_strategy=(("l", "l", "l"), ("d", "l", "l")),
    dec_cross_shift_hw=((0, 0), (0, 0)),
    dec_cross_n_temporal=(1, 2),
    dec_cross_last_n_frames=None,
    dec_use_inter_ffn=True,
    dec_hierarchical_pos_embed=False,
    num_global_vectors=4,
    use_dec_self_global=True,
    dec_self_update_global=True,
    use_dec_cross_global=True,
    use_global_vector_ffn=True,
    use_global_self_attn=False,
    separate_global_qkv=False,
    global_dim_ratio=1,
    z_init_method="nearest_interp",
    initial_downsample_type="conv",
    initial_downsample_activation="leaky",
    initial_downsample_scale=1,
    initial_downsample_conv_layers=2,
    final_upsample_conv_layers=2,
    initial_downsample_stack_conv_num_layers=1,
    initial_downsample_stack_conv_dim_list=None,
    initial_downsample_stack_conv_downscale_list=(1,),
    initial_downsample_stack_conv_num_conv_list=(2,),
    ffn_activation="leaky",
    gated_ffn=False,
    norm_layer="layer_norm",
    padding_type="ignore",
    pos_embed_type="t+hw",
    checkpoint_level=True,
    use_relative_pos=True,
    self_attn_use_final_proj=True,
    dec_use_first_self_attn=False,
    attn_linear_init_mode="0",
    ffn_linear_init_mode="0",
    conv_init_mode="0",
    down_up_linear_init_mode="0",
    norm_init_mode="0",
)

# The yaml files' own names for the patterns.
_YAML_NAMES = dict(
    self_pattern="enc_attn_patterns",
    cross_self_pattern="dec_self_attn_patterns",
    cross_pattern="dec_cross_attn_patterns",
)

# Arguments that mean the same here, by our name.
_SAME = dict(
    base_units="base_units",
    block_units="block_units",
    scale_alpha="scale_alpha",
    num_heads="num_heads",
    attn_drop="attn_drop",
    proj_drop="proj_drop",
    ffn_drop="ffn_drop",
    upsample_kernel="upsample_kernel_size",
    enc_depth="enc_depth",
    enc_use_inter_ffn="enc_use_inter_ffn",
    dec_depth="dec_depth",
    dec_cross_start="dec_cross_start",
    dec_cross_last_n_frames="dec_cross_last_n_frames",
    dec_use_inter_ffn="dec_use_inter_ffn",
    dec_hierarchical_pos_embed="dec_hierarchical_pos_embed",
    dec_use_first_self_attn="dec_use_first_self_attn",
    num_global_vectors="num_global_vectors",
    use_dec_self_global="use_dec_self_global",
    dec_self_update_global="dec_self_update_global",
    use_dec_cross_global="use_dec_cross_global",
    use_global_vector_ffn="use_global_vector_ffn",
    use_global_self_attn="use_global_self_attn",
    separate_global_qkv="separate_global_qkv",
    global_dim_ratio="global_dim_ratio",
    start="z_init_method",
    stem="initial_downsample_type",
    stem_activation="initial_downsample_activation",
    stem_conv_layers="initial_downsample_conv_layers",
    head_conv_layers="final_upsample_conv_layers",
    ffn_activation="ffn_activation",
    gated_ffn="gated_ffn",
    norm="norm_layer",
    padding="padding_type",
    pos_embed="pos_embed_type",
    use_relative_pos="use_relative_pos",
    self_attn_use_final_proj="self_attn_use_final_proj",
)

_INIT_MODES = {"0": "fan_in", "1": "fan_out"}


def model_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of our `Earthformer` from the reference's arguments.

    Raises:
        ValueError: for unknown arguments, or values the reference does not know.
    """
    given = {_YAML_NAMES.get(k, k): v for k, v in config.items()}
    for name in given:
        if name not in DEFAULTS:
            close = difflib.get_close_matches(name, DEFAULTS, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise ValueError(f"the reference has no argument {name!r}{hint}")
    full = DEFAULTS | given
    absent = [name for name, value in full.items() if value is _REQUIRED]
    if absent:
        raise ValueError(f"the configuration lacks {' and '.join(absent)}")
    _check_fixed(full)
    levels = len(full["enc_depth"])
    options = {ours: _tuples(full[theirs]) for ours, theirs in _SAME.items()}
    return options | dict(
        input_shape=_tuples(full["input_shape"]),
        target_shape=_tuples(full["target_shape"]),
        downsample=_factor(full["downsample"]),
        stem_scale=_factor(full["initial_downsample_scale"]),
        stem_stages=_stages(full),
        enc_pattern=_self_patterns(full, "enc", levels),
        dec_self_pattern=_self_patterns(full, "dec_self", levels),
        dec_cross_pattern=_cross_patterns(full, levels),
        remat=remat_lib.name_of(int(full["checkpoint_level"])),
        attn_init=_init_mode(full, "attn_linear_init_mode"),
        ffn_init=_init_mode(full, "ffn_linear_init_mode"),
        resample_init=_init_mode(full, "down_up_linear_init_mode"),
    )


def _check_fixed(full):
    """Arguments of which the reference implements one value only."""
    fixed = dict(
        downsample_type="patch_merge",
        upsample_type="upsample",
        conv_init_mode="0",
        norm_init_mode="0",
    )
    for name, only in fixed.items():
        if str(full[name]) != only:
            raise ValueError(f"{name} can only be {only!r}; got {full[name]!r}")


def _init_mode(full, name):
    mode = str(full[name])
    if mode not in _INIT_MODES:
        raise ValueError(f"{name} must be '0' or '1'; got {full[name]!r}")
    return _INIT_MODES[mode]


def _tuples(value):
    if isinstance(value, list | tuple):
        return tuple(_tuples(v) for v in value)
    return value


def _factor(value) -> tuple[int, int, int]:
    """(t, h, w) from an integer, (h, w) or (t, h, w)."""
    if isinstance(value, int):
        return (1, value, value)
    value = tuple(value)
    return value if len(value) == 3 else (1, *value)


def _stages(full) -> tuple[Stage, ...]:
    """Stages of a stacked stem; none for the one-stage kind."""
    if full["initial_downsample_type"] != "stack_conv":
        return ()
    prefix = "initial_downsample_stack_conv_"
    count = full[f"{prefix}num_layers"]
    lists = {
        "dim_list": full[f"{prefix}dim_list"] or [full["base_units"]] * count,
        "downscale_list": full[f"{prefix}downscale_list"],
        "num_conv_list": full[f"{prefix}num_conv_list"],
    }
    for name, values in lists.items():
        if len(values) != count:
            raise ValueError(
                f"{prefix}{name} needs {count} entries ({prefix}num_layers); "
                f"got {values}"
            )
    return tuple(
        Stage(features, _factor(scale), convs)
        for features, scale, convs in zip(*lists.values(), strict=True)
    )


def _named(patterns, levels):
    """A pattern per level from one name or a list of names."""
    if isinstance(patterns, str):
        return (patterns,) * levels
    return tuple(patterns)


def _is_nested(value) -> bool:
    """Whether explicit layers are given level by level."""
    return isinstance(value[0][0], list | tuple)


def _self_patterns(full, kind, levels):
    if full[f"{kind}_attn_patterns"] is not None:
        return _named(full[f"{kind}_attn_patterns"], levels)
    columns = [
        _by_level(full[f"{kind}_{name}"], levels, _is_nested)
        for name in ("cuboid_size", "cuboid_strategy", "shift_size")
    ]
    return tuple(
        tuple(CuboidSpec(*layer) for layer in zip(*level, strict=True))
        for level in zip(*columns, strict=True)
    )


def _cross_patterns(full, levels):
    if full["dec_cross_attn_patterns"] is not None:
        return _named(full["dec_cross_attn_patterns"], levels)
    columns = [
        _by_level(full[f"dec_cross_{name}"], levels, _is_nested)
        for name in ("cuboid_hw", "cuboid_strategy", "shift_hw")
    ]
    columns.append(
        _by_level(
            full["dec_cross_n_temporal"],
            levels,
            lambda value: isinstance(value[0], list | tuple),
        )
    )
    start = full["dec_cross_start"]
    # lists given level by level start at the first level that has cross-attention
    columns = [c if len(c) == levels else [c[0]] * start + c for c in columns]
    return tuple(
        tuple(CrossSpec(*layer) for layer in zip(*level, strict=True))
        for level in zip(*columns, strict=True)
    )


def _by_level(value, levels, is_nested) -> list:
    """One list of layers per level; a flat list serves every level."""
    return list(value) if is_nested(value) else [value] * levels
