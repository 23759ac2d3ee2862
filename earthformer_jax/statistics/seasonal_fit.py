"""Ridge regression of month-to-month changes, with coefficients that follow the season.

    x[m + 1] - x[m] = sum_k c_k(m) B_k x[m] + noise,   c = 1, cos 2 pi t, sin 2 pi t

t is the middle of month m in years. The regressors are scaled to unit mean square, and
`ridge` times the number of months is added to the diagonal of the normal equations.
Sums over months are kept apart from solving, so that fits of a part of the state, or
with another ridge, need no further pass over the months.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from earthformer_jax.statistics.eof import on_grid
from earthformer_jax.statistics.linear_system import (
    MONTHS,
    LinearSystem,
    harmonics_of,
    innovation_covariance,
    stabilised,
)
from earthformer_jax.statistics.memory import RATES
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.state_model import StateModel

SEASON = harmonics_of(np.arange(MONTHS) + 0.5, 1)  # [12, 3]
WAVES = SEASON.shape[1]
ROWS_PER_COEFFICIENT = 2  # fewer months than this are too few
ROUNDING = 1e-20  # of the largest mean square; less is that of a variable without any


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is chosen before a system is fitted.

    Attributes:
        ridge: penalty on the coefficients (equations at the top of the file).
        rate: of the memory per year, one of `RATES`.
        skip: months left out at the beginning.
        modes: EOFs of the state; 0: it has none.
    """

    ridge: float
    rate: float
    skip: int = 0
    modes: int = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Sums:
    """Sums over months for the regression of n state variables.

    Attributes:
        gram: `[3 n, 3 n]`, products of regressors; the harmonic varies slowest.
        cross: `[3 n, n]`, products of regressors and changes.
        count: months.
    """

    gram: np.ndarray
    cross: np.ndarray
    count: int

    @classmethod
    def of(cls, states, calendar, pairs) -> "Sums":
        """Adds up months.

        Args:
            states: `[m, n]`.
            calendar: `[m]`, calendar month of each.
            pairs: indices of the months whose next one is used, too.
        """
        columns = _columns(states[pairs], calendar[pairs])
        change = states[pairs + 1] - states[pairs]
        return cls(columns.T @ columns, columns.T @ change, len(pairs))

    def part(self, chosen) -> "Sums":
        """The sums for a part of the state, given as indices."""
        chosen, n = np.asarray(chosen), self.cross.shape[1]
        rows = (np.arange(WAVES)[:, None] * n + chosen).ravel()
        return Sums(
            self.gram[np.ix_(rows, rows)], self.cross[np.ix_(rows, chosen)], self.count
        )

    def coefficients(self, ridges) -> np.ndarray:
        """`[c, 3 n, n]` for each of c ridges."""
        square = np.diag(self.gram) / self.count
        scale = np.sqrt(np.where(square > ROUNDING * square.max(), square, 1.0))
        penalty = np.asarray(ridges)[:, None, None] * self.count
        gram = self.gram / (scale[:, None] * scale)
        gram = gram + penalty * np.eye(len(gram))
        return np.linalg.solve(gram, self.cross / scale[:, None]) / scale[:, None]


def transitions(coefficients) -> np.ndarray:
    """`[..., 3 n, n]` coefficients to `[..., 12, n, n]`, from a month to the next."""
    n = coefficients.shape[-1]
    waves = coefficients.reshape(*coefficients.shape[:-2], WAVES, n, n)
    return np.eye(n) + np.einsum("mk,...kij->...mji", SEASON, waves)


def fit_system(states, calendar, pairs, ridge: float) -> LinearSystem:
    """Fits dynamics and noise by calendar month; arguments as of `Sums.of`.

    Raises:
        ValueError: if there are too few months.
    """
    check_enough(len(pairs), states.shape[1])
    sums = Sums.of(states, calendar, pairs)
    (coefficients,) = sums.coefficients([ridge])
    fitted = _columns(states[pairs], calendar[pairs]) @ coefficients
    residual = states[pairs + 1] - states[pairs] - fitted
    transition = stabilised(transitions(coefficients), states.shape[1])
    return LinearSystem(transition, innovation_covariance(residual, calendar[pairs]))


def fit_model(
    record: Record,
    choices: Choices,
    projection: np.ndarray,
    patterns: Callable[[np.ndarray], np.ndarray],
    out_len: int,
) -> StateModel:
    """Fits a model whose last state variable is the standardised memory.

    Args:
        record: the training months.
        choices: ridge, rate and skipped months.
        projection: `[cells, n - 1]`, from a field in K to the rest of the state.
        patterns: makes `[n, cells]` K of the states `[m, n]` of the kept months.
        out_len: months of the forecast.

    Raises:
        ValueError: if there are too few months, or the memory is always the same.
    """
    kept = np.arange(len(record)) >= choices.skip
    pairs = record.pairs(kept)
    check_enough(len(pairs), projection.shape[1] + 1)
    memory = record.memory[:, RATES.index(choices.rate)]
    mean, std = float(memory[kept].mean()), float(memory[kept].std())
    if std == 0:
        raise ValueError(
            "the memory is the same in all months, so its dynamics cannot be fitted"
        )
    standardised = ((memory - mean) / std)[:, None]
    states = np.concatenate([record.cells @ projection, standardised], axis=1)
    n = states.shape[1]
    projection = np.pad(projection, ((0, 0), (0, 1)))
    return StateModel(
        projection=np.moveaxis(on_grid(projection.T, record.ocean_mask), 0, -1),
        memory_gain=np.eye(n)[-1],
        rate=choices.rate,
        memory_mean=mean,
        memory_std=std,
        patterns=on_grid(patterns(states[kept]), record.ocean_mask),
        system=fit_system(states, record.calendar, pairs, choices.ridge),
        out_len=out_len,
        choices=dataclasses.asdict(choices),
    )


def most_states(months: int) -> int:
    """The number of state variables whose coefficients months suffice for."""
    return months // (ROWS_PER_COEFFICIENT * WAVES)


def is_enough(months: int, n: int) -> bool:
    """Whether months suffice for the coefficients of n state variables."""
    return n <= most_states(months)


def check_enough(months: int, n: int) -> None:
    """Rejects fewer months than the coefficients of n state variables need.

    Raises:
        ValueError: with both numbers.
    """
    if not is_enough(months, n):
        raise ValueError(
            f"{months} months are too few for {WAVES * n} coefficients of each of {n} "
            f"state variables; at least {ROWS_PER_COEFFICIENT * WAVES * n} are needed"
        )


def _columns(states, calendar) -> np.ndarray:
    """Regressors `[m, 3 n]`, the harmonic varying slowest."""
    columns = SEASON[calendar][:, :, None] * states[:, None, :]
    return columns.reshape(len(states), -1)
