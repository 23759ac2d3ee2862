"""Wrong shapes and options are refused when a model is made, by their names."""

import typing

import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.checks import DTYPES

SHAPES = (4, 16, 16, 2), (3, 16, 16, 1)
AUTOENCODER = (4, 16, 16, 2), (4, 16, 16, 2)
NAN = float("nan")
NEVER = (NAN, "nowhere", np.zeros((2, 2)), object(), {1}, ((1,), (2,)), (True,), (NAN,))
# What no option of that type takes.
WRONG = {
    bool: (0, 1, 2.0, None, *NEVER),
    int: (4.5, -1, "4", (2,), {}, *NEVER),
    float: (float("inf"), -1, "4", True, (0.5,), {}, *NEVER),
    str: (4, 0.5, True, (2,), {}, *NEVER),
    "sequence": (4, 4.5, True, (), (0,), (1.5,), ("4",), "4", {}, *NEVER),
    "type": ("float31", "int32", int, 32, True, {}, *NEVER),
}
# Mappings and stages, tested elsewhere, and a path.
OPEN = {"cell_options", "tokenizer_options", "stem_stages", "tokenizer"}


def kind_of(name, annotation):
    """A key of `WRONG`, for an option of this type."""
    if name in DTYPES:
        return "type"
    parts = [p for p in (annotation, *typing.get_args(annotation)) if p in WRONG]
    is_sequence = "Sequence" in str(annotation) or "tuple" in str(annotation)
    return "sequence" if is_sequence and str not in parts else parts[0]


def make(name="unet", inputs=SHAPES[0], targets=SHAPES[1], **options):
    return models.create_model(name, inputs, targets, **options)


@pytest.mark.parametrize("name", models.names())
def test_options_of_the_wrong_kind(name):
    shapes = AUTOENCODER if name in models.RESTORERS else SHAPES
    models.create_model(name, *shapes)
    for option, field in models.fields(name).items():
        if option in OPEN:
            continue
        kind = kind_of(option, field.type)
        for value in WRONG[kind]:
            if option == "remat" and value is True:
                continue
            with pytest.raises(ValueError, match=option) as refused:
                models.create_model(name, *shapes, **{option: value})
            assert "got None" not in str(refused.value), (option, value)


@pytest.mark.parametrize(
    "shape",
    [
        (4.5, 16, 16, 2),
        (NAN, 16, 16, 2),
        (True, 16, 16, 2),
        ("4", "16", "16", "2"),
        (0, 16, 16, 2),
        (2**31, 16, 16, 2),
        (16, 16, 2),
        "4,16,16,2",
        None,
        5,
        np.zeros(SHAPES[0]),
        {"t": 4},
    ],
)
def test_shapes_of_the_wrong_kind(shape):
    with pytest.raises(ValueError, match="input_shape=.*: expected four whole numbers"):
        make(inputs=shape)
    with pytest.raises(ValueError, match="target_shape=.*: expected four whole"):
        make(targets=shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(name=["unet"]), r"unknown model \['unet'\]; the models are"),
        (dict(name=None), "unknown model None"),
        (dict(feature=(4,)), "no option 'feature'; did you mean features"),
        (
            dict(features=4),
            r"features=4: expected a sequence of whole numbers of at least 1 \(chan",
        ),
        (dict(name="earthformer", num_heads=0), "num_heads=0: expected a whole number"),
        (dict(name="earthformer", num_heads=3), "num_heads must divide the channels"),
        (dict(name="earthformer", attn_drop=2.0), "attn_drop=2.0: expected a number"),
        (dict(name="earthformer", ffn_drop=1.0), "ffn_drop=1.0: .* less than 1"),
        (
            dict(name="earthformer", enc_pattern="axal"),
            "enc_pattern='axal': unknown .* did you mean one of axial",
        ),
        (
            dict(name="earthformer", dec_cross_pattern="axial"),
            "dec_cross_pattern='axial': unknown cross-attention",
        ),
        (dict(name="earthformer", enc_pattern=7), "enc_pattern=7: expected a text or"),
        (
            dict(name="earthformer", enc_pattern=((1, 2, 3), (1, 2, 3))),
            "enc_pattern=.* not made of CuboidSpec",
        ),
        (dict(name="earthformer", padding="same"), "padding='same': expected 'ignore'"),
        (dict(name="earthformer", pos_embed="h+w"), "pos_embed='h.w': expected 't.h.w"),
        (dict(name="earthformer", upsample_kernel=4), "upsample_kernel=4: .* an odd"),
        (
            dict(name="earthformer", stem="stack_conv", stem_stages=((64, 2),)),
            "stem_stages=.*: expected stages of",
        ),
        (dict(name="earthformer", base_units=24), "base_units=24: a 'conv' stem"),
        (dict(name="conv_lstm", cell_options=3), "cell_options=3: expected a mapping"),
        (
            dict(name="conv_lstm", cell_options=dict(padding=1)),
            "cell_options: .* sets padding itself",
        ),
        (dict(dtype="float"), None),
    ],
)
def test_what_is_said(call, message):
    if message is None:
        assert make(**call).dtype == "float64"
        return
    with pytest.raises(ValueError, match=message):
        make(**call)


def test_numbers_of_numpy_are_numbers():
    model = make(features=np.array([4, 8]).tolist(), center_features=np.int64(8))
    assert model.features == (4, 8) and type(model.center_features) is int
    shape = np.array(SHAPES[0])
    for given in (shape, tuple(shape), list(shape)):
        assert make(inputs=given).input_shape == SHAPES[0]
