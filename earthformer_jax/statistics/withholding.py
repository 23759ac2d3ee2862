"""Forecasts of a series by models that did not learn from the months forecast.

The series is cut into blocks. For each, a model is fitted without it and without the
months after it that forecasts reach, and then forecasts from the months of the block:

    ... training | block: forecasts start here | reached by them | training ...
"""

from collections.abc import Callable, Sequence

import numpy as np

BLOCK = 36  # months: El Ninos last one to two years, and the next is another one
LEADS = 24

# Series `[m, n]` and the first month of each -> states `[b, n]`, months `[b]` ->
# forecasts `[b, leads, n]`.
Fit = Callable[
    [Sequence[np.ndarray], Sequence[int]],
    Callable[[np.ndarray, np.ndarray], np.ndarray],
]


def hindcasts(
    series,
    first_month: int,
    fit: Fit,
    *,
    leads: int = LEADS,
    block: int = BLOCK,
) -> np.ndarray:
    """Forecasts from every month of a series, each by a model that did not know it.

    Args:
        series: `[m, n]` of consecutive months.
        first_month: calendar month of the first, January = 0.
        fit: makes a forecast from what remains: one or two series, and the calendar
            month of the first row of each.
        leads: months that forecasts reach, which are withheld after a block, too.
        block: months that are withheld together.

    Returns:
        `[m, leads, n]`; the forecast of `series[i + lead]` from month i is
        `[i, lead - 1]`. Those near the end reach beyond the series.

    Raises:
        ValueError: if the series is too short for a block.
    """
    series = np.asarray(series, np.float64)
    months = len(series)
    if months < 2 * block + leads:
        raise ValueError(
            f"{months} months are too few to withhold {block} and the {leads} after "
            f"them; at least {2 * block + leads} are needed"
        )
    found = np.empty((months, leads, series.shape[1]))
    for start in range(0, months, block):
        stop = min(start + block, months)
        parts = {0: series[:start], stop + leads: series[stop + leads :]}
        parts = {first: part for first, part in parts.items() if len(part) > 1}
        forecast = fit(list(parts.values()), [(first_month + i) % 12 for i in parts])
        starts = np.arange(start, stop)
        found[start:stop] = forecast(series[starts], (first_month + starts) % 12)
    return found


def matching(series, leads: int) -> np.ndarray:
    """What happened: `[m]` months to `[m, leads]`, NaN beyond the end of the series."""
    series = np.asarray(series, np.float64)
    padded = np.concatenate([series[1:], np.full(leads, np.nan)])
    return np.lib.stride_tricks.sliding_window_view(padded, leads)[: len(series)]
