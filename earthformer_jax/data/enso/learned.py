"""What is learned from the training months of El Nino data, and kept with the model."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from earthformer_jax.data.climatology import MONTHS, Climatology
from earthformer_jax.data.enso.base import ANOMALIES, Base
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.readers.grid import Grid
from earthformer_jax.data.state import DataState, Layout
from earthformer_jax.statistics.eof import EofBasis
from earthformer_jax.statistics.linear_system import LinearSystem
from earthformer_jax.statistics.references import (
    LinearInverseModel,
    damping_factors,
    fit_lim,
)

TWIN, ICAR, GRIDDED = "twin", "ICAR-ENSO", "gridded"
FRAME = "1 month"
_CELL = ("y", "x")

Series = Sequence[np.ndarray]  # `[m, h, w]` anomalies in K, one or more


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What the reference forecasts have learned from the training months.

    Attributes:
        damping: float64 `[k, h, w]`, factors of the anomaly for each lead.
        lim: the linear inverse model; None if there are too few months for it.
    """

    damping: np.ndarray
    lim: LinearInverseModel | None


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


def fit_references(
    training: Series,
    known: Series,
    grid: Grid,
    first_month: int,
    out_len: int,
) -> Fitted:
    """Fits the reference forecasts.

    Args:
        training: the training months in K; each series begins in `first_month`.
        known: the same months, NaN where the ocean was not observed.
        grid: the cells.
        first_month: calendar month, January = 0.
        out_len: longest lead.
    """
    damping = damping_factors(known, grid.ocean, out_len)
    try:
        lim = fit_lim(
            training, grid.ocean, first_month, out_len, latitude=grid.latitude
        )
    except ValueError:  # training needs no reference forecast
        lim = None
    return Fitted(damping, lim)


def pack(learned: Learned) -> xr.Dataset:
    """What is learned as it is kept in the state of the data."""
    origin = {
        "long_name": "model unit",
        "units": "K",
        "origin": learned.origin,
        "index_months": learned.index_months,
        "land_counts": int(learned.land_counts),
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
    fitted = learned.fitted()
    dataset["damping"] = (("lead", *_CELL), fitted.damping)
    if fitted.lim is not None:
        basis, system = fitted.lim.basis, fitted.lim.system
        dataset["lim_patterns"] = (("mode", "cell"), basis.patterns)
        dataset["lim_projection"] = (("cell", "mode"), basis.projection)
        dataset["lim_variance"] = ("mode", basis.variance)
        step = ("month", "mode", "mode_before")
        dataset["lim_transition"] = (step, system.transition)
        dataset["lim_noise"] = (step, system.noise)
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
    fitted = _unpacked_fit(dataset, ocean) if "damping" in dataset else None
    return Learned(
        origin=scale.attrs["origin"],
        variable=layout.channels[0],
        grid=grid,
        nino_weights=weights,
        normalization=Affine(float(scale[0]), float(dataset["offset"][0])),
        index_months=int(scale.attrs["index_months"]),
        land_counts=bool(scale.attrs["land_counts"]),
        base=base,
        fitted=None if fitted is None else lambda: fitted,
    )


def without_climatology(learned: Learned) -> Base:
    """A base of 0, for models of simulated anomalies: anomalies are taken as such."""
    shape = (MONTHS, *learned.grid.ocean.shape, 1)
    zero = Climatology(np.zeros(shape, np.float32), monthly=True)
    return Base(ANOMALIES, zero, learned.grid, learned.nino_weights)


def _unpacked_fit(dataset: xr.Dataset, ocean: np.ndarray) -> Fitted:
    lim, damping = None, dataset["damping"].values
    if "lim_patterns" in dataset:
        patterns, projection, variance, transition, noise = (
            dataset[f"lim_{name}"].values
            for name in ("patterns", "projection", "variance", "transition", "noise")
        )
        basis = EofBasis(ocean, patterns, projection, variance)
        lim = LinearInverseModel(basis, LinearSystem(transition, noise), len(damping))
    return Fitted(damping, lim)
