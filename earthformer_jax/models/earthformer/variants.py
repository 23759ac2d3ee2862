"""Sizes of the Earthformer by name: only what differs from the model's defaults.

    options = VARIANTS["enso"] | dict(num_heads=8)
    model = create_model("earthformer", input_shape, target_shape, **options)

The defaults of `Earthformer` are table 8 of the paper with 8 global vectors.

References:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, tables 8 and 9.
    The yaml files of the released checkpoints, in `scripts/cuboid_transformer` of
    https://github.com/amazon-science/earth-forecasting-transformer
"""

from types import MappingProxyType
from typing import Any

_NO_GLOBAL = dict(num_global_vectors=0, use_global_self_attn=False)
_ONE_BLOCK = dict(enc_depth=(1, 1), dec_depth=(1, 1))

_MNIST = dict()  # table 8
_ENSO = dict(stem_scale=(1, 1, 2))  # table 8
_SEVIR = dict(  # table 9
    base_units=128,
    enc_depth=(2, 2),
    dec_depth=(2, 2),
    stem="stack_conv",
    stem_stages=((16, (1, 3, 3), 2), (64, (1, 2, 2), 2), (128, (1, 2, 2), 2)),
)
_SMALL = dict(
    base_units=16,
    block_units=(16, 64),
    num_heads=2,
    num_global_vectors=4,
    stem="stack_conv",
    stem_stages=((16, (1, 2, 2), 1),),
    **_ONE_BLOCK,
)

VARIANTS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        # The paper: tables 8 and 9, with 8 global vectors and without.
        "mnist": _MNIST,
        "mnist_no_global": _MNIST | _NO_GLOBAL,
        "enso": _ENSO,
        "enso_no_global": _ENSO | _NO_GLOBAL,
        "sevir": _SEVIR,
        "sevir_no_global": _SEVIR | _NO_GLOBAL,
        # nbody/cfg.yaml
        "nbody_released": _MNIST | _NO_GLOBAL | dict(pos_embed="t+hw"),
        # enso/earthformer_enso_v1.yaml
        "enso_released": _ENSO | _NO_GLOBAL | _ONE_BLOCK,
        # sevir/earthformer_sevir_v1.yaml
        "sevir_released": _SEVIR | _ONE_BLOCK | dict(separate_global_qkv=True),
        # sevir/cfg_sevirlr.yaml, without a checkpoint: 128 x 128 pixels of 3 km
        "sevir_lr": dict(
            stem="stack_conv",
            stem_stages=((4, (1, 1, 1), 2), (16, (1, 2, 2), 2), (64, (1, 2, 2), 2)),
            **_ONE_BLOCK,
            **_NO_GLOBAL,
        ),
        # Ours: two levels that train in minutes on a CPU, for frames of about 32 x 32.
        "small": _SMALL,
        # The same for frames of about 48 x 48, whose patches are four times as large.
        # The second level is then small enough for attention among all its positions.
        "small_coarse": _SMALL
        | dict(
            stem_stages=((16, (1, 4, 4), 1),),
            enc_pattern="divided_st,full",
            dec_self_pattern="divided_st,full",
        ),
        # One level; only shows that everything runs.
        "tiny": _SMALL
        | dict(
            block_units=(16,),
            enc_depth=(1,),
            dec_depth=(1,),
            stem_stages=((16, (1, 2, 2), 0),),
        ),
    }
)
