"""The arrays behind the scores of El Niño forecasts, as one NetCDF file."""

import os
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.data.dataset import Data
from earthformer_jax.metrics import index_skill
from earthformer_jax.reports.nino import skill as skill_lib
from earthformer_jax.reports.nino.skill import Skill

NAME = "skill.nc"
CATEGORIES = ["La Niña", "neutral", "El Niño"]


def dataset(skill: Skill, data: Data, step: int = 0) -> xr.Dataset:
    """Everything in `skill`, with names, units and a meaning of each variable.

    Args:
        skill: of the model and references.
        data: that were forecast.
        step: optimiser steps after which the model was saved; 0: it was not trained.
    """
    windows = skill.windows
    leads = windows.forecast.shape[2]
    category_leads = skill_lib.category_scores(skill)["hits"].shape[1]
    return xr.Dataset(
        {
            name: (dims, values, {"long_name": meaning} | ({"units": u} if u else {}))
            for name, (dims, values, meaning, u) in _variables(skill).items()
        },
        coords={
            "forecast": list(windows.names),
            "lead": ("lead", np.arange(1, leads + 1), {"units": "months"}),
            "map_lead": ("map_lead", windows.map_leads, {"units": "months"}),
            "category_lead": np.arange(1, category_leads + 1),
            "region": list(windows.regions),
            "target_month": np.arange(1, 13),
            "forecast_category": CATEGORIES,
            "observed_category": CATEGORIES,
            "latitude": (
                "latitude",
                data.coordinates["latitude"],
                {"units": "degrees_north"},
            ),
            "longitude": (
                "longitude",
                data.coordinates["longitude"],
                {"units": "degrees_east"},
            ),
        },
        attrs={
            "title": "Skill of El Niño forecasts",
            "source": data.description,
            "index_months": skill.index_months,
            "block_windows": skill.block,
            "step": step,
        },
    )


def _variables(skill: Skill) -> dict[str, tuple]:
    """Dimensions, values, meaning and unit ("" if it varies) of each variable."""
    windows = skill.windows
    month_r, month_rmse = index_skill.by_target_month(
        windows.forecast[..., 0], windows.observed[..., 0], windows.start_month
    )
    regions = skill_lib.region_scores(windows)
    categories = skill_lib.category_scores(skill)
    by_region = ("forecast", "lead", "region")
    by_month = ("forecast", "target_month", "lead")
    maps = ("forecast", "map_lead", "latitude", "longitude")

    def stacked(key):
        return np.stack([both[key] for both in regions.values()], axis=-1)

    return {
        "index": (
            ("forecast", "window", "lead", "region"),
            windows.forecast,
            "forecast index of the month",
            "K",
        ),
        "observed_index": (
            ("window", "lead", "region"),
            windows.observed,
            "observed index of the month",
            "K",
        ),
        "observed_three_month": (
            ("window", "season"),
            windows.observed_three_month,
            "observed Nino3.4, mean of a month and the next two",
            "K",
        ),
        "start_month": (
            ("window",),
            windows.start_month + 1,
            "calendar month of lead 1, January is 1",
            "1",
        ),
        "squared_error": (
            ("forecast", "window"),
            windows.squared_error,
            "mean squared error over the map and all leads, as in scores.json",
            "",
        ),
        "correlation": (by_region, stacked("correlation"), "correlation by lead", "1"),
        "rmse": (by_region, stacked("rmse"), "root mean square error by lead", "K"),
        "target_month_correlation": (
            by_month,
            month_r,
            "correlation of Nino3.4 by the calendar month that is forecast",
            "1",
        ),
        "target_month_rmse": (
            by_month,
            month_rmse,
            "root mean square error of Nino3.4 by the calendar month that is forecast",
            "K",
        ),
        "map_correlation": (
            maps,
            windows.map_correlation,
            "correlation over the test windows in each cell",
            "1",
        ),
        "map_mse": (
            maps,
            windows.map_error,
            "mean squared error over the test windows in each cell",
            "K2",
        ),
        "hits": (
            ("forecast", "category_lead", "forecast_category", "observed_category"),
            categories["hits"],
            "windows by the forecast and the observed category of Nino3.4, "
            f"which are divided at +-{skill_lib.THRESHOLD} K",
            "1",
        ),
    }


def write(path: Path, skill: Skill, data: Data, step: int = 0) -> None:
    """Writes `dataset` so that readers never see a partial file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    content = dataset(skill, data, step)
    encoding = {
        name: {"zlib": True, "complevel": 1, "dtype": "float32"}
        for name, values in content.data_vars.items()
        if values.dtype.kind == "f"
    }
    content.to_netcdf(unfinished, engine="netcdf4", encoding=encoding)
    os.replace(unfinished, path)
