"""Small synthetic files of monthly sea surface temperature."""

import pathlib

import numpy as np
import xarray as xr

YEARS = 12
FIRST_YEAR = 2000


def anomalies(months: int, shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Red noise with a common part, `[months, h, w]` float32 in K."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((months, *shape)) + rng.standard_normal((months, 1, 1))
    for t in range(1, months):
        noise[t] += 0.8 * noise[t - 1]
    return (0.4 * noise).astype(np.float32)


def dataset(
    months: int = 12 * YEARS,
    *,
    absolute: bool = True,
    latitude=None,
    longitude=None,
    seed: int = 0,
) -> xr.Dataset:
    """Tropical Pacific SST in degC (or its anomaly), one land cell in the south-west.

    The months carry an annual cycle; time is decoded, latitude ascends.
    """
    latitude = np.arange(-12.5, 13, 5.0) if latitude is None else np.asarray(latitude)
    longitude = np.arange(182.5, 258, 5.0) if longitude is None else longitude
    values = anomalies(months, (len(latitude), len(longitude)), seed)
    if absolute:
        season = np.cos(2 * np.pi * np.arange(months) / 12)[:, None, None]
        values = values + np.float32(27) + 1.5 * season.astype(np.float32)
    values[:, 0, 0] = np.nan
    time = np.datetime64(f"{FIRST_YEAR}-01", "M") + np.arange(months)
    return xr.Dataset(
        {"sst": (("time", "lat", "lon"), values, {"units": "degC"})},
        coords={
            "time": time.astype("datetime64[ns]"),
            "lat": ("lat", latitude, {"units": "degrees_north"}),
            "lon": ("lon", np.asarray(longitude, float), {"units": "degrees_east"}),
        },
    )


def write(ds: xr.Dataset, path: pathlib.Path, **options) -> str:
    """Writes NetCDF-4, or Zarr if the name says so; returns the path as text."""
    if path.suffix == ".zarr":
        ds.to_zarr(path, consolidated=False, **options)
    else:
        ds.to_netcdf(path, **options)
    return str(path)


def icar_series(months: int, shape: tuple[int, int], seed: int) -> np.ndarray:
    """One climate model's months; cell (0, 0) is land (0)."""
    values = anomalies(months, shape, seed)
    values[:, 0, 0] = 0
    return values


def icar_rows(series: np.ndarray) -> np.ndarray:
    """Overlapping rows of 36 months, one a year, of a series `[m, ...]`."""
    years = (len(series) - 24) // 12
    return np.stack([series[12 * k : 12 * k + 36] for k in range(years)])


def icar_labels(series: np.ndarray) -> np.ndarray:
    """Some three-month index of a series: mean over all cells, `[m]`."""
    monthly = series.mean(axis=(1, 2), dtype=np.float64)
    padded = np.concatenate([monthly, monthly[-2:]])
    return (padded[:-2] + padded[1:-1] + padded[2:]) / 3


def write_icar(
    folder: pathlib.Path,
    rows: np.ndarray,
    nino: np.ndarray,
    *,
    latitude,
    longitude,
    name: str = "SODA",
) -> str:
    """Writes `<name>_train.nc` and `<name>_label.nc`; returns the folder as text."""
    years = np.arange(1, len(rows) + 1)
    months = np.arange(1, rows.shape[1] + 1)
    xr.Dataset(
        {"sst": (("year", "month", "lat", "lon"), rows)},
        coords={"year": years, "month": months, "lat": latitude, "lon": longitude},
    ).to_netcdf(folder / f"{name}_train.nc")
    xr.Dataset(
        {"nino": (("year", "month"), nino)}, coords={"year": years, "month": months}
    ).to_netcdf(folder / f"{name}_label.nc")
    return str(folder)
