"""What is learned from the training months of El Nino data, and kept with the model."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from earthformer_jax.data.climatology import MONTHS, Climatology
from earthformer_jax.data.enso.base import ANOMALIES, Base
from earthformer_jax.data.enso.systems import packing
from earthformer_jax.data.enso.systems.fitting import Fitted
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.readers.grid import Grid
from earthformer_jax.data.state import DataState, Layout

TWIN, ICAR, GRIDDED = "twin", "ICAR-ENSO", "gridded"
FRAME = "1 month"
_CELL = ("y", "x")

Series = Sequence[np.ndarray]  # `[m, h, w]` anomalies in K, one or more


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Learned:
    """What a trained model knows of El Nino data.

    Attributes:
        origin: `TWIN`, `ICAR` or `GRIDDED`.
        variable: name of the temperature.
        grid: the cells.
        nino_weights: weights `[h, w]` of the monthly Nino3.4 index.
        normalization: from K to what the model sees.
        index_months: months that the scored index is averaged over.
        memory_scale: K months per unit of the memory that the model sees; 0: it sees
            none.
        land_counts: whether land is part of loss and MSE.
        base: what anomalies of observed temperature are departures from; None if the
            files hold anomalies of simulations.
        fitted: returns what the reference forecasts have learned, fitted on first use;
            None: that is not known.
    """

    origin: str
    variable: str
    grid: Grid
    nino_weights: np.ndarray
    normalization: Affine
    index_months: int
    memory_scale: float = 0.0
    land_counts: bool = False
    base: Base | None = None
    fitted: Callable[[], Fitted] | None = None


def layout_of(learned: Learned) -> Layout:
    """The variable that was read, and its cells."""
    grid, base = learned.grid, learned.base
    unit = "K" if base is None or base.kind == ANOMALIES else base.kind
    return Layout(
        channels=(learned.variable,),
        units=(unit,),
        size=grid.ocean.shape,
        frame=FRAME,
        latitude=grid.latitude,
        longitude=grid.longitude,
    )


def check_cells(
    label: str, latitude: np.ndarray, longitude: np.ndarray, state: DataState
) -> None:
    """Rejects cells other than those that a model was trained on.

    Raises:
        ValueError: with what differs.
    """
    now = dataclasses.replace(
        state.layout,
        size=(len(latitude), len(longitude)),
        latitude=latitude,
        longitude=longitude,
    )
    different = state.layout.differences(now)
    if different:
        raise ValueError(
            f"{label} does not match the data that the model was trained on: "
            f"{'; '.join(different)}. Use data on the same cells, or another --workdir "
            "to train on these"
        )


def pack(learned: Learned) -> xr.Dataset:
    """What is learned as it is kept in the state of the data."""
    origin = {
        "long_name": "model unit",
        "units": "K",
        "origin": learned.origin,
        "index_months": learned.index_months,
        "land_counts": int(learned.land_counts),
        "memory_scale": learned.memory_scale,
    }
    zero = {"long_name": "anomaly that is 0 in model units", "units": "K"}
    weights = {"long_name": "weights of the Nino3.4 index", "units": "1"}
    dataset = xr.Dataset(
        {
            "scale": ("channel", [learned.normalization.scale], origin),
            "offset": ("channel", [learned.normalization.offset], zero),
            "ocean": (_CELL, learned.grid.ocean),
            "nino34_weights": (_CELL, learned.nino_weights, weights),
        }
    )
    base = learned.base
    if base is not None:
        attributes = {"long_name": "mean of the calendar month", "kind": base.kind}
        means = base.climatology.coefficients[..., 0]
        dataset["climatology"] = (("month", *_CELL), means, attributes)
    if learned.fitted is None or learned.origin == TWIN:
        return dataset  # what is learned from the twin follows from its seed
    for name, variable in packing.pack(learned.fitted()).items():
        dataset[name] = variable
    return dataset


def unpack(state: DataState) -> Learned:
    """The inverse of `pack`."""
    dataset, layout = state.fitted, state.layout
    assert layout.latitude is not None and layout.longitude is not None
    ocean = dataset["ocean"].values.astype(bool)
    grid = Grid(layout.latitude, layout.longitude, ocean)
    weights = dataset["nino34_weights"].values
    scale = dataset["scale"]
    base = None
    if "climatology" in dataset:
        means = dataset["climatology"]
        climatology = Climatology(means.values[..., None], monthly=True)
        base = Base(means.attrs["kind"], climatology, grid, weights)
    fitted = packing.unpack(dataset, ocean)
    return Learned(
        origin=scale.attrs["origin"],
        variable=layout.channels[0],
        grid=grid,
        nino_weights=weights,
        normalization=Affine(float(scale[0]), float(dataset["offset"][0])),
        index_months=int(scale.attrs["index_months"]),
        memory_scale=float(scale.attrs.get("memory_scale", 0.0)),
        land_counts=bool(scale.attrs["land_counts"]),
        base=base,
        fitted=None if fitted is None else lambda: fitted,
    )


def without_climatology(learned: Learned) -> Base:
    """A base of 0, for models of simulated anomalies: anomalies are taken as such."""
    shape = (MONTHS, *learned.grid.ocean.shape, 1)
    zero = Climatology(np.zeros(shape, np.float32), monthly=True)
    return Base(ANOMALIES, zero, learned.grid, learned.nino_weights)
