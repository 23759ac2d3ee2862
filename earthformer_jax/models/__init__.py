"""Forecasters under one contract, by name.

A forecaster is a Flax module `(inputs, *, train) -> forecast` on arrays
`(B, T, H, W, C)`. `create_model` makes one from its name, the shapes of an example and
plain options, as a config file holds them.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax.core import FrozenDict

from earthformer_jax.checks import DTYPES, FLOATING, check_fields, check_value, shown
from earthformer_jax.models import bases
from earthformer_jax.models.contract import NamedForecaster
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.models.hybrid import Hybrid
from earthformer_jax.models.probabilistic import NoiseOptions, Probabilistic
from earthformer_jax.models.shapes import check_shapes
from earthformer_jax.settings import at_least

# The module and class of each model; it is imported when it is asked for.
_MODELS = {
    "persistence": (f"{__name__}.persistence", "Persistence"),
    "unet": (f"{__name__}.unet", "UNet"),
    "earthformer": (f"{__name__}.earthformer.model", "Earthformer"),
    "earthformer_ar": (f"{__name__}.autoregressive.model", "EarthformerAR"),
    "conv_lstm": (f"{__name__}.recurrent.encoder_forecaster", "EncoderForecaster"),
    "fa_conv_lstm": (f"{__name__}.recurrent.encoder_forecaster", "FAEncoderForecaster"),
    "predrnn": (f"{__name__}.recurrent.predrnn", "PredRNN"),
    "phydnet": (f"{__name__}.recurrent.phydnet", "PhyDNet"),
    "e3d_lstm": (f"{__name__}.recurrent.e3d_lstm", "E3DLSTM"),
    "rainformer": (f"{__name__}.rainformer.model", "Rainformer"),
    "conv_autoencoder": (f"{__name__}.recurrent.conv_autoencoder", "ConvAutoencoder"),
    "vq_vae": (f"{__name__}.tokens.vq_vae", "VQVAE"),
}
# Models that restore their inputs and make no forecast.
RESTORERS = ("conv_autoencoder", "vq_vae")
# Not networks that could correct the forecast of a base.
_WITHOUT_BASE = {
    "persistence": "has nothing to learn; choose another model, and base=persistence",
    **dict.fromkeys(RESTORERS, "restores its inputs and makes no forecast"),
    "earthformer_ar": "forecasts codes of frames, no departures from another forecast",
}
_WITHOUT_NOISE = _WITHOUT_BASE | {
    "persistence": "has nothing to learn",
    "earthformer_ar": "draws its members from the probabilities of codes",
}
_WITHOUT_ENSEMBLE = _WITHOUT_NOISE


@dataclasses.dataclass(frozen=True)
class CommonOptions(NoiseOptions):
    """Options that every model has.

    Attributes:
        base: simple forecast that the network corrects (`models.bases`), which the
            model is before it is trained; empty: the network forecasts by itself.
        ensemble: number of members that are trained with seeds of their own, one after
            the other; the forecast is their mean (`models.ensemble`).
    """

    base: str = ""
    ensemble: int = 1


_OF_NOISE = tuple(field.name for field in dataclasses.fields(NoiseOptions))


def names() -> tuple[str, ...]:
    """Names that `create_model` knows."""
    return tuple(_MODELS)


def fields(name: str) -> dict[str, dataclasses.Field]:
    """The options of a model by name: their types and defaults.

    Raises:
        ValueError: for an unknown model; the known ones are named.
    """
    return {
        field.name: field
        for options in (model_class(name), CommonOptions)
        for field in dataclasses.fields(options)
        if field.name not in ("input_shape", "target_shape", "parent", "name")
    }


def create_model(
    name: str, input_shape: Sequence[int], target_shape: Sequence[int], **options
) -> NamedForecaster:
    """A forecaster for inputs (T, H, W, C_in) and targets (K, H, W, C_out).

    Args:
        name: one of `names()`.
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out).
        **options: attributes of the model; lists become tuples, and names such as
            "bfloat16" become types. With a `base` the model is a
            `models.hybrid.Hybrid`, whose network has linear outputs; with `noise` it
            is a `models.probabilistic.Probabilistic`, and `scan_blocks` is off in its
            network; with an `ensemble` of several members it is a
            `models.ensemble.Ensemble`.

    Raises:
        ValueError: for an unknown name or option (the nearest ones are named), or
            inconsistent options.
    """
    known = fields(name)
    shapes: list[Any] = [_hashable(shape) for shape in (input_shape, target_shape)]
    check_shapes(*shapes)
    for option in options:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=3) or sorted(known)
            raise ValueError(
                f"model {name!r} has no option {option!r}; did you mean "
                f"{', '.join(close)}?"
            )
    size = options.pop("ensemble", CommonOptions.ensemble)
    check_value("ensemble", size, at_least(1))
    noise = NoiseOptions(**{k: options.pop(k) for k in _OF_NOISE if k in options})
    _check_noise(name, noise)
    if size > 1:
        if name in _WITHOUT_ENSEMBLE:
            why = _WITHOUT_ENSEMBLE[name]
            raise ValueError(f"ensemble={size}: model {name!r} {why}; expected 1")
        if noise.noise:
            raise ValueError(
                f"ensemble={size}: a model with noise={noise.noise} is an ensemble "
                "itself; expected ensemble=1 or noise=0"
            )
        member = create_model(name, shapes[0], shapes[1], **options)
        return Ensemble(shapes[0], shapes[1], member, size)
    if noise.noise:
        if "scan_blocks" in known:
            options["scan_blocks"] = False  # blocks differ in their noise
        network = create_model(name, shapes[0], shapes[1], **options)
        model = Probabilistic(shapes[0], shapes[1], network, noise)
        model.check()
        return model
    base = options.pop("base", CommonOptions.base)
    has_base = not (isinstance(base, str) and base == "")
    options = {k: _plain(k, v) for k, v in options.items()}
    if has_base and name in _WITHOUT_BASE:
        raise ValueError(f"base={shown(base)}: model {name!r} {_WITHOUT_BASE[name]}")
    if has_base and "output" in known:
        options["output"] = "linear"  # a correction has both signs
    model = model_class(name)(input_shape=shapes[0], target_shape=shapes[1], **options)
    model.check()
    if not has_base:
        return model
    return Hybrid(shapes[0], shapes[1], model, bases.create_base(base, *shapes))


def model_class(name: str) -> type[Any]:
    """The class of a `NamedForecaster`, a dataclass as every Flax module is.

    Raises:
        ValueError: for an unknown model; the known ones are named.
    """
    if not isinstance(name, str) or name not in _MODELS:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(_MODELS)}")
    module, attribute = _MODELS[name]
    return getattr(importlib.import_module(module), attribute)


def _check_noise(name: str, options: NoiseOptions) -> None:
    """Refuses noise in a model that cannot have it, and options that need noise."""
    check_fields(options)
    if options.noise and name in _WITHOUT_NOISE:
        why = _WITHOUT_NOISE[name]
        raise ValueError(f"noise={options.noise}: model {name!r} {why}; expected 0")
    if options.noise:
        return
    remedy = "" if name in _WITHOUT_NOISE else "noise=32, for example, or "
    for field in dataclasses.fields(options):
        if (value := getattr(options, field.name)) != field.default:
            raise ValueError(
                f"{field.name}={shown(value)} is for a model with noise, and noise=0; "
                f"expected {remedy}{field.name}={field.default}"
            )


def _plain(option: str, value):
    """Config values as module attributes: hashable, and types in place of names."""
    if option in DTYPES and isinstance(value, str):
        import jax.numpy as jnp

        if value:
            check_value(option, value, FLOATING)
        return jnp.dtype(value) if value else None
    return _hashable(value)


def _hashable(value):
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.ndim == 1:
        return tuple(value.tolist())
    if type(value) in (list, tuple):  # named tuples keep their names
        return tuple(_hashable(v) for v in value)
    if isinstance(value, Mapping):
        return FrozenDict({k: _hashable(v) for k, v in value.items()})
    return value
