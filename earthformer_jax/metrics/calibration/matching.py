"""Quantile matching: events forecast as often as they are observed.

A network trained on squared error forecasts strong rain too rarely, and how rarely
decides about its CSI: rankings of models change once each may choose its levels. Here
level l(T) of a forecast stands for the observed threshold T if, in the examples that it
is fitted on,

    number of forecast values >= l(T)  =  number of observed values >= T.

The examples are those of validation, never those of the test. The map from l(T) to T
keeps the order of values, so that it changes nothing but frequencies. Each lead time
has its own levels, since forecasts become smoother with the lead.

Frequencies are counted in bins of 1 / `PER_CODE`. Counts of disjoint examples add up.

Reference:
    Panofsky and Brier 1958, Some Applications of Statistics to Meteorology; Ebert 2001,
    Ability of a Poor Man's Ensemble to Predict the Probability and Distribution of
    Precipitation, Monthly Weather Review 129.
"""

from collections.abc import Sequence

import numpy as np

from earthformer_jax.metrics.statistics.contingency import ROUNDING

PER_CODE = 32
# Codes are 0..255; models may forecast what is beyond. The first and the last bin hold
# what is beyond these.
LEAST, MOST = -64, 320
BINS = (MOST - LEAST) * PER_CODE


def edges() -> np.ndarray:
    """The lowest values of all bins, float64 `[BINS]`."""
    return LEAST + np.arange(BINS) / PER_CODE


def counts(codes: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Numbers of values in each bin.

    Args:
        codes: `[b, k, h, w, c]`.
        keep: bool, like `codes`: the values that count.

    Returns:
        int64 `[k, BINS]`; a value that is NaN is in the first bin.
    """
    place = (np.asarray(codes, np.float32) + (ROUNDING - LEAST)) * PER_CODE
    place = np.clip(np.nan_to_num(place, nan=0), 0, BINS - 1).astype(np.int64)
    return np.stack(
        [
            np.bincount(place[:, k][keep[:, k]], minlength=BINS)
            for k in range(place.shape[1])
        ]
    )


def fit(
    forecast: np.ndarray, observed: np.ndarray, thresholds: Sequence[float]
) -> np.ndarray:
    """The levels of a forecast that stand for thresholds.

    Of several levels that fit equally well, the one nearest to the threshold is taken,
    so that a forecast with the observed frequencies keeps its own. Where none fits,
    because many values are equal, it is the one with the nearest frequency; the least
    values of a forecast, such as no rain, only become events if every observed value is
    one.

    Args:
        forecast: `[k, BINS]` from `counts`.
        observed: `[k, BINS]`, of the same examples.
        thresholds: `[m]`, increasing, from `LEAST` to `MOST`.

    Returns:
        float64 `[k, m]`, not decreasing along m; infinite where no value is an event.

    Raises:
        ValueError: if thresholds are not increasing, or the counts are not of equally
            many values.
    """
    wanted = np.asarray(thresholds, np.float64)
    if np.any(np.diff(wanted) <= 0):
        raise ValueError(f"thresholds={tuple(thresholds)} are not increasing")
    if not np.array_equal(forecast.sum(axis=1), observed.sum(axis=1)):
        raise ValueError(
            f"forecast and observed have {forecast.sum(axis=1).tolist()} and "
            f"{observed.sum(axis=1).tolist()} values by lead: expected counts of the "
            "same examples"
        )
    candidates = np.append(edges(), np.inf)
    levels = np.empty((len(forecast), len(wanted)))
    for k, (ours, theirs) in enumerate(zip(forecast, observed, strict=True)):
        above, true = (np.append(np.cumsum(x[::-1])[::-1], 0) for x in (ours, theirs))
        every = above[0]
        for m, threshold in enumerate(wanted):
            events = true[np.searchsorted(candidates, threshold)]
            miss = np.abs(above - events)
            miss[(above == every) & (events < every)] = every + 1
            fits = np.flatnonzero(miss == miss.min())
            near = np.argmin(np.abs(candidates[fits] - threshold))
            levels[k, m] = candidates[fits[near]]
    return levels


def apply(
    codes: np.ndarray, levels: np.ndarray, thresholds: Sequence[float]
) -> np.ndarray:
    """Forecasts with the observed frequencies of events.

    Args:
        codes: `[b, k, h, w, c]`.
        levels: `[k, m]` from `fit`.
        thresholds: `[m]`, as for `fit`.

    Returns:
        float32, like `codes`: the highest threshold that a value is an event of, and
        `LEAST` if there is none. A value that is NaN is not an event.

    Raises:
        ValueError: if there are other lead times.
    """
    if len(levels) != codes.shape[1]:
        raise ValueError(
            f"codes has {codes.shape[1]} lead times: expected {len(levels)}, which the "
            "levels are of"
        )
    reached = np.zeros(codes.shape, np.int8)
    for level in (levels - ROUNDING).astype(np.float32).T:
        reached += codes >= level[:, None, None, None]
    return np.array([LEAST, *thresholds], np.float32)[reached]
