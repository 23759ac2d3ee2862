"""Skill of forecasts of an index by lead, on samples of windows.

Everything is computed from the forecast and observed index of every window:
forecasts are `[f, n, k]` (f forecasts, n windows, k leads), the observed index is
`[n, k]`, NaN where it is unknown, and start months are `[n]`.

Windows that start in successive months share most of their months, and El Niño lasts
for a year or more, so single windows are not independent: samples are blocks of
consecutive windows, `bootstrap.draw(windows, block)`, which also gives intervals and
paired differences.

Reference:
    Heidke 1926 for the score of categories.
"""

import numpy as np

from earthformer_jax.metrics.enso import EPSILON

MONTHS = 12
LEAST_YEARS = 5  # values that a correlation within one calendar month needs


def correlation(counts, forecast, observed) -> np.ndarray:
    """Correlation over the windows of each sample.

    Args:
        counts: `[s, n]`, how often a sample has each window, as from `bootstrap.draw`.
        forecast: `[f, n, k]`.
        observed: `[n, k]`, NaN where unknown.

    Returns:
        `[s, f, k]`; 0 if a side is constant, NaN where a sample has no known value.
    """
    known, p, t = _centred(forecast, observed)
    n = counts @ known
    divisor = np.where(n > 0, n, np.nan)

    def total(x):
        return np.tensordot(counts, x, axes=(1, -2))

    sum_t, sum_p = total(t), total(p)
    tt = np.maximum(total(t * t) - sum_t**2 / divisor, 0)[:, None]
    pp = np.maximum(total(p * p) - sum_p**2 / divisor[:, None], 0)
    pt = total(p * t) - sum_p * sum_t[:, None] / divisor[:, None]
    return pt / (np.sqrt(pp * tt) + EPSILON)


def rmse(counts, forecast, observed) -> np.ndarray:
    """Root mean square error over the windows of each sample.

    Args, Returns: as in `correlation`, in the unit of the index.
    """
    error = np.asarray(forecast, np.float64) - np.asarray(observed, np.float64)
    return np.sqrt(mean(counts, np.square(error)))


def mean(counts, values) -> np.ndarray:
    """Mean over the windows of each sample, without values that are NaN.

    Args:
        counts: `[s, n]`, how often a sample has each window.
        values: `[f, n, k]`.

    Returns:
        `[s, f, k]`; NaN where a sample has no known value.
    """
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    total = np.tensordot(counts, np.where(known, values, 0), axes=(1, 1))
    number = np.tensordot(counts, known.astype(np.float64), axes=(1, 1))
    return total / np.where(number > 0, number, np.nan)


def by_target_month(forecast, observed, start_month) -> tuple[np.ndarray, np.ndarray]:
    """Skill by the calendar month that is forecast: shows the spring barrier.

    Args:
        forecast: `[f, n, k]`.
        observed: `[n, k]`, NaN where unknown.
        start_month: int `[n]`, calendar month of the first lead, January = 0.

    Returns:
        correlation and root mean square error `[f, 12, k]`, NaN where fewer than
        `LEAST_YEARS` windows are known.
    """
    forecast, observed = np.asarray(forecast), np.asarray(observed)
    leads = observed.shape[1]
    target = (np.asarray(start_month)[:, None] + np.arange(leads)) % MONTHS
    once = np.ones((1, len(observed)))
    r, error = [], []
    for month in range(MONTHS):
        truth = np.where(target == month, observed, np.nan)
        enough = np.isfinite(truth).sum(axis=0) >= LEAST_YEARS
        truth[:, ~enough] = np.nan
        r.append(correlation(once, forecast, truth)[0])
        error.append(rmse(once, forecast, truth)[0])
    return np.stack(r, axis=1), np.stack(error, axis=1)


def hit_table(forecast, observed, threshold: float) -> np.ndarray:
    """How often each category was observed when a category was forecast.

    Categories are: at most -threshold (La Niña), between, at least threshold (El Niño).

    Args:
        forecast: `[f, n, k]`.
        observed: `[n, k]`, NaN where unknown.
        threshold: positive, in the unit of the index.

    Returns:
        int64 `[f, k, 3, 3]`: windows by the forecast, then by the observed category.

    Raises:
        ValueError: if `threshold` is not positive.
    """
    if not threshold > 0:
        raise ValueError(f"threshold={threshold} must be positive")
    known = np.isfinite(observed)

    def members(index):  # [..., n, k, 3]
        cold, warm = index <= -threshold, index >= threshold
        return np.stack([cold, ~cold & ~warm, warm], axis=-1)

    said = members(np.asarray(forecast))
    came = members(np.where(known, observed, 0)) & known[..., None]
    return np.einsum("fnki,nkj->fkij", said.astype(np.int64), came.astype(np.int64))


def heidke(table) -> tuple[np.ndarray, np.ndarray]:
    """Proportion of correct categories, and the Heidke score.

    The Heidke score is the proportion correct beyond what a forecast with the same
    frequencies of categories would get by chance: 1 is perfect, 0 is chance.

    Args:
        table: `[..., c, c]` counts, as from `hit_table`.

    Returns:
        two arrays `[...]`; NaN without windows, and the score also where chance is
        always correct.
    """
    table = np.asarray(table, np.float64)
    total = table.sum(axis=(-2, -1))
    share = table / np.where(total > 0, total, np.nan)[..., None, None]
    correct = np.trace(share, axis1=-2, axis2=-1)
    chance = np.sum(share.sum(axis=-1) * share.sum(axis=-2), axis=-1)
    room = 1 - chance
    return correct, (correct - chance) / np.where(room > 1e-12, room, np.nan)


def _centred(forecast, observed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Known values as 1 `[n, k]`, forecast and truth without their means, 0 if unknown.

    Removing the means over all windows first keeps sums of squares accurate.
    """
    forecast = np.asarray(forecast, np.float64)
    observed = np.asarray(observed, np.float64)
    known = np.isfinite(observed)
    number = np.maximum(known.sum(axis=0), 1)
    p, t = np.where(known, forecast, 0), np.where(known, observed, 0)
    p = np.where(known, p - (p.sum(axis=-2) / number)[:, None], 0)
    t = np.where(known, t - t.sum(axis=-2) / number, 0)
    return known.astype(np.float64), p, t
