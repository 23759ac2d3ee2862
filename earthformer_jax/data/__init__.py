"""Data sets by name."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from earthformer_jax.data.dataset import Dataset

# Each module has a dataclass `Settings`, and `load(config, seed) -> Dataset`; it is
# imported when it is asked for.
MODULES = {
    "enso": "enso.enso",
    "moving_mnist": "mnist.moving_mnist",
    "nbody_mnist": "mnist.nbody_mnist",
    "sevir": "sevir.sevir",
    "climate": "cubes.climate",
    "custom": "cubes.custom",
}


def load(config: Mapping[str, Any], seed: int) -> Dataset:
    """Loads the data set `config["name"]`.

    Args:
        config: settings of the data set, fields of `settings(name)`; `name` chooses it.
        seed: of everything simulated.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if a setting is impossible or a file cannot be used.
    """
    name = config["name"]
    if name not in MODULES:
        raise ValueError(f"name={name!r} is unknown; there are: {', '.join(MODULES)}")
    return _module(name).load(config, seed)


def settings(name: str) -> type:
    """The dataclass of the settings of a data set.

    Args:
        name: one of `MODULES`.
    """
    return _module(name).Settings


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"earthformer_jax.data.{MODULES[name]}")
