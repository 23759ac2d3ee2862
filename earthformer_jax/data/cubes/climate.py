"""Climate cubes: several variables on a grid, forecast from past days or months.

The data are NetCDF files or Zarr stores of a reanalysis, a climate model or
observations; without a path, the embedded climate twin (`data.cubes.twin`), synthetic
daily weather.

By default the model sees anomalies from the seasonal cycle of the training period in
units of their standard deviation, together with the season. The work is done by
`data.cubes.cube`, with the settings of `data.cubes.settings.Settings`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from earthformer_jax.data.cubes import beginnings as begin
from earthformer_jax.data.cubes import cube
from earthformer_jax.data.cubes import encoding as encode
from earthformer_jax.data.cubes import settings as cube_settings
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.state import DataState
from earthformer_jax.settings import settings_from


@dataclasses.dataclass(frozen=True)
class Settings(cube_settings.Settings):
    """Settings of a climate cube: those of `data.cubes.settings.Settings`."""

    name: str = "climate"
    anomalies: bool = True
    calendar: bool = True


def load(config: Mapping[str, Any], state: DataState | None = None) -> Dataset:
    """Loads the data set (`data.cubes.cube.load`)."""
    return cube.load(settings_from(Settings, config, "the climate data"), state)


beginnings = begin.find
encoding = encode.find
