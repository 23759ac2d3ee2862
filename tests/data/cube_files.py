"""Small synthetic files of several variables that change in time."""

import dataclasses
import pathlib

import numpy as np
import xarray as xr

from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.series import Cube

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


def minutes(frames, step=times.DAY, first="2001-01-01"):
    """int64 `[t]` since 1970."""
    start = np.datetime64(first, "m").astype(np.int64)
    return start + step * np.arange(frames)


def cube(values, step=times.DAY, names=("T", "P")):
    """A series in memory, of `[t, h, w, c]`, from 2001 on."""
    moments = minutes(len(values), step)
    return Cube(
        label="c.nc",
        format="NetCDF",
        names=names[: values.shape[-1]],
        units=("",) * values.shape[-1],
        frames=ArrayFrames(np.asarray(values, np.float32)),
        segments=np.array([[0, len(values)]]),
        times=times.Times(60.0 * moments, moments),
        cadence=float(step),
    )


def series(frames=100, pieces=None, dated=True):
    """A series whose values are the numbers of its frames."""
    values = np.arange(float(frames))[:, None, None, None] * np.ones((1, 2, 3, 2))
    data = cube(values)
    if pieces:
        edges = np.cumsum([0, *pieces])
        data = dataclasses.replace(
            data, segments=np.stack([edges[:-1], edges[1:]], axis=1)
        )
    return data if dated else dataclasses.replace(data, times=None, cadence=0.0)
