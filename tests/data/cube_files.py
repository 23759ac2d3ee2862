"""Small synthetic files of several variables that change in time."""

import pathlib

import numpy as np
import xarray as xr

FIRST_DAY = "2001-01-01"


def values(frames: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Red noise, `[frames, *shape]` float32, standard deviation about 1."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((frames, *shape))
    for t in range(1, frames):
        noise[t] = 0.8 * noise[t - 1] + 0.6 * noise[t]
    return noise.astype(np.float32)


def dataset(
    frames: int = 60,
    *,
    step: str = "D",
    latitude=(10.0, 12.5, 15.0, 17.5),
    longitude=(30.0, 32.5, 35.0, 37.5, 40.0),
    seed: int = 0,
) -> xr.Dataset:
    """Variables T (K) and P (mm/day) on a grid, rows from south to north."""
    shape = len(latitude), len(longitude)
    time = np.datetime64(FIRST_DAY, step) + np.arange(frames)
    dims = ("time", "lat", "lon")
    warm = 290 + 3 * values(frames, shape, seed)
    wet = np.maximum(values(frames, shape, seed + 1), 0)
    return xr.Dataset(
        {
            "T": (dims, warm.astype(np.float32), {"units": "K"}),
            "P": (dims, wet, {"units": "mm/day"}),
        },
        coords={
            "time": time.astype("datetime64[ns]"),
            "lat": ("lat", np.asarray(latitude), {"units": "degrees_north"}),
            "lon": ("lon", np.asarray(longitude), {"units": "degrees_east"}),
        },
    )


def write(ds: xr.Dataset, path: pathlib.Path, **options) -> str:
    """Writes NetCDF-4, or Zarr if the name says so; returns the path as text."""
    if path.suffix == ".zarr":
        ds.to_zarr(path, consolidated=False, **options)
    else:
        ds.to_netcdf(path, **options)
    return str(path)


def stacked(ds: xr.Dataset, names=("T", "P")) -> np.ndarray:
    """`[t, h, w, c]` of a data set of `dataset`."""
    return np.stack([ds[name].values for name in names], axis=-1)
