"""The mean annual and daily cycles of every cell, estimated from a training period.

They are either Fourier series (1, cos, sin, cos 2, ...) of the season and the time of
day,

    climatology(t) = sum_ij a_ij f_i(season of t) g_j(time of day of t),

with coefficients fitted by least squares to the observed values of each cell, or the
means of the calendar months.
"""

import dataclasses

import numpy as np

from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.times import DAY, season, time_of_day

MONTHS = 12
ANNUAL, DAILY = 3, 2  # harmonics, if the cadence resolves them
FULL_YEAR = 350 * DAY  # minutes that count as a full year
FULL_DAYS = 3 * DAY
YEAR = 365.2425 * DAY
CELLS = 2**15  # fitted at a time
RIDGE = 1e-6  # keeps the equations of a cell with gaps solvable
# A cell with fewer observed values per coefficient than this gets only its mean.
VALUES_PER_COEFFICIENT = 3


@dataclasses.dataclass(frozen=True)
class Climatology:
    """Mean annual and daily cycles of every cell.

    Attributes:
        coefficients: float32 `[p, h, w, c]` in the units of the file; 0 where a cell
            was never observed. With `monthly` the means of January to December; NaN
            where a month was never observed.
        annual: number of annual harmonics.
        daily: number of daily harmonics.
        monthly: whether it consists of the means of the calendar months.
    """

    coefficients: np.ndarray
    annual: int = 0
    daily: int = 0
    monthly: bool = False

    @property
    def has_cycles(self) -> bool:
        """Whether it depends on the time."""
        return bool(self.annual or self.daily or self.monthly)

    def at(self, minutes: np.ndarray | None) -> np.ndarray:
        """float32 `[..., h, w, c]` at times `[...]`; `[1, h, w, c]` without times."""
        if self.monthly:
            if minutes is None:
                raise ValueError("a monthly climatology needs minutes")
            return self.coefficients[times.month_of(minutes) % MONTHS]
        if minutes is None or not (self.annual or self.daily):
            shape = (1,) if minutes is None else np.shape(minutes)
            constant = self.coefficients[0]
            return np.broadcast_to(constant, (*shape, *constant.shape))
        basis = cycles(minutes, self.annual, self.daily).astype(np.float32)
        return np.tensordot(basis, self.coefficients, axes=1)

    def __str__(self) -> str:
        if self.monthly:
            return "monthly means"
        parts = [
            f"{count} harmonics of the {name}"
            for count, name in ((self.annual, "year"), (self.daily, "day"))
            if count
        ]
        return " x ".join(parts) or "mean"


def cycles(minutes: np.ndarray, annual: int, daily: int) -> np.ndarray:
    """Products of the Fourier series of year and day, `[..., p]`.

    p = (1 + 2 annual) (1 + 2 daily); the first is 1.
    """
    year = _fourier(season(minutes), annual)
    day = _fourier(time_of_day(minutes), daily)
    product = year[..., :, None] * day[..., None, :]
    return product.reshape(*product.shape[:-2], year.shape[-1] * day.shape[-1])


def harmonics(minutes: np.ndarray | None, cadence: float) -> tuple[int, int]:
    """Annual and daily harmonics that can be estimated from a period of these times.

    Args:
        minutes: `[t]` times of the period, increasing; None if unknown.
        cadence: minutes from frame to frame.
    """
    if minutes is None or len(minutes) < 2 or cadence <= 0:
        return 0, 0
    span = minutes[-1] - minutes[0] + cadence
    annual = daily = 0
    if span >= FULL_YEAR:
        annual = max(0, min(ANNUAL, int((round(YEAR / cadence) - 1) // 2)))
    if span >= FULL_DAYS:
        daily = max(0, min(DAILY, int((round(DAY / cadence) - 1) // 2)))
    return annual, daily


def fit_climatology(
    values: np.ndarray, minutes: np.ndarray | None, annual: int, daily: int
) -> Climatology:
    """Least squares over the observed values of each cell.

    Args:
        values: `[t, h, w, c]`, NaN where missing.
        minutes: `[t]`; None to fit only the mean.
        annual: number of annual harmonics.
        daily: number of daily harmonics.
    """
    t, *cell = values.shape
    if minutes is None:
        annual = daily = 0
    basis = cycles(np.zeros(t) if minutes is None else minutes, annual, daily)
    flat = values.reshape(t, -1)
    parts = [
        _fit_cells(basis, flat[:, start : start + CELLS])
        for start in range(0, flat.shape[1], CELLS)
    ]
    coefficients = np.concatenate(parts, axis=1).reshape(-1, *cell)
    return Climatology(coefficients.astype(np.float32), annual, daily)


def fit_monthly(values: np.ndarray, minutes: np.ndarray) -> Climatology:
    """The mean of each calendar month.

    Args:
        values: `[t, h, w, c]`, NaN where missing.
        minutes: `[t]` since 1970.
    """
    month = times.month_of(minutes) % MONTHS
    means = np.full((MONTHS, *values.shape[1:]), np.nan, np.float32)
    for m in np.unique(month):
        chosen = values[month == m]
        count = np.isfinite(chosen).sum(axis=0)
        total = np.nansum(chosen, axis=0, dtype=np.float64)
        np.divide(total, count, out=means[m], where=count > 0, casting="same_kind")
    return Climatology(means, monthly=True)


def _fourier(phase: np.ndarray, count: int) -> np.ndarray:
    """1, cos, sin, cos 2, sin 2, ... of a phase in 0..1, `[..., 1 + 2 count]`."""
    angle = 2 * np.pi * np.asarray(phase, np.float64)[..., None]
    waves = [f(k * angle) for k in range(1, count + 1) for f in (np.cos, np.sin)]
    return np.concatenate([np.ones_like(angle), *waves], axis=-1)


def _fit_cells(basis: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Coefficients `[p, m]` of values `[t, m]`, NaN where missing."""
    p = basis.shape[1]
    known = np.isfinite(values)
    filled = np.where(known, values, 0).astype(np.float64)
    count = known.sum(axis=0)
    coefficients = np.zeros((p, values.shape[1]))
    some = count > 0
    coefficients[0, some] = filled[:, some].sum(axis=0) / count[some]
    enough = count >= VALUES_PER_COEFFICIENT * p if p > 1 else np.zeros_like(some)
    whole = enough & (count == len(values))
    if whole.any():
        coefficients[:, whole] = np.linalg.lstsq(basis, filled[:, whole], rcond=None)[0]
    gappy = enough & ~whole
    if gappy.any():
        mean = coefficients[0, gappy]
        rest = np.where(known[:, gappy], filled[:, gappy] - mean, 0)
        products = (basis[:, :, None] * basis[:, None, :]).reshape(len(basis), p * p)
        normal = (known[:, gappy].T.astype(np.float64) @ products).reshape(-1, p, p)
        normal += RIDGE * count[gappy, None, None] * np.eye(p)
        solved = np.linalg.solve(normal, (basis.T @ rest).T[..., None])[..., 0].T
        solved[0] += mean
        coefficients[:, gappy] = solved
    return coefficients
