"""Data sets by name."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from earthformer_jax.data.dataset import Data, Dataset, DataSettings
from earthformer_jax.data.forecasting.beginnings import LAST, Beginnings, Starts
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.protocols import following
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.state import DataState, Layout, example_checksums
from earthformer_jax.settings import settings_from

# Each module has a dataclass `Settings` and a function `load(config) -> Dataset`. One
# that fits statistics also takes the `state` that holds them. For forecasts it has
# `beginnings` and `encoding`, which take settings where those below take a config. It
# is imported on first use.
MODULES = {
    "enso": "enso.enso",
    "moving_mnist": "mnist.moving_mnist",
    "nbody_mnist": "mnist.nbody_mnist",
    "sevir": "sevir.sevir",
    "climate": "cubes.climate",
    "custom": "cubes.custom",
}


def load(
    config: Mapping[str, Any],
    seed: int | None = None,
    state: DataState | None = None,
) -> Dataset:
    """Loads the data set `config["name"]`.

    Args:
        config: settings of the data set, fields of `settings(name)`, with its `name`.
        seed: of everything drawn at random, if the config has no `seed`; None: the
            default of `dataset.DataSettings`.
        state: of the data that a model was trained on. Its statistics are used, and
            what was trained on does not become test data; None: the data are new.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid, a file cannot be used, or the data do not
            match the state.
    """
    name = config["name"]
    if name not in MODULES:
        raise ValueError(f"name={name!r} is unknown; there are: {', '.join(MODULES)}")
    if seed is not None:
        config = {"seed": seed} | dict(config)
    if state is not None and len(state.fitted):
        _check_name(name, state)
        return _module(name).load(config, state)
    dataset = _module(name).load(config)
    fits = dataset.data.state is not None
    if not fits or state is not None:  # a state without statistics is an earlier one
        make = functools.partial(_state, dataset.data, bool(config.get("path")))
        data = dataclasses.replace(dataset.data, state=functools.cache(make))
        dataset = dataclasses.replace(dataset, data=data)
    if state is not None:
        _check(dataset.data, state, fits=fits and bool(config.get("path")))
    protocol = str(config.get("protocol", ""))
    return following.applied(dataset, protocol, state is not None)


def beginnings(
    config: Mapping[str, Any],
    state: DataState,
    starts: Starts = LAST,
    *,
    allow_other_grid: bool = False,
) -> Beginnings:
    """What forecasts of the files of a config begin from.

    Args:
        config: as for `load`.
        state: of the data that the model was trained on.
        starts: which windows they begin with.
        allow_other_grid: accept fields of another size than those of the training.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a file cannot be used, does not match the state, or has no such
            window.
    """
    find, own = _of_trained("beginnings", config, state)
    return find(own, state, starts, allow_other_grid=allow_other_grid)


def encoding(config: Mapping[str, Any], state: DataState) -> Encoding:
    """How physical fields become what a trained model sees.

    Args:
        config: as for `load`.
        state: of the data that the model was trained on.

    Raises:
        ValueError: if the settings do not match the state.
    """
    find, own = _of_trained("encoding", config, state)
    return find(own, state)


def _of_trained(
    function: str, config: Mapping[str, Any], state: DataState
) -> tuple[Callable, DataSettings]:
    """A function of a data set and its settings, for a model trained on such data.

    Raises:
        ValueError: if a setting is invalid, the model was trained on data of another
            kind, or the data set has no such function.
    """
    name = config["name"]
    _check_name(name, state)
    module = _module(name)
    if not hasattr(module, function):
        raise ValueError(
            f"name={name!r}: models of this data set cannot be forecast with or "
            f"exported yet, because {module.__name__} has no function `{function}`"
        )
    own = settings_from(module.Settings, config, f"the {name} data")
    return getattr(module, function), own


def _check_name(name: str, state: DataState) -> None:
    """Rejects a data set of another kind than the one a model was trained on.

    Raises:
        ValueError: if its statistics mean something else.
    """
    kinds = [MODULES[x].split(".")[0] for x in (name, state.name) if x in MODULES]
    if len(set(kinds)) > 1:
        raise ValueError(
            f"name={name!r}: the model was trained on {state.name!r} data, whose "
            "statistics cannot be used for these"
        )


def _check(data: Data, state: DataState, fits: bool) -> None:
    """Rejects data that a trained model cannot be given.

    Args:
        data: the data.
        state: of the training.
        fits: whether the units of the data follow from their training examples, which
            must then be those of the training.

    Raises:
        ValueError: with what differs.
    """
    different = state.layout.differences(_layout(data))
    why = ""
    if not different and fits and data.state is not None:
        different = state.differences(data.state())
        why = " (their training months decide about climatology and scale)"
    if different:
        raise ValueError(
            "the data do not match those that the model was trained on"
            f"{why}: {'; '.join(different)}"
        )


def _layout(data: Data) -> Layout:
    """What a model of data without statistics is fed with."""
    _, height, width, _ = data.example()["targets"].shape
    return Layout(
        channels=tuple(channel.name for channel in data.display.channels),
        units=tuple(channel.units for channel in data.display.channels),
        size=(height, width),
        frame=data.display.frame,
        latitude=data.coordinates.get("latitude"),
        longitude=data.coordinates.get("longitude"),
    )


def _state(data: Data, stored: bool) -> DataState:
    """The state of data without statistics.

    Args:
        data: the data.
        stored: whether the values come from files. Values that are generated follow
            from the settings, and may differ in the last digit between machines.
    """
    checksums = {}
    if stored:
        checksums = {s: example_checksums(getattr(data, s)) for s in SPLITS}
    return data.described(_layout(data), checksums=checksums)


def settings(name: str) -> type:
    """The dataclass of the settings of a data set.

    Args:
        name: one of `MODULES`.
    """
    return _module(name).Settings


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"earthformer_jax.data.{MODULES[name]}")
