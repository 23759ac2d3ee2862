"""The models of the paper's tables 5 to 7: sizes of the data, options, printed costs.

    options = {"name": name} | PAPER_OPTIONS[name].get(data, {})
    model = create_model(input_shape=..., target_shape=..., **options)

An entry of `PAPER_OPTIONS` is named after its model. A second entry for the same model
names it in its options: `name="earthformer"`. Options that are left out take the
model's defaults, which are those of MovingMNIST and N-body MNIST.

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, tables 2, 5 to 9
    and 11.
"""

from collections.abc import Mapping
from typing import Any

from earthformer_jax.models.earthformer.variants import VARIANTS

Shape = tuple[int, int, int, int]

DATA = {
    "mnist": "MovingMNIST and N-body MNIST (table 5)",
    "sevir": "SEVIR (table 6)",
    "enso": "ICAR-ENSO (table 7)",
}

# Input (T, H, W, C) and target (K, H, W, C).
SHAPES: Mapping[str, tuple[Shape, Shape]] = {
    "mnist": ((10, 64, 64, 1), (10, 64, 64, 1)),
    "sevir": ((13, 384, 384, 1), (12, 384, 384, 1)),
    "enso": ((12, 24, 48, 1), (14, 24, 48, 1)),
}

_NO_GLOBAL = {
    data: dict(name="earthformer", **VARIANTS[f"{data}_no_global"]) for data in DATA
}

PAPER_OPTIONS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "persistence": {},
    "unet": {"enso": dict(features=(32, 64, 128))},
    "conv_lstm": {"sevir": dict(strides=(3, 2, 2))},
    "fa_conv_lstm": {"sevir": dict(strides=(3, 2, 2))},
    "predrnn": {"sevir": dict(downsampling=8)},
    "phydnet": {"sevir": dict(convcell_features=(256, 256, 256, 64))},
    "e3d_lstm": {"sevir": dict(downsampling=8)},
    "rainformer": {
        "sevir": dict(features=64, heads=(3, 6, 12, 24), head_dim=8, window=12),
        "enso": dict(factors=(1, 2, 2, 2), window=3),
    },
    "earthformer, no global vectors": _NO_GLOBAL,
    "earthformer": {data: VARIANTS[data] for data in DATA},
}

# Columns #Param (millions) and GFLOPs.
PAPER_COSTS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "unet": {"mnist": (16.6, 0.9), "sevir": (16.6, 33), "enso": (12.1, 0.4)},
    "conv_lstm": {"mnist": (14.0, 30.1), "sevir": (14.0, 527), "enso": (14.0, 11.1)},
    "predrnn": {"mnist": (23.8, 232.0), "sevir": (46.6, 328), "enso": (23.8, 85.8)},
    "phydnet": {"mnist": (3.1, 15.3), "sevir": (13.7, 701), "enso": (3.1, 5.7)},
    "e3d_lstm": {"mnist": (12.9, 302.0), "sevir": (35.6, 523), "enso": (12.9, 99.8)},
    "rainformer": {"mnist": (19.2, 1.2), "sevir": (184.0, 170), "enso": (19.2, 1.3)},
    "earthformer, no global vectors": {
        "mnist": (6.6, 33.7),
        "sevir": (13.1, 257),
        "enso": (6.6, 23.6),
    },
    "earthformer": {"mnist": (7.6, 34.0), "sevir": (15.1, 257), "enso": (7.6, 23.9)},
}

# The column GFLOPs is not one convention: it counts multiply-adds, but of these models
# multiplications and additions.
FLOPS_PER_MULTIPLY_ADD: Mapping[str, int] = {"predrnn": 2, "e3d_lstm": 2}

# Where numbers cannot agree.
REMARKS: Mapping[str, str] = {
    "earthformer": (
        "convolutions after up-sampling are folded with it, which takes 4 products "
        "where the paper's code takes 9, and linear layers do not see the frames that "
        "attention along time is padded with on ENSO"
    ),
    "conv_lstm": (
        "has no published source, so its first and last convolutions are a choice. "
        "The zeros that the forecaster's first cell reads in other code are not "
        "multiplied here"
    ),
    "phydnet": (
        "the paper's figure contains two further decodings for display. On SEVIR it "
        "needs smaller planes than the paper describes"
    ),
    "e3d_lstm": (
        "attends to a history of full length, of which the frames to come are masked, "
        "where the reference's grows step by step"
    ),
}
