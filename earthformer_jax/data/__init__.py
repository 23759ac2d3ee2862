"""Data sets by name."""

import importlib
from collections.abc import Mapping
from typing import Any

from earthformer_jax.data.dataset import Dataset

# Each module has `load(config, seed) -> Dataset`; it is imported when it is asked for.
MODULES = {
    "enso": "enso.enso",
    "moving_mnist": "mnist.moving_mnist",
    "nbody_mnist": "mnist.nbody_mnist",
    "sevir": "sevir.sevir",
    "climate": "cubes.climate",
    "custom": "cubes.custom",
}


def load(config: Mapping[str, Any], seed: int) -> Dataset:
    """Loads the data set `config.name` from its settings (`config.data`).

    Args:
        config: settings of the data set; `name` chooses it.
        seed: of everything simulated.

    Raises:
        FileNotFoundError: if a file is not there.
        ValueError: if a setting is impossible or a file cannot be used.
    """
    name = config["name"]
    if name not in MODULES:
        raise ValueError(
            f"config.data.name={name!r} is unknown; there are: {', '.join(MODULES)}"
        )
    module = importlib.import_module(f"earthformer_jax.data.{MODULES[name]}")
    return module.load(config, seed)
