"""Fits the reference forecasts of El Nino data to the training months."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from earthformer_jax.data.readers.grid import Grid
from earthformer_jax.statistics.field_memory import (
    REACH,
    FieldMemoryModel,
    fit_field_memory,
    memory_of_cells,
)
from earthformer_jax.statistics.memory import RATES, Months, leaky_integrals
from earthformer_jax.statistics.memory_system import fit_memory_system
from earthformer_jax.statistics.oscillator import fit_oscillator
from earthformer_jax.statistics.references import (
    LinearInverseModel,
    damping_factors,
    fit_lim,
)
from earthformer_jax.statistics.state_model import StateModel

MOST_MONTHS = 12_000  # systems with memory are fitted to the latest of them

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Past:
    """What consecutive months remember of those before.

    Attributes:
        index: float32 `[m, r]`, the memory of Nino3.4 for each of `RATES`, K months.
        cells: float32 `[m, h, w]`, that of every cell, K months.
    """

    index: np.ndarray
    cells: np.ndarray

    def between(self, first: int, stop: int) -> "Past":
        """The memory of some of the months."""
        return Past(self.index[first:stop], self.cells[first:stop])

    @property
    def behind(self) -> dict[str, np.ndarray]:
        """By the names that windows have them under."""
        return {"memory": self.index, "cell_memory": self.cells}


def past_of(
    fields: np.ndarray,
    nino_weights: np.ndarray,
    segments: Sequence[Sequence[int]] | np.ndarray,
    reach: int | None = None,
) -> Past:
    """What each month remembers of those before it in its segment.

    Args:
        fields: `[m, h, w]` anomalies in K, without gaps.
        nino_weights: `[h, w]` of the index.
        segments: first month and end of the pieces without gaps in time.
        reach: months that are remembered; None: as many as each memory does.
    """
    index = np.zeros((len(fields), len(RATES)), np.float32)
    cells = np.zeros(fields.shape, np.float32)
    for first, stop in segments:
        piece = fields[first:stop]
        nino = np.einsum("mhw,hw->m", piece, nino_weights, dtype=np.float64)
        index[first:stop] = leaky_integrals(nino, reach=reach)
        cells[first:stop] = memory_of_cells(piece, REACH if reach is None else reach)
    return Past(index, cells)


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """Training months, as pieces that are each without gaps in time.

    Attributes:
        fields: `[m, h, w]` anomalies in K of each piece, without gaps.
        known: the same, NaN where the ocean was not observed.
        past: of each piece.
        first_months: calendar month of the first one of each, January = 0.
    """

    fields: Sequence[np.ndarray]
    known: Sequence[np.ndarray]
    past: Sequence[Past]
    first_months: Sequence[int]

    @functools.cached_property
    def latest(self) -> "Training":
        """The latest `MOST_MONTHS`."""
        rest, kept = MOST_MONTHS, []
        for i in reversed(range(len(self.fields))):
            skip = max(len(self.fields[i]) - rest, 0)
            if rest <= 0:
                break
            kept.insert(0, (i, skip, len(self.fields[i])))
            rest -= len(self.fields[i]) - skip
        return Training(
            [self.fields[i][a:b] for i, a, b in kept],
            [self.known[i][a:b] for i, a, b in kept],
            [self.past[i].between(a, b) for i, a, b in kept],
            [(self.first_months[i] + a) % 12 for i, a, _ in kept],
        )

    @functools.cached_property
    def months(self) -> list[Months]:
        """What systems with a memory are fitted to."""
        return [
            Months(x, past.index, first)
            for x, past, first in zip(
                self.fields, self.past, self.first_months, strict=True
            )
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What the reference forecasts have learned; None: there were too few months.

    Attributes:
        damping: float64 `[k, h, w]`, factors of the anomaly for each lead.
        lim: the linear inverse model.
        lim_memory: the same with seasons and the memory of Nino3.4.
        lim_field_memory: that with the memory of fields.
        oscillator: the recharge oscillator.
    """

    damping: np.ndarray
    lim: LinearInverseModel | None = None
    lim_memory: StateModel | None = None
    lim_field_memory: FieldMemoryModel | None = None
    oscillator: StateModel | None = None

    @property
    def forecasts(self) -> dict[str, Callable]:
        """By name, forecasts `batch -> [b, k, h, w, 1]` in K.

        A batch has `inputs` in K `[b, t, h, w, 1]`, `start_month`, `memory` `[b, r]`
        and `cell_memory` `[b, h, w]`.
        """
        uses = {
            "lim": ("inputs", "start_month"),
            "lim_memory": ("inputs", "start_month", "memory"),
            "lim_field_memory": ("inputs", "start_month", "cell_memory"),
            "oscillator": ("inputs", "start_month", "memory"),
        }

        def forecast(system: Callable, names: Sequence[str], batch: Mapping):
            return system(*(batch[name] for name in names))

        return {
            name: functools.partial(forecast, system, used)
            for name, used in uses.items()
            if (system := getattr(self, name)) is not None
        }


def fit(
    training: Training, grid: Grid, nino_weights: np.ndarray, out_len: int
) -> Fitted:
    """Fits the reference forecasts.

    Args:
        training: the training months.
        grid: the cells.
        nino_weights: `[h, w]` of the index.
        out_len: longest lead.
    """
    ocean, latitude = grid.ocean, grid.latitude
    late = training.latest
    cells = [past.cells for past in late.past]

    def lim() -> LinearInverseModel:
        series, first = training.fields, training.first_months
        return fit_lim(series, ocean, first, out_len, latitude=latitude)

    def lim_memory() -> StateModel:
        return fit_memory_system(late.months, ocean, latitude, nino_weights, out_len)

    def lim_field_memory() -> FieldMemoryModel:
        months = late.months
        return fit_field_memory(months, cells, ocean, latitude, nino_weights, out_len)

    def oscillator() -> StateModel:
        where = ocean, latitude, grid.longitude
        return fit_oscillator(late.months, *where, nino_weights, out_len)

    made = {}
    for make in (lim, lim_memory, lim_field_memory, oscillator):
        try:
            made[make.__name__] = make()
        except ValueError as error:  # training itself needs no reference forecast
            logger.info("without the reference forecast %s: %s", make.__name__, error)
    return Fitted(damping_factors(training.known, ocean, out_len), **made)
