"""Data sets by name."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from earthformer_jax.data.dataset import Dataset

# Each module has a dataclass `Settings` and a function `load(config, seed) -> Dataset`.
# It is imported on first use.
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
        config: settings of the data set, fields of `settings(name)`, with its `name`.
        seed: of everything simulated.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid or a file cannot be used.
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
