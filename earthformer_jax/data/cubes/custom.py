"""One's own files: any NetCDF, Zarr, HDF5 or .npy time series of fields.

`path` is a file or a pattern of many; `python -m earthformer_jax.data
inspect PATH` says what is in them and with which settings to train. Without a path it
is the embedded climate twin. The engine is `data.cubes.cube`.
"""

from collections.abc import Mapping
from typing import Any

from earthformer_jax.data.cubes import cube
from earthformer_jax.data.cubes.cube import Settings
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.settings import settings_from


def load(config: Mapping[str, Any], seed: int) -> Dataset:
    """Loads the data set (`data.cubes.cube.load`)."""
    return cube.load(settings_from(Settings, config, "custom data"), seed)
