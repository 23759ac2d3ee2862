"""Building blocks of config files: a base config, model sizes, short training.

A config file states what differs from the defaults of its data set, its model and
`training.settings`; `command_line.load` adds the rest.
"""

from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from earthformer_jax import models
from earthformer_jax.models import paper
from earthformer_jax.models.earthformer.variants import VARIANTS

_RECURRENT = dict(
    features=(16, 24, 32), kernels=(5, 3, 3), up_kernels=(4, 4, 4), stem_features=8
)
_ONE_SCALE = dict(features=(4,), kernels=(3,), strides=(2,), up_kernels=(4,))
# In the variant "quick" true frames are phased out over 300 of 400 to 800 steps.
_SAMPLING = dict(sampling_rate=1 / 300, sampling_stop=300)
# Data sets with values from 0 to 1, which a sigmoid can forecast.
UNIT_RANGE = ("moving_mnist", "nbody_mnist", "sevir")
NO_DROPOUT = dict(attn_drop=0.0, proj_drop=0.0, ffn_drop=0.0)
# Sizes of the small variants by model, if a config is run with another model.
SMALL = {
    "quick": {
        "conv_lstm": _RECURRENT,
        "fa_conv_lstm": _RECURRENT,
        "rainformer": dict(features=16, heads=(2, 2, 4, 8)),
        "unet": dict(features=(16, 32, 64), center_features=128, norm_momentum=0.9),
        "predrnn": dict(num_layers=2, features=32, kernel_size=3, **_SAMPLING),
        "phydnet": dict(
            features=16,
            norm_groups=8,
            convcell_features=(32, 32),
            teacher_steps=300,
        ),
        "e3d_lstm": dict(num_layers=2, features=16, norm_epsilon=1e-5, **_SAMPLING),
        "vq_vae": dict(codebook_size=128, code_width=16, features=32),
        "earthformer_ar": dict(
            base_units=32,
            codebook_size=128,
            tokenizer_options=dict(code_width=16, features=32),
            tokenizer_steps=500,
            **NO_DROPOUT,
        ),
    },
    "test": {
        "conv_lstm": _ONE_SCALE | dict(stem_features=4),
        "fa_conv_lstm": _ONE_SCALE | dict(stem_features=4),
        "rainformer": dict(features=8, heads=(1, 1, 1, 1), head_dim=4, window=2),
        "unet": dict(features=(4,), center_features=8, norm_momentum=0.9),
        "predrnn": dict(num_layers=1, features=4, kernel_size=3),
        "phydnet": dict(
            features=4,
            norm_groups=2,
            phycell_features=(9,),
            phycell_kernel=3,
            phycell_groups=3,
            convcell_features=(8,),
        ),
        "e3d_lstm": dict(num_layers=1, features=4, norm_epsilon=1e-5),
        "vq_vae": dict(codebook_size=16, code_width=4, features=8, blocks=1),
        "earthformer_ar": dict(
            codebook_size=16,
            tokenizer_options=dict(code_width=4, features=8, blocks=1),
            tokenizer_steps=2,
            base_units=8,
            num_heads=2,
            num_global_vectors=2,
        ),
    },
}

SMALL["hybrid"] = SMALL["quick"]

# Training settings of the variant "test".
TEST = dict(batch_size=8, micro_batch=4, steps=4, validate_every=2, log_every=1)


def start(
    data: Mapping[str, Any], model: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """A config that differs from the defaults only in its data and model."""
    return ml_collections.ConfigDict(
        dict(data=dict(data), model=dict(model), optim={}, train={}, eval={})
    )


def earthformer(*sizes: str, **changes: Any) -> dict[str, Any]:
    """Options of the Earthformer, with equal blocks run as a loop.

    Args:
        *sizes: names of `models.earthformer.variants`; later ones override the rest.
        **changes: further options.
    """
    options = dict(name="earthformer", scan_blocks=True)
    for size in sizes:
        options |= VARIANTS[size]
    return options | changes


def shorten(c: ml_collections.ConfigDict, steps: int, **train: Any) -> None:
    """Shortens training: a few hundred steps without early stopping or dropout.

    Args:
        c: a config of an Earthformer.
        steps: optimiser steps; validation half-way and at the end.
        **train: further training settings.
    """
    c.model.update(NO_DROPOUT)
    c.optim.update(lr=3e-3, weight_decay=1e-2, ema_decay=0.98, min_lr_ratio=0.01)
    c.train.update(
        dict(steps=steps, validate_every=max(steps // 2, 1), early_stop_patience=0)
        | train
    )


def change(
    c: ml_collections.ConfigDict, variant: str, variants: Mapping[str, Callable]
) -> ml_collections.ConfigDict:
    """The config of a variant.

    Args:
        c: what all variants share.
        variant: what follows the colon in --config=FILE:VARIANT.
        variants: functions that change a config, by variant.

    Raises:
        ValueError: if there is no such variant.
    """
    if variant not in variants:
        raise ValueError(
            f"the variant {variant!r} is unknown; use one of {', '.join(variants)}"
        )
    variants[variant](c)
    return c.lock()


def model_options(name: str, variant: str, data: str = "") -> dict[str, Any]:
    """Options of a model that replaces the one a config was made for.

    Args:
        name: one of `models.names()`.
        variant: "quick" and "test" are small; others have the paper's size.
        data: the data set, which the paper's size depends on.

    Raises:
        ValueError: if there is no such model.
    """
    fields = models.fields(name)
    if variant in SMALL:
        size = SMALL[variant].get(name, {})
    else:
        size = paper.PAPER_OPTIONS.get(name, {}).get(data, {})
    if "output" in fields and data not in UNIT_RANGE:
        size = {**size, "output": "linear"}
    return {"name": name, **size}
