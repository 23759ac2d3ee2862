"""The user's files: any NetCDF, Zarr, HDF5 or .npy time series of fields.

`path` is a file or a pattern that matches many; `python -m earthformer_jax.data inspect
PATH` shows what is in them and suggests settings for training. Without a path the data
are the embedded climate twin. The work is done by `data.cubes.cube`.
"""

from collections.abc import Mapping
from typing import Any

from earthformer_jax.data.cubes import beginnings as begin
from earthformer_jax.data.cubes import cube
from earthformer_jax.data.cubes import encoding as encode
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.state import DataState
from earthformer_jax.settings import settings_from


def load(config: Mapping[str, Any], state: DataState | None = None) -> Dataset:
    """Loads the data set (`data.cubes.cube.load`)."""
    return cube.load(settings_from(Settings, config, "custom data"), state)


beginnings = begin.find
encoding = encode.find
