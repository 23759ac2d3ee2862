"""The protocols by name."""

import functools
from collections.abc import Mapping
from typing import Any

from earthformer_jax.data.protocols.definition import MEAN, Protocol, Scoring

OF_INDICES = "enso-oras5-xro"

_PAPER = "Gao et al. 2022, Earthformer"


def _dated(train: str, validate_until: str, test: str) -> dict[str, Any]:
    """The settings of periods "1856-01..1979-12"."""
    (train_from, train_until), (test_from, test_until) = (
        period.split("..") for period in (train, test)
    )
    return {
        "train_from": train_from,
        "train_until": train_until,
        "validate_until": validate_until,
        "test_from": test_from,
        "test_until": test_until,
    }


_MONTHS = "forecasts of the same months of observed temperatures"
_ICAR = {"in_len": 12, "out_len": 14, "normalization": "official"}
_FREE = dict.fromkeys(_dated("..", "", ".."), ("",))  # the months are compared
_AUTO = {"normalization": ("auto",)}  # the official one for ICAR-ENSO

# The Kaplan extended SST anomalies, version 2, end in October 2014. The other periods
# are of 30 years that are left out: a model is tested on what came long before.
_ENSO = (
    Protocol(
        "enso-kaplan-1985-2014",
        "enso",
        _MONTHS,
        _dated("1856-01..1979-12", "1984-12", "1985-01..2014-10"),
        equivalent=_FREE,
    ),
    Protocol(
        "enso-kaplan-1950-1979",
        "enso",
        _MONTHS,
        _dated("1985-01..2009-12", "2014-10", "1950-01..1979-12"),
        equivalent=_FREE,
    ),
    Protocol(
        "enso-kaplan-1920-1949",
        "enso",
        _MONTHS,
        _dated("1955-01..2009-12", "2014-10", "1920-01..1949-12"),
        equivalent=_FREE,
    ),
    Protocol(
        "enso-kaplan-1885-1914",
        "enso",
        _MONTHS,
        _dated("1920-01..2009-12", "2014-10", "1885-01..1914-12"),
        equivalent=_FREE,
    ),
    Protocol(
        "enso-icar-paper",
        "enso",
        f"table 7 of {_PAPER}",
        _ICAR | {"split": "paper"},
        equivalent=_AUTO,
    ),
    Protocol(
        "enso-icar-released",
        "enso",
        "models trained with the code that was released with the paper",
        _ICAR | {"split": "released"},
        equivalent=_AUTO,
    ),
    Protocol(
        OF_INDICES,
        "indices",
        "climate indices, not maps: experiments/enso_benchmark.py --indices=FILE",
        {},
    ),
)

_VIL = "codes of vertically integrated liquid, 0 to 255"
_LEVELS = (16, 74, 133, 160, 181, 219)
_SEVIR = {
    "split": "date",
    "train_from": "",
    "train_until": "2019-01-01",
    "validate_until": "2019-06-01",
    "test_until": "",
    "max_missing": 0.0,
    "skip_missing_files": False,
    "crop": (),
}
_HOUR = _SEVIR | {
    "in_len": 13,
    "out_len": 12,
    "stride": 12,
    "time_step": 1,
    "space_step": 1,
}
_WINDOWS = {"train": 35_718, "validation": 9_060, "test": 12_159}
_codes = functools.partial(
    Scoring,
    scores=("csi", "pod", "sucr", "bias", "mse", "mae"),
    units=_VIL,
    error_units="(code / 255)^2, code / 255",
)

_RADAR = (
    Protocol(
        "sevir-paper",
        "sevir",
        f"table 6 of {_PAPER}",
        _HOUR | {"normalization": "01"},
        frame="5 min",
        size=(384, 384),
        examples=_WINDOWS,
        scoring=_codes(
            thresholds=_LEVELS,
            pools=(1,),
            epsilon=(0.0, 1e-4),
        ),
    ),
    Protocol(
        "sevir-challenge",
        "sevir",
        f"CSI-M3 in table 13 of {_PAPER}, and the SEVIR Dataset Challenge",
        _HOUR,  # any scaling: scores are of codes
        frame="5 min",
        size=(384, 384),
        examples=_WINDOWS,
        scoring=_codes(
            leads=MEAN,
            thresholds=_LEVELS[:3],
            pools=(1,),
            epsilon=(1e-6, 1e-6),
        ),
    ),
    Protocol(
        "sevir-lr",
        "sevir",
        "models of SEVIR-LR, every second frame and the maxima of 3 x 3 pixels",
        _SEVIR | {"in_len": 7, "out_len": 6, "stride": 6, "normalization": "01"},
        frame="10 min",
        size=(128, 128),
        examples=_WINDOWS,
        scoring=_codes(
            thresholds=_LEVELS,
            pools=(1, 4, 16),
            epsilon=(0.0, 1e-4),
        ),
    ),
)

_FRAMES = Scoring(
    scores=("mse", "mae", "ssim"),
    units="grey values, 0 to 1, not clipped",
    error_units="sum over the pixels of a frame",
    ssim=(
        "Gaussian window of 11 x 11 pixels, sigma 1.5, K1 0.01, K2 0.03, range of "
        "values 1, pixels at least 5 from the border"
    ),
)

_DIGITS = (
    Protocol(
        "moving-mnist-paper",
        "moving_mnist",
        f"tables 3 to 5 and 12 of {_PAPER}",
        {"in_len": 10, "out_len": 10, "space_step": 1},
        size=(64, 64),
        examples={"train": 8_100, "validation": 900, "test": 1_000},
        scoring=_FRAMES,
    ),
    Protocol(
        "nbody-paper",
        "nbody_mnist",
        f"tables 4, 5 and 12 of {_PAPER}",
        {
            "in_len": 10,
            "out_len": 10,
            "num_digits": 3,
            "size": 64,
            "space_step": 1,
            "canvas": 128,
            "every": 5,
            "mode": "r0",
            "G": 0.05,
            "softening": 10.0,
            "max_speed": 2.0,
        },
        size=(64, 64),
        examples={"train": 20_000, "validation": 1_000, "test": 1_000},
        scoring=_FRAMES,
    ),
)

PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol for protocol in (*_RADAR, *_DIGITS, *_ENSO)
}
