r"""Expectation maximisation for a seasonal linear system that is seen in part.

    x[m + 1] = A[m] x[m] + e[m],   e ~ N(0, Q[m])
    y[m]     = the first q of x[m] + d[m],   d ~ N(0, R),   R diagonal

Each iteration estimates the states x of all months from all observations y (a Kalman
smoother), and then A, Q and R from products of these states and their uncertainty.
A follows the season as in `statistics.seasonal_fit`, whose penalty it shares.

The gains of the smoother are those of an endless record; at the ends of a record and
beside gaps, where months have no observation and the gain is 0, they are an
approximation. So they depend on the calendar month alone, and blocks of ten years
are smoothed side by side, each with three years more on either side.

Reference:
    Shumway and Stoffer 1982, "An approach to time series smoothing and forecasting
    using the EM algorithm".
"""

import dataclasses

import numpy as np

from earthformer_jax.statistics.linear_system import (
    MONTHS,
    SEASONAL_KERNEL,
    LinearSystem,
    stabilised,
)
from earthformer_jax.statistics.seasonal_fit import SEASON, WAVES, Sums, transitions

BLOCK, MARGIN = 120, 36  # months that are smoothed at once, and before and after them
YEARS = 8  # after which the gains are those of an endless record
LEAST_NOISE = 1e-6  # of R, as a share of the mean square of an observation


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """Observations in blocks of `MARGIN + BLOCK + MARGIN` months that begin in January.

    Attributes:
        values: `[months, blocks, q]`, 0 where `known` is.
        known: `[months, blocks]`, 1 where there is an observation, else 0.
    """

    values: np.ndarray
    known: np.ndarray

    @classmethod
    def of(cls, observations, calendar, series, kept) -> "Blocks":
        """Divides a record.

        Args:
            observations: `[m, q]`, one series after the other.
            calendar: `[m]`, calendar month of each.
            series: `[m]`, number of the series of each.
            kept: `[m]` bool; other months count as not observed.
        """
        values, known = [], []
        for number in np.unique(series[kept]):
            (months,) = np.nonzero(kept & (series == number))
            months = np.arange(months[0], months[-1] + 1)
            place = MARGIN + calendar[months[0]] + months - months[0]
            count = -(-(place[-1] + 1 - MARGIN) // BLOCK)
            seen = np.zeros(count * BLOCK + 2 * MARGIN)
            seen[place] = kept[months]
            padded = np.zeros((len(seen), observations.shape[1]))
            padded[place] = observations[months] * kept[months, None]
            for first in BLOCK * np.arange(count):
                values.append(padded[first : first + BLOCK + 2 * MARGIN])
                known.append(seen[first : first + BLOCK + 2 * MARGIN])
        return cls(np.stack(values, axis=1), np.stack(known, axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class Gains:
    """Gains of the smoother by calendar month.

    Attributes:
        filtered: `[12, n, q]`, from what an observation has new to the state.
        smoothed: `[12, n, n]`, from what is learned later about the month after.
        uncertainty: `[12, n, n]`, covariance of the error of the smoothed state.
    """

    filtered: np.ndarray
    smoothed: np.ndarray
    uncertainty: np.ndarray

    @classmethod
    def of(cls, system: LinearSystem) -> "Gains":
        """Those of an endless record of a system."""
        a, q, h = system.transition, system.noise, system.observation
        n = a.shape[-1]
        before, after, covered = (np.zeros((MONTHS, n, n)) for _ in range(3))
        filtered = np.zeros((MONTHS, n, len(h)))
        p = system.covariance[0]
        for m in np.arange(MONTHS * YEARS) % MONTHS:
            before[m] = p
            innovation = h @ p @ h.T + system.observation_noise
            filtered[m] = np.linalg.solve(innovation, h @ p).T
            after[m] = symmetric(p - filtered[m] @ h @ p)
            p = symmetric(a[m] @ after[m] @ a[m].T + q[m])
        following = np.roll(before, -1, axis=0)
        back = np.linalg.solve(following, a @ after).swapaxes(1, 2)
        p = after[0]
        for m in np.arange(MONTHS * YEARS)[::-1] % MONTHS:
            p = symmetric(after[m] + back[m] @ (p - following[m]) @ back[m].T)
            covered[m] = p
        return cls(filtered, back, covered)


def improved(
    system: LinearSystem, blocks: Blocks, ridge: float, iterations: int
) -> LinearSystem:
    """A system that makes the observations more likely.

    Args:
        system: where to start, with observations of the first q state variables.
        blocks: the observations.
        ridge: penalty on the coefficients (`statistics.seasonal_fit`).
        iterations: of expectation maximisation.
    """
    for _ in range(iterations):
        gains = Gains.of(system)
        system = _refitted(
            system, blocks, smoothed(system, gains, blocks), gains, ridge
        )
    return system


def smoothed(system: LinearSystem, gains: Gains, blocks: Blocks) -> np.ndarray:
    """States `[months, blocks, n]`, each estimated from all months of its block."""
    n, q = system.transition.shape[-1], blocks.values.shape[-1]
    states = np.zeros((*blocks.known.shape, n))
    expected, now = states.copy(), states[0]
    transition, filtered, back = (
        np.ascontiguousarray(x.swapaxes(1, 2))
        for x in (system.transition, gains.filtered, gains.smoothed)
    )
    for i, known in enumerate(blocks.known):
        m, expected[i] = i % MONTHS, now
        new = (blocks.values[i] - now[:, :q]) * known[:, None]
        states[i] = now + new @ filtered[m]
        now = states[i] @ transition[m]
    for i in reversed(range(len(states) - 1)):
        states[i] += (states[i + 1] - expected[i + 1]) @ back[i % MONTHS]
    return states


def _refitted(
    system: LinearSystem, blocks: Blocks, states, gains: Gains, ridge: float
) -> LinearSystem:
    """The system that makes states and observations the most likely."""
    inner, after = (slice(MARGIN + i, MARGIN + BLOCK + i) for i in (0, 1))
    known, now = by_month(blocks.known[inner, :, None]), by_month(states[inner])
    following, values = by_month(states[after]), by_month(blocks.values[inner])
    pairs = known * by_month(blocks.known[after, :, None])
    counts, error = pairs.sum(axis=(1, 2)), gains.uncertainty
    n, weights = now.shape[-1], counts[:, None, None]

    later = np.roll(error, -1, axis=0)
    past = (pairs * now).swapaxes(1, 2) @ now + weights * error
    cross = (pairs * following).swapaxes(1, 2) @ now
    cross = cross + weights * (later @ gains.smoothed.swapaxes(1, 2))
    future = (pairs * following).swapaxes(1, 2) @ following + weights * later

    gram = np.einsum("ma,mc,mij->aicj", SEASON, SEASON, past)
    change = np.einsum("ma,mji->aij", SEASON, cross - past)
    sums = Sums(
        gram.reshape(WAVES * n, WAVES * n),
        change.reshape(WAVES * n, n),
        int(counts.sum()),
    )
    (coefficients,) = sums.coefficients([ridge])
    a = stabilised(transitions(coefficients), n)
    mixed = a @ cross.swapaxes(1, 2)
    left = symmetric(
        future - mixed - mixed.swapaxes(1, 2) + a @ past @ a.swapaxes(1, 2)
    )
    near = [(share, shift) for shift, share in SEASONAL_KERNEL]
    total = np.sum([share * np.roll(left, shift, 0) for share, shift in near], axis=0)
    months = np.sum([share * np.roll(counts, shift) for share, shift in near], axis=0)
    q = values.shape[-1]
    squares = np.sum((known * (values - now[..., :q])) ** 2, axis=(0, 1))
    squares = squares / known.sum() + np.diagonal(error.mean(axis=0))[:q]
    least = LEAST_NOISE * np.sum(values**2, axis=(0, 1)) / known.sum()
    noise = np.diag(np.maximum(squares, least))
    return LinearSystem(a, total / months[:, None, None], system.observation, noise)


def by_month(values: np.ndarray) -> np.ndarray:
    """`[years 12, blocks, n]` to `[12, years blocks, n]`."""
    years, blocks, n = len(values) // MONTHS, *values.shape[1:]
    return (
        values.reshape(years, MONTHS, blocks, n)
        .swapaxes(0, 1)
        .reshape(MONTHS, years * blocks, n)
    )


def symmetric(matrix: np.ndarray) -> np.ndarray:
    """The symmetric part of `[..., n, n]`."""
    return (matrix + matrix.swapaxes(-1, -2)) / 2
