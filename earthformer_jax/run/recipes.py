"""What the experiments share: optimiser and training of table 10, models of table 8.

A config starts from `training()` and `earthformer()`, adds its data, and changes what
is special to it.

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, appendix A; and the
    official recipe where the tables are silent.
"""

import pathlib
import typing

import ml_collections
from flax.core import FrozenDict

from earthformer_jax import models
from earthformer_jax.models import paper

_RECURRENT = dict(
    features=(16, 24, 32), kernels=(5, 3, 3), up_kernels=(4, 4, 4), stem_features=8
)
_ONE_SCALE = dict(features=(4,), kernels=(3,), strides=(2,), up_kernels=(4,))
# True frames are gone when a short training is half over, not after 50,000 steps.
_SAMPLING = dict(sampling_rate=1 / 300, sampling_stop=300)
# Data of values 0 to 1, which a sigmoid may forecast.
UNIT_RANGE = ("moving_mnist", "nbody_mnist", "sevir")
# Sizes of the small variants by model, where another than the config's own is chosen.
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
    },
    "test": {
        "conv_lstm": _ONE_SCALE | dict(stem_features=4),
        "fa_conv_lstm": _ONE_SCALE | dict(stem_features=4),
        "rainformer": dict(features=8, heads=(1, 1, 1, 1), head_dim=4, window=2),
        "unet": dict(features=(4,), center_features=8, norm_momentum=0.9),
        "predrnn": dict(num_layers=1, features=4, kernel_size=3, **_SAMPLING),
        "phydnet": dict(
            features=4,
            norm_groups=2,
            phycell_features=(9,),
            phycell_kernel=3,
            phycell_groups=3,
            convcell_features=(8,),
            teacher_steps=300,
        ),
        "e3d_lstm": dict(num_layers=1, features=4, norm_epsilon=1e-5, **_SAMPLING),
    },
}


def training() -> ml_collections.ConfigDict:
    """A config without data and model: AdamW, warm-up and cosine, 100 epochs."""
    c = ml_collections.ConfigDict()
    c.seed = 0
    c.optim = dict(
        lr=1e-3,
        weight_decay=1e-5,
        warmup_fraction=0.2,
        warmup_min_ratio=0.0,
        min_lr_ratio=1e-3,
        clip_norm=1.0,
        b1=0.9,
        b2=0.999,
        eps=1e-8,
        ema_decay=0.0,
    )
    c.train = dict(
        batch_size=64,
        micro_batch=16,
        epochs=100.0,
        steps=0,
        simulated_steps=0,
        simulated_fraction=0.0,
        validate_every=0,
        early_stop_patience=20,
        monitor="mse",
        monitor_mode="min",
        log_every=20,
        checkpoint_every=0,
        num_threads=2,
        num_workers=0,
    )
    c.eval = dict(batch_size=16, checkpoint="best", clusters=7)
    return c


def cube(**changes) -> dict:
    """Settings of climate cubes and own files (`data.cubes.cube.Settings`), changed."""
    options = dict(
        name="climate",
        path="",  # nothing: the embedded climate twin
        variables=(),  # nothing: all that share a grid
        targets=(),  # nothing: all variables
        level=(),
        axes="",
        missing=(),
        region=(),
        space_step=1,
        time_step=1,
        in_len=10,
        out_len=5,
        stride=1,
        train_from="",
        train_until="",  # nothing: 70 % of the frames
        validate_until="",  # nothing: half of the rest
        test_until="",
        anomalies=False,
        calendar=False,
        flip=False,
        area_weights=True,
        twin_years=12,
    )
    return options | changes


def earthformer(**changes) -> dict:
    """Options of the Earthformer of table 8 with 8 global vectors, and changes."""
    options = dict(
        name="earthformer",
        base_units=64,
        num_heads=4,
        enc_depth=(4, 4),
        dec_depth=(4, 4),
        enc_pattern="axial",
        dec_self_pattern="axial",
        dec_cross_pattern="cross_1x1",
        num_global_vectors=8,
        use_global_self_attn=True,
        stem="conv",
        stem_scale=(1, 2, 2),
        stem_conv_layers=2,
        head_conv_layers=1,
        attn_drop=0.1,
        proj_drop=0.1,
        ffn_drop=0.1,
        forecast_change=False,
        remat=0,
        scan_blocks=True,
        attn_implementation="xla",
        dtype="",
    )
    return options | changes


def shorten(c: ml_collections.ConfigDict, steps: int, batch_size: int = 8) -> None:
    """Makes training short: a few hundred steps without early stopping or dropout.

    Args:
        c: a config with a model.
        steps: optimiser steps; validation half-way and at the end.
        batch_size: examples per step.
    """
    c.model.update(attn_drop=0.0, proj_drop=0.0, ffn_drop=0.0)
    c.optim.update(lr=3e-3, weight_decay=1e-2, ema_decay=0.98, min_lr_ratio=0.01)
    c.train.update(
        batch_size=batch_size,
        micro_batch=batch_size,
        steps=steps,
        validate_every=max(steps // 2, 1),
        early_stop_patience=0,
    )


def choose(changes: dict, variant: str, file: str):
    """The function that makes a variant.

    Args:
        changes: functions by variant; the first is the default.
        variant: what stands behind the colon of --config=FILE:VARIANT: "quick", or
            with another model "quick,conv_lstm".
        file: name of the config file, for the message.

    Raises:
        ValueError: if there is no such variant or model.
    """
    variant, _, model = variant.partition(",")
    variant = variant or next(iter(changes))
    if variant not in changes:
        raise ValueError(
            f"{file}:{variant} is unknown; use one of {', '.join(changes)}"
        )
    if not model:
        return changes[variant]
    data = pathlib.PurePath(file).stem
    options = model_options(model, variant, data)

    def change(c):
        changes[variant](c)
        if c.model.name != model:
            c.model = options

    return change


def model_options(name: str, variant: str, data: str = "") -> dict:
    """Options of a model in place of the one a config was made for.

    Args:
        name: one of `models.names()`.
        variant: "quick" and "test" are small; others have the size of the paper.
        data: the data set, which the paper's size depends on.

    Raises:
        ValueError: if there is no such model.
    """
    defaults = {
        option: _config_value(field)
        for option, field in models.fields(name).items()
        if option != "param_dtype"
    }
    if variant in SMALL:
        size = SMALL[variant].get(name, {})
    else:
        size = paper.PAPER_OPTIONS.get(name, {}).get(data, {})
    if "output" in defaults and data not in UNIT_RANGE:
        size = size | dict(output="linear")
    return {"name": name, **defaults, **size}


def _config_value(field):
    """The default of an option, of a type that --config.model.OPTION can change."""
    if field.name == "dtype":
        return ""
    if isinstance(field.default, FrozenDict):
        return dict(field.default)
    if field.default is None:
        (kind,) = (t for t in typing.get_args(field.type) if t is not type(None))
        is_plain = typing.get_origin(kind) is None  # else Sequence[int] and the like
        return ml_collections.config_dict.placeholder(kind if is_plain else tuple)
    return field.default
