"""The seasonal linear inverse model with memory.

Its state is the amplitudes of the leading EOFs and the standardised memory of the
Nino3.4 index (`statistics.memory`); each has its own equation, whose coefficients
follow the season (`statistics.seasonal_fit`).
"""

from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.eof import fit_eofs, on_grid
from earthformer_jax.statistics.memory import Months
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import Choices, fit_model
from earthformer_jax.statistics.state_model import StateModel


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
        choices = Choices(ridge=0.01, rate=1.0, modes=16)
    fields = on_grid(record.cells[choices.skip :], record.ocean_mask)
    basis = fit_eofs([fields], record.ocean_mask, latitude).part(slice(choices.modes))

    def patterns(_states) -> np.ndarray:
        return np.pad(basis.patterns, ((0, 1), (0, 0)))

    return fit_model(record, choices, basis.projection, patterns, out_len)
