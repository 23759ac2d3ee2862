"""The Earthformers to measure, as arguments of the official constructor.

Both sides are built from one dictionary: the official class takes it as arguments, ours
reads it with `interop.official.earthformer_from_config`, so the models are the same.

Reference:
    Gao et al. 2022, Earthformer, tables 8 and 9, https://arxiv.org/abs/2207.05833; and
    https://github.com/amazon-science/earth-forecasting-transformer
"""

from typing import Any

import numpy as np

DROPOUT = 0.1  # of the recipe: on attention weights, projections, feed-forward layers
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-4, 1e-5, 1.0

# What all cases have in common.
_SHARED = dict(
    base_units=64,
    num_heads=4,
    enc_depth=[4, 4],
    dec_depth=[4, 4],
    num_global_vectors=0,
    use_dec_self_global=False,
    use_dec_cross_global=False,
    use_global_vector_ffn=False,
    initial_downsample_type="conv",
    initial_downsample_conv_layers=2,
    final_upsample_conv_layers=1,
    ffn_activation="gelu",
    padding_type="zeros",
    pos_embed_type="t+h+w",
    z_init_method="zeros",
    checkpoint_level=0,
)
_GLOBAL_VECTORS = dict(num_global_vectors=8, use_global_self_attn=True)
_ENSO = dict(
    input_shape=[12, 24, 48, 1],
    target_shape=[14, 24, 48, 1],
    initial_downsample_scale=[1, 1, 2],
)
CASES: dict[str, dict[str, Any]] = {
    # the official N-body configuration: table 8 without global vectors
    "nbody": dict(
        input_shape=[10, 64, 64, 1],
        target_shape=[10, 64, 64, 1],
        initial_downsample_scale=2,
        pos_embed_type="t+hw",
    ),
    # the released checkpoint: one block per level, no global vectors
    "enso": _ENSO | dict(enc_depth=[1, 1], dec_depth=[1, 1]),
    # table 8 with 8 global vectors
    "enso_paper": _ENSO | _GLOBAL_VECTORS,
    # table 9 with 8 global vectors
    "sevir": _GLOBAL_VECTORS
    | dict(
        input_shape=[13, 384, 384, 1],
        target_shape=[12, 384, 384, 1],
        base_units=128,
        enc_depth=[2, 2],
        dec_depth=[2, 2],
        initial_downsample_type="stack_conv",
        initial_downsample_stack_conv_num_layers=3,
        initial_downsample_stack_conv_dim_list=[16, 64, 128],
        initial_downsample_stack_conv_downscale_list=[3, 2, 2],
        initial_downsample_stack_conv_num_conv_list=[2, 2, 2],
    ),
    # one level and one block, to check that everything runs
    "tiny": dict(
        input_shape=[4, 16, 16, 1],
        target_shape=[3, 16, 16, 1],
        base_units=16,
        num_heads=2,
        enc_depth=[1],
        dec_depth=[1],
        num_global_vectors=4,
        use_global_self_attn=True,
        initial_downsample_scale=2,
    ),
}


def options(case: str, dropout: float = 0.0) -> dict[str, Any]:
    """The official constructor's arguments.

    Args:
        case: one of `CASES`.
        dropout: the rate of every kind of dropout.

    Raises:
        ValueError: if there is no such case.
    """
    if case not in CASES:
        raise ValueError(f"unknown case {case!r}; the cases are {', '.join(CASES)}")
    chosen = _SHARED | CASES[case]
    levels = len(chosen["enc_depth"])
    return chosen | dict(
        enc_attn_patterns=["axial"] * levels,
        dec_self_attn_patterns=["axial"] * levels,
        dec_cross_attn_patterns=["cross_1x1"] * levels,
        attn_drop=dropout,
        proj_drop=dropout,
        ffn_drop=dropout,
    )


def example(case: str, batch: int) -> dict[str, np.ndarray]:
    """Inputs and targets `[batch, t, h, w, c]`, the same numbers in every process."""
    random, shapes = np.random.default_rng(0), options(case)
    return {
        name: random.normal(size=(batch, *shapes[key])).astype(np.float32)
        for name, key in (("inputs", "input_shape"), ("targets", "target_shape"))
    }
