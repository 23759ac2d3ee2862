"""Fits the reference forecasts of El Nino data to the training months."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from earthformer_jax.data.enso.systems.training import Training
from earthformer_jax.data.readers.grid import Grid
from earthformer_jax.statistics.field_memory import (
    REACH,
    FieldMemoryModel,
    fit_field_memory,
)
from earthformer_jax.statistics.hidden.model import HiddenStateModel, fit_hidden_states
from earthformer_jax.statistics.memory_system import fit_memory_system
from earthformer_jax.statistics.oscillator import fit_oscillator
from earthformer_jax.statistics.references import (
    LinearInverseModel,
    damping_factors,
    fit_lim,
)
from earthformer_jax.statistics.state_model import StateModel

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """What the reference forecasts have learned; None: there were too few months.

    Attributes:
        damping: float64 `[k, h, w]`, factors of the anomaly for each lead.
        lim: the linear inverse model.
        lim_memory: the same with seasons and the memory of Nino3.4.
        lim_field_memory: that with the memory of fields.
        lim_hidden: that with hidden states, from all months of the inputs.
        oscillator: the recharge oscillator.
        problems: by name, why those that are None could not be fitted, if known.
    """

    damping: np.ndarray
    lim: LinearInverseModel | None = None
    lim_memory: StateModel | None = None
    lim_field_memory: FieldMemoryModel | None = None
    lim_hidden: HiddenStateModel | None = None
    oscillator: StateModel | None = None
    problems: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
            "lim_hidden": ("inputs", "start_month", "cell_memory"),
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
    training: Training,
    grid: Grid,
    nino_weights: np.ndarray,
    out_len: int,
    reach: int = REACH,
) -> Fitted:
    """Fits the reference forecasts.

    Args:
        training: the training months.
        grid: the cells.
        nino_weights: `[h, w]` of the index.
        out_len: longest lead.
        reach: months before the last one of the inputs that its memory knows.
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

    def lim_hidden() -> HiddenStateModel:
        where = ocean, latitude, nino_weights
        return fit_hidden_states(late.months, *where, out_len, reach)

    def oscillator() -> StateModel:
        where = ocean, latitude, grid.longitude
        return fit_oscillator(late.months, *where, nino_weights, out_len)

    made, problems = {}, {}
    for make in (lim, lim_memory, lim_field_memory, lim_hidden, oscillator):
        try:
            made[make.__name__] = make()
        except ValueError as error:  # training itself needs no reference forecast
            logger.info("without the reference forecast %s: %s", make.__name__, error)
            problems[make.__name__] = str(error)
    damping = damping_factors(training.known, ocean, out_len)
    return Fitted(damping, **made, problems=problems)


def fitting(
    training: Callable[[], Training],
    grid: Grid,
    nino_weights: np.ndarray,
    out_len: int,
    reach: int = REACH,
) -> Callable[[], Fitted]:
    """What calls `fit`, once, when it is called itself; arguments as there."""
    return functools.cache(lambda: fit(training(), grid, nino_weights, out_len, reach))
