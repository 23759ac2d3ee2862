"""What is learned from the training period before a model is: cycles, means, spreads.

    climatology(t) = sum_ij a_ij f_i(season of t) g_j(time of day of t)

f and g are Fourier series (1, cos, sin, cos 2, ...): by default three harmonics of the
year, and two of the day where frames are close enough. The coefficients of every cell
and variable are those of least squares over its observed values.
"""

import dataclasses

import numpy as np

from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.times import (
    DAY,
    period_text,
    season,
    time_of_day,
)

ANNUAL, DAILY = 3, 2  # harmonics, where time allows
FULL_YEAR = 350 * DAY  # minutes that count as one
FULL_DAYS = 3 * DAY
YEAR = 365.2425 * DAY
SAMPLE_BYTES = 2**28  # of the training period that statistics are made of
SAMPLE_PIECES = 64
CELLS = 2**15  # fitted at a time
RIDGE = 1e-6  # keeps the equations of a cell with gaps solvable
# Fewer observed values for each coefficient than this leave a cell its mean alone.
VALUES_PER_COEFFICIENT = 3


@dataclasses.dataclass(frozen=True)
class Climatology:
    """Mean cycles of the year and the day at every cell.

    Attributes:
        coefficients: float32 `[p, h, w, c]` in the units of the file; 0 where a cell
            was never observed.
        annual: harmonics of the year.
        daily: harmonics of the day.
    """

    coefficients: np.ndarray
    annual: int = 0
    daily: int = 0

    def at(self, minutes: np.ndarray | None) -> np.ndarray:
        """float32 `[..., h, w, c]` at times `[...]`; `[1, h, w, c]` without times."""
        if minutes is None or not (self.annual or self.daily):
            shape = (1,) if minutes is None else np.shape(minutes)
            constant = self.coefficients[0]
            return np.broadcast_to(constant, (*shape, *constant.shape))
        basis = cycles(minutes, self.annual, self.daily).astype(np.float32)
        return np.tensordot(basis, self.coefficients, axes=1)

    def __str__(self) -> str:
        parts = [
            f"{count} harmonics of the {name}"
            for count, name in ((self.annual, "year"), (self.daily, "day"))
            if count
        ]
        return " x ".join(parts) or "mean"


@dataclasses.dataclass(frozen=True)
class Normalizer:
    """From the units of the file to those the model sees.

    x = (value - offset) / scale, or (value - climatology) / scale.

    Attributes:
        scale: float32 `[c]`.
        offset: float32 `[c]`; 0 where a climatology is removed.
        counted: bool `[h, w, c]`: observed at some time of the training period.
        climatology: what is removed; None: `offset`.
    """

    scale: np.ndarray
    offset: np.ndarray
    counted: np.ndarray
    climatology: Climatology | None = None

    def encode(
        self, values: np.ndarray, minutes: np.ndarray | None = None
    ) -> np.ndarray:
        """float32 `[..., h, w, c]`; NaN where missing or never observed in training.

        Args:
            values: `[..., h, w, c]` in the units of the file; c may be less than all.
            minutes: `[...]` since 1970-01-01 UTC; None if unknown.
        """
        c = values.shape[-1]
        x = (values - self._base(minutes)[..., :c]) / self.scale[:c]
        return np.where(self.counted[..., :c], x, np.float32(np.nan))

    def decode(self, x: np.ndarray, minutes: np.ndarray | None = None) -> np.ndarray:
        """The inverse of `encode`; NaN where never observed in training."""
        c = x.shape[-1]
        values = x * self.scale[:c] + self._base(minutes)[..., :c]
        return np.where(self.counted[..., :c], values, np.float32(np.nan))

    def _base(self, minutes: np.ndarray | None) -> np.ndarray:
        """What model value 0 stands for, `[..., h, w, c]` or `[c]`."""
        return self.offset if self.climatology is None else self.climatology.at(minutes)

    def of_climatology(self, climatology: Climatology, minutes) -> np.ndarray:
        """A climatology `[..., h, w, c]` in model units; 0 where nothing counts."""
        x = (climatology.at(minutes) - self.offset) / self.scale
        return np.where(self.counted, x, np.float32(0))


def cycles(minutes: np.ndarray, annual: int, daily: int) -> np.ndarray:
    """Products of the Fourier series of year and day, `[..., p]`.

    p = (1 + 2 annual) (1 + 2 daily); the first is 1.
    """
    year = _fourier(season(minutes), annual)
    day = _fourier(time_of_day(minutes), daily)
    product = year[..., :, None] * day[..., None, :]
    return product.reshape(*product.shape[:-2], year.shape[-1] * day.shape[-1])


def harmonics(minutes: np.ndarray | None, cadence: float) -> tuple[int, int]:
    """Harmonics of year and day that a period of these times can tell.

    Args:
        minutes: `[t]` of the period, rising; None if unknown.
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
        minutes: `[t]`; None for the mean alone.
        annual: harmonics of the year.
        daily: harmonics of the day.
    """
    t, *cell = values.shape
    if minutes is None:
        annual = daily = 0
        minutes = np.zeros(t, np.int64)
    basis = cycles(minutes, annual, daily)
    flat = values.reshape(t, -1)
    parts = [
        _fit_cells(basis, flat[:, start : start + CELLS])
        for start in range(0, flat.shape[1], CELLS)
    ]
    coefficients = np.concatenate(parts, axis=1).reshape(-1, *cell)
    return Climatology(coefficients.astype(np.float32), annual, daily)


def sample(
    cube: Cube, start: int, stop: int, limit: int = SAMPLE_BYTES
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and minutes of frames start..stop - 1, or of pieces spread over them.

    Returns:
        values `[n, h, w, c]` and their minutes `[n]` or None: all of them, or about
        `limit` bytes.
    """
    frame_bytes = 4 * int(np.prod(cube.frames.shape[1:], dtype=np.int64))
    most = max(1, limit // frame_bytes)
    frames = stop - start
    if frames <= most:
        minutes = None if cube.minutes is None else cube.minutes[start:stop]
        return cube.frames.read(start, stop), minutes
    pieces = min(SAMPLE_PIECES, most)
    length = most // pieces
    rng = np.random.default_rng(0)  # not every n-th: that could be one time of day
    edges = np.linspace(start, stop - length, pieces + 1)
    firsts = np.unique(rng.uniform(edges[:-1], edges[1:]).astype(np.int64))
    chosen = np.unique(firsts[:, None] + np.arange(length))
    breaks = np.flatnonzero(np.diff(chosen) > 1) + 1
    parts = [cube.frames.read(p[0], p[-1] + 1) for p in np.split(chosen, breaks)]
    minutes = None if cube.minutes is None else cube.minutes[chosen]
    return np.concatenate(parts), minutes


def fit_normalizer(
    cube: Cube, period: tuple[int, int], anomalies: bool
) -> tuple[Normalizer, str]:
    """The normalisation that the training period gives, and its name for people.

    Args:
        cube: the data.
        period: first training frame and end.
        anomalies: remove the climatology, not just the mean.

    Raises:
        ValueError: if a variable has no value, or always the same one, or if a
            climatology cannot be known.
    """
    values, minutes = sample(cube, *period)
    known = np.isfinite(values)
    counted = known.any(axis=0)
    for c, name in enumerate(cube.names):
        if not counted[..., c].any():
            raise ValueError(
                f"{cube.label}: {name!r} has no value at all in the training period "
                f"({_period_text(minutes, len(values))}): all are missing"
            )
    whole = "" if len(values) == period[1] - period[0] else f" of {len(values)} frames"
    climatology = None
    if anomalies:
        annual, daily = harmonics(minutes, cube.cadence)
        if not annual and not daily:
            raise ValueError(
                "config.data.anomalies=True needs dates and a training period of a "
                f"year or more to know the seasons; that of {cube.label} is "
                f"{_period_text(minutes, len(values))}. Set it to False"
            )
        climatology = fit_climatology(values, minutes, annual, daily)
        values = values - climatology.at(minutes)
    axes = (0, 1, 2)
    count = known.sum(axis=axes, dtype=np.int64)
    mean = np.sum(values, axis=axes, dtype=np.float64, where=known) / count
    squares = np.sum(
        np.square(values - mean.astype(np.float32), dtype=np.float32),
        axis=axes,
        dtype=np.float64,
        where=known,
    )
    scale = np.sqrt(squares / count)
    for c, name in enumerate(cube.names):
        if not scale[c] > (0 if anomalies else 1e-6 * abs(mean[c])):
            raise ValueError(
                f"{cube.label}: {name!r} is {mean[c]:g} everywhere in the training "
                "period; there is nothing to learn. Leave it out of "
                "config.data.variables"
            )
    kind = "(x - mean) / standard deviation"
    if climatology is not None:
        kind = f"anomalies ({climatology}) / standard deviation"
    text = f"{kind} of the training period{whole}"
    normalizer = Normalizer(
        scale=scale.astype(np.float32),
        offset=(0 * mean if anomalies else mean).astype(np.float32),
        counted=counted,
        climatology=climatology,
    )
    return normalizer, text


def _fourier(phase: np.ndarray, count: int) -> np.ndarray:
    """1, cos, sin, cos 2, sin 2, ... of a phase of 0 to 1, `[..., 1 + 2 count]`."""
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


def _period_text(minutes: np.ndarray | None, frames: int) -> str:
    if minutes is None:
        return f"{frames} frames"
    return f"{period_text(minutes)}, {frames} frames"
