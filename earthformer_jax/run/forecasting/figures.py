"""Figures of a forecast that was written, next to its file."""

import logging
import pathlib

import numpy as np
import xarray as xr

from earthformer_jax.forecast.outline import Outline, area_mean

logger = logging.getLogger(__name__)


def draw(path: pathlib.Path, outline: Outline) -> list[pathlib.Path]:
    """Draws the first forecast of a file next to it, after its inputs.

    What cannot be drawn is said; the forecast is there all the same.

    Args:
        path: of the forecasts.
        outline: of what was written.

    Returns:
        the figures.
    """
    from earthformer_jax import plotting  # slow to import

    opened = xr.open_zarr if path.suffix == ".zarr" else xr.open_dataset
    try:
        with opened(path, decode_timedelta=False) as forecast:
            before = inputs(outline)
            return plotting.draw_forecast(forecast, path.with_suffix(""), before)
    except (OSError, ValueError) as error:
        logger.warning("no figure of %s: %s", path, error)
        return []


def inputs(outline: Outline) -> xr.Dataset | None:
    """The input frames of the first forecast as the model saw them, without gaps.

    Returns:
        variables and indices with the dimension `time`, named as in the file; None
        without dates.
    """
    found = outline.beginnings
    window = found.windows[0]
    if found.reference is None or "time" not in window:
        return None
    seen = window["inputs"][..., : len(found.variables)]
    minutes = window["time"].astype(np.int64)
    plane = ("y", "x")
    if found.latitude is not None and found.latitude.ndim == 1:
        plane = ("lat", "lon")
    fields = found.decode(seen, minutes)
    made: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        name: (("time", *plane), fields[..., c]) for c, name in enumerate(outline.names)
    }
    if found.anomalies is not None:
        departures = found.anomalies(seen)
        if outline.anomalies:
            for c, name in enumerate(outline.anomaly_names):
                made[name] = (("time", *plane), departures[..., c])
        for name, weights in zip(
            outline.index_names, found.indices.values(), strict=True
        ):
            made[name] = (("time",), area_mean(departures, weights))
    moments = minutes.astype("datetime64[m]").astype("datetime64[ns]")
    return xr.Dataset(made, {"time": moments})
