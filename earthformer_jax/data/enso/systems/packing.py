"""Fitted reference forecasts as they are kept in the state of the data."""

import dataclasses
from typing import Any

import numpy as np
import xarray as xr

from earthformer_jax.data.enso.systems.fitting import Fitted
from earthformer_jax.statistics.eof import EofBasis
from earthformer_jax.statistics.field_memory import Choices, FieldMemoryModel, Part
from earthformer_jax.statistics.hidden import model as hidden
from earthformer_jax.statistics.linear_system import LinearSystem
from earthformer_jax.statistics.references import LinearInverseModel
from earthformer_jax.statistics.state_model import StateModel

_CELL = ("y", "x")
_WITH_INDEX_MEMORY = ("lim_memory", "oscillator")
_FIELD, _HIDDEN = "lim_field_memory", "lim_hidden"


def pack(fitted: Fitted) -> dict[str, Any]:
    """Variables of a data set, by name."""
    packed: dict[str, Any] = {"damping": (("lead", *_CELL), fitted.damping)}
    if fitted.lim is not None:
        basis, system = fitted.lim.basis, fitted.lim.system
        packed["lim_patterns"] = (("mode", "cell"), basis.patterns)
        packed["lim_projection"] = (("cell", "mode"), basis.projection)
        packed["lim_variance"] = ("mode", basis.variance)
        step = ("month", "mode", "mode_before")
        packed["lim_transition"] = (step, system.transition)
        packed["lim_noise"] = (step, system.noise)
    for name in _WITH_INDEX_MEMORY:
        model = getattr(fitted, name)
        if model is not None:
            packed |= _pack_state_model(name, model)
    if fitted.lim_field_memory is not None:
        packed |= _pack_field_memory(fitted.lim_field_memory)
    if fitted.lim_hidden is not None:
        packed |= _pack_hidden(fitted.lim_hidden)
    return packed


def unpack(dataset: xr.Dataset, ocean: np.ndarray) -> Fitted | None:
    """The inverse of `pack`; None if nothing is kept."""
    if "damping" not in dataset:
        return None
    damping, models = dataset["damping"].values, {}
    out_len = len(damping)
    if "lim_patterns" in dataset:
        names = ("patterns", "projection", "variance", "transition", "noise")
        patterns, projection, variance, *dynamics = (
            dataset[f"lim_{name}"].values for name in names
        )
        basis = EofBasis(ocean, patterns, projection, variance)
        models["lim"] = LinearInverseModel(basis, LinearSystem(*dynamics), out_len)
    for name in _WITH_INDEX_MEMORY:
        if f"{name}_transition" in dataset:
            models[name] = _unpack_state_model(name, dataset, out_len)
    if f"{_FIELD}_transition" in dataset:
        models[_FIELD] = _unpack_field_memory(dataset, out_len)
    if f"{_HIDDEN}_transition" in dataset:
        models[_HIDDEN] = _unpack_hidden(dataset, out_len)
    return Fitted(damping, **models)


def _dynamics(name: str, *first: str) -> tuple[tuple[str, ...], str]:
    return (*first, "month", f"{name}_state", f"{name}_before"), f"{name}_state"


def _pack_state_model(name: str, model: StateModel) -> dict[str, Any]:
    step, state = _dynamics(name)
    about = {
        "rate": model.rate,
        "memory_mean": model.memory_mean,
        "memory_std": model.memory_std,
    } | {f"chosen_{k}": v for k, v in model.choices.items()}
    return {
        f"{name}_projection": ((*_CELL, state), model.projection, about),
        f"{name}_memory_gain": (state, model.memory_gain),
        f"{name}_patterns": ((state, *_CELL), model.patterns),
        f"{name}_transition": (step, model.system.transition),
        f"{name}_noise": (step, model.system.noise),
    }


def _unpack_state_model(name: str, dataset: xr.Dataset, out_len: int) -> StateModel:
    def values(part: str) -> np.ndarray:
        return dataset[f"{name}_{part}"].values

    about = {
        k: np.asarray(v).item() for k, v in dataset[f"{name}_projection"].attrs.items()
    }
    return StateModel(
        projection=values("projection"),
        memory_gain=values("memory_gain"),
        rate=float(about["rate"]),
        memory_mean=float(about["memory_mean"]),
        memory_std=float(about["memory_std"]),
        patterns=values("patterns"),
        system=LinearSystem(values("transition"), values("noise")),
        out_len=out_len,
        choices={
            k.removeprefix("chosen_"): v
            for k, v in about.items()
            if k.startswith("chosen_")
        },
    )


def _pack_field_memory(model: FieldMemoryModel) -> dict[str, Any]:
    name, parts = _FIELD, model.parts
    step, state = _dynamics(name, "part")
    about = dataclasses.asdict(model.choices)

    def stack(part: str) -> np.ndarray:
        return np.stack([getattr(x, part) for x in parts])

    return {
        f"{name}_projection": (("part", *_CELL, state), stack("projection"), about),
        f"{name}_memory": (("part", *_CELL, state), stack("memory_projection")),
        f"{name}_offset": (("part", state), stack("offset")),
        f"{name}_patterns": (("part", state, *_CELL), stack("patterns")),
        f"{name}_transition": (step, np.stack([x.system.transition for x in parts])),
        f"{name}_noise": (step, np.stack([x.system.noise for x in parts])),
    }


def _unpack_field_memory(dataset: xr.Dataset, out_len: int) -> FieldMemoryModel:
    def value(name: str, part: int) -> np.ndarray:
        return dataset[f"{_FIELD}_{name}"].values[part]

    parts = [
        Part(
            projection=value("projection", i),
            memory_projection=value("memory", i),
            offset=value("offset", i),
            patterns=value("patterns", i),
            system=LinearSystem(value("transition", i), value("noise", i)),
        )
        for i in range(dataset.sizes["part"])
    ]
    about = dataset[f"{_FIELD}_projection"].attrs
    choices = Choices(
        modes=int(about["modes"]),
        remembered=int(about["remembered"]),
        ridge=float(about["ridge"]),
    )
    return FieldMemoryModel(parts, out_len, choices)


def _pack_hidden(model: hidden.HiddenStateModel) -> dict[str, Any]:
    name, parts = _HIDDEN, model.parts
    step, _ = _dynamics(name, f"{name}_part")
    about = {"reach": model.reach}
    part, seen = f"{name}_part", f"{name}_seen"
    noises = np.stack([np.diag(x.system.observation_noise) for x in parts])
    return {
        f"{name}_projection": (
            (part, *_CELL, seen),
            np.stack([x.projection for x in parts]),
            about,
        ),
        f"{name}_patterns": (
            (part, seen, *_CELL),
            np.stack([x.patterns for x in parts]),
        ),
        f"{name}_transition": (step, np.stack([x.system.transition for x in parts])),
        f"{name}_noise": (step, np.stack([x.system.noise for x in parts])),
        f"{name}_observation_noise": ((part, seen), noises),
    }


def _unpack_hidden(dataset: xr.Dataset, out_len: int) -> hidden.HiddenStateModel:
    names = ("projection", "patterns", "transition", "noise", "observation_noise")
    values = [dataset[f"{_HIDDEN}_{name}"].values for name in names]
    parts = []
    for projection, patterns, transition, noise, seen in zip(*values, strict=True):
        observed = np.eye(len(seen), transition.shape[-1])
        system = LinearSystem(transition, noise, observed, np.diag(seen))
        parts.append(hidden.Part(projection, patterns, system))
    reach = int(dataset[f"{_HIDDEN}_projection"].attrs["reach"])
    return hidden.HiddenStateModel(parts, out_len, reach)
