"""The seasonal linear inverse model with memory.

Its state are the amplitudes of leading EOFs and the standardised memory of the
Nino3.4 index (`statistics.memory`); each has its own equation, whose coefficients
follow the season (`statistics.seasonal_fit`).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.eof import fit_eofs, on_grid
from earthformer_jax.statistics.memory import RATES, Months
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import check_enough, fit_system
from earthformer_jax.statistics.state_model import StateModel


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is chosen before a system is fitted.

    Attributes:
        ridge: penalty on the coefficients (`statistics.seasonal_fit`).
        rate: of the memory per year, one of `RATES`.
        skip: months left out at the beginning.
        modes: EOFs; 0: the state has none.
    """

    ridge: float = 0.01
    rate: float = 1.0
    skip: int = 0
    modes: int = 16


def fit_memory_system(
    months: Sequence[Months],
    ocean_mask,
    latitude,
    index_weights,
    out_len: int,
    *,
    choices: Choices | None = None,
) -> StateModel:
    """Fits the seasonal linear inverse model with memory.

    Args:
        months: training months, in the order of time, or of many climate model runs.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        index_weights: `[h, w]` of the Nino3.4 index.
        out_len: months of the forecast.
        choices: number of EOFs, ridge, rate and skipped months.

    Raises:
        ValueError: if there are too few months.
    """
    record = Record.of(months, ocean_mask, latitude, index_weights)
    if choices is None:
        choices = Choices()
    kept = np.arange(len(record)) >= choices.skip
    pairs = record.pairs(kept)
    check_enough(len(pairs), choices.modes + 1)
    fields = on_grid(record.cells[kept], record.ocean_mask)
    basis = fit_eofs([fields], record.ocean_mask, latitude).part(slice(choices.modes))
    n = basis.patterns.shape[0] + 1
    memory = record.memory[:, RATES.index(choices.rate)]
    mean, std = memory[kept].mean(), memory[kept].std()
    if std == 0:
        raise ValueError("the memory is the same in all months; no system has it")
    projection = np.pad(basis.projection, ((0, 0), (0, 1)))
    patterns = np.pad(basis.patterns, ((0, 1), (0, 0)))
    states = record.cells @ projection
    states[:, -1] = (memory - mean) / std
    return StateModel(
        projection=on_grid(projection.T, record.ocean_mask).transpose(1, 2, 0),
        memory_gain=np.eye(n)[-1],
        rate=choices.rate,
        memory_mean=float(mean),
        memory_std=float(std),
        patterns=on_grid(patterns, record.ocean_mask),
        system=fit_system(states, record.calendar, pairs, choices.ridge),
        out_len=out_len,
        choices=dataclasses.asdict(choices),
    )
