"""Forecasts of Nino3.4 from climate indices: from persistence to the nonlinear XRO.

Every forecast starts from the indices of one month, by a model that did not learn from
the months it forecasts or starts from (`withholding`). The indices themselves may know
them: anomalies that are departures from the mean of the whole record do.
"""

from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics import withholding, xro
from earthformer_jax.statistics.linear_system import MONTHS, LinearSystem
from earthformer_jax.statistics.memory import leaky_integrals

PERSISTENCE = "persistence"
LIM_TWO, LIM = "lim_two_indices", "lim_indices"
XRO_LINEAR, XRO, XRO_MEMORY = "xro_linear", "xro", "xro_memory"
NAMES = (PERSISTENCE, LIM_TWO, LIM, XRO_LINEAR, XRO, XRO_MEMORY)

MEMORY_RATE = 0.6  # per year; it was not tuned
MEMORY_HARMONICS = 1
SPIN_UP = 12  # months after which a memory that began at zero is learned from


def forecasts(
    values,
    first_month: int,
    names: Sequence[str] = xro.INDICES,
    *,
    leads: int = withholding.LEADS,
    block: int = withholding.BLOCK,
) -> dict[str, np.ndarray]:
    """Forecasts of Nino3.4 from every month of a record.

    In "xro_memory" a leaky integral of past Nino3.4 (`memory`) takes the place of the
    warm water volume. It starts at zero in the first month of the record and, where a
    model is fitted, of each series that remains: it does not carry withheld months
    into the fit.

    Args:
        values: `[m, n]` monthly anomalies of consecutive months.
        first_month: calendar month of the first, January = 0.
        names: n names of the columns, among them those of `xro.INDICES`.
        leads: months to forecast.
        block: months that are withheld together, with the `leads` after them.

    Returns:
        by name, `[m, leads]`: what is forecast for the months after each one.

    Raises:
        ValueError: if an index is missing, or there are too few months.
    """
    if absent := [name for name in xro.INDICES if name not in names]:
        raise ValueError(f"the indices {', '.join(absent)} are missing")
    x = np.asarray(values, np.float64)[:, [*map(list(names).index, xro.INDICES)]]
    nino, water = map(xro.INDICES.index, (xro.NINO34, xro.WARM_WATER))
    with_memory = _with_memory(x, nino, water)

    def run(series, fit):
        found = withholding.hindcasts(
            series, first_month, fit, leads=leads, block=block
        )
        return found[..., 0]

    def system(products=()):
        return _xro(leads, products, xro.HARMONICS)

    memory = _xro(leads, xro.NONLINEAR, MEMORY_HARMONICS)

    def fit_memory(parts, months):
        learned = [_with_memory(x, nino, water)[SPIN_UP:] for x in parts]
        return memory(learned, [(m + SPIN_UP) % MONTHS for m in months])

    return {
        PERSISTENCE: np.repeat(x[:, [nino]], leads, axis=1),
        LIM_TWO: run(x[:, [nino, water]], _lim(leads)),
        LIM: run(x, _lim(leads)),
        XRO_LINEAR: run(x, system()),
        XRO: run(x, system(xro.NONLINEAR)),
        XRO_MEMORY: run(with_memory, fit_memory),
    }


def _with_memory(x: np.ndarray, nino: int, water: int) -> np.ndarray:
    """The indices, the memory of Nino3.4 in place of the warm water volume."""
    x = x.copy()
    x[:, water] = leaky_integrals(x[:, nino], (MEMORY_RATE,))[:, 0]
    return x


def _xro(leads: int, products, harmonics: int) -> withholding.Fit:
    def fit(parts, months):
        model = xro.fit(parts, months, products=products, harmonics=harmonics)
        return lambda state, month: model.forecast(state, month, leads)

    return fit


def _lim(leads: int) -> withholding.Fit:
    """A linear inverse model that is the same in all calendar months."""

    def fit(parts, months):
        del months
        model = LinearSystem.fit(parts, 0, lags=1, harmonics=0)
        return lambda state, month: model.forecast(state, month + 1, leads)

    return fit
