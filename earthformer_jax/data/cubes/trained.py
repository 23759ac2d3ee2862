"""Statistics of a series in the state of the data.

Everything that was fitted to the training period goes into the state (`data.state`) and
comes back from there.
"""

from collections.abc import Callable, Mapping

import xarray as xr

from earthformer_jax.data.climatology import Climatology
from earthformer_jax.data.cubes.references import Fitted
from earthformer_jax.data.cubes.statistics import Normalizer
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.splits import (
    Period,
)
from earthformer_jax.data.state import DataState, Layout, series

_CELL = ("y", "x", "channel")
_CYCLE = ("coefficient", *_CELL)


def layout_of(cube: Cube) -> Layout:
    """What a model of this series is fed with."""
    _, height, width, _ = cube.frames.shape
    return Layout(
        channels=cube.names,
        units=cube.units,
        size=(height, width),
        frame=times.frame_name(cube.cadence),
        latitude=cube.latitude,
        longitude=cube.longitude,
        standard_names=cube.standard_names if any(cube.standard_names) else (),
        flipped=cube.flipped,
    )


def pack(normalizer: Normalizer, fitted: Fitted) -> xr.Dataset:
    """Statistics as they are kept in the state of the data."""
    dataset = xr.Dataset(
        {
            "scale": ("channel", normalizer.scale, {"long_name": "model unit"}),
            "offset": ("channel", normalizer.offset, {"long_name": "value of 0"}),
            "observed": (_CELL, normalizer.counted),
            "damping": (("lead", "target"), fitted.damping),
        }
    )
    for name, cycle in (("removed", normalizer.climatology), ("cycle", fitted.cycle)):
        if cycle is not None:
            attributes = {"annual": cycle.annual, "daily": cycle.daily}
            dataset[name] = (_CYCLE, cycle.coefficients, attributes)
    return dataset


def unpack(state: DataState) -> tuple[Normalizer, Fitted]:
    """The inverse of `pack`."""
    dataset = state.fitted

    def cycle(name: str) -> Climatology | None:
        if name not in dataset:
            return None
        variable = dataset[name]
        annual, daily = (int(variable.attrs[k]) for k in ("annual", "daily"))
        return Climatology(variable.values, annual, daily)

    normalizer = Normalizer(
        scale=dataset["scale"].values,
        offset=dataset["offset"].values,
        counted=dataset["observed"].values.astype(bool),
        climatology=cycle("removed"),
    )
    return normalizer, Fitted(dataset["damping"].values, cycle("cycle"))


def make_state(
    data: Data,
    cube: Cube,
    periods: Mapping[str, Period],
    normalizer: Normalizer,
    fitted: Callable[[], Fitted],
    *,
    generated: bool,
) -> DataState:
    """The state of the data that a model is trained on.

    Args:
        data: the data.
        cube: the series they are cut from.
        periods: of the splits.
        normalizer: conversion to model units.
        fitted: returns what the reference forecasts have learned.
        generated: whether the values follow from the settings alone; they are then not
            compared, since they may differ in the last digit between machines.
    """
    checksums = {} if generated else series.checksums_of(cube, periods)
    return data.described(
        layout_of(cube),
        **series.kept(cube, periods, checksums),
        fitted=pack(normalizer, fitted()),
    )
