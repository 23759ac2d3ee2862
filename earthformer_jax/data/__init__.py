"""Data sets by name."""

from collections.abc import Mapping
from typing import Any

from earthformer_jax.data import enso
from earthformer_jax.data.source import Dataset

_LOADERS = {"enso": enso.load}


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
    if name not in _LOADERS:
        raise ValueError(
            f"config.data.name={name!r} is unknown; there are: {', '.join(_LOADERS)}"
        )
    return _LOADERS[name](config, seed)
