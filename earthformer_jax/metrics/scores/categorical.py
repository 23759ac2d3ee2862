"""Scores of contingency tables.

With hits H, misses M, false alarms F and correct negatives C, N = H + M + F + C:

    CSI = H / (H + M + F)                 critical success index
    POD = H / (H + M)                     probability of detection
    FAR = F / (H + F)                     false alarm ratio
    SUCR = H / (H + F) = 1 - FAR          success ratio
    BIAS = (H + F) / (H + M)              frequency bias
    ETS = (H - R) / (H + M + F - R)       R = (H + M)(H + F) / N, hits by chance
    HSS = 2 (H C - M F) / ((H + M)(M + C) + (H + F)(F + C))

Every function maps counts by name ("hits", "misses", "false_alarms" and
"correct_negatives"; only those it needs), arrays of one shape, to an array of that
shape, in float64; NaN where the denominator is 0. `epsilon` is added to denominators:
with 1e-4, as in the reference implementation of Earthformer, a score is 0 where there
is no event anywhere, even if the forecast is perfect.

Reference:
    Wilks 2019, Statistical Methods in the Atmospheric Sciences, section 9.2; Jolliffe
    and Stephenson 2012, Forecast Verification, chapter 3.
"""

from collections.abc import Mapping

import numpy as np

from earthformer_jax.metrics.sums import ratio

Counts = Mapping[str, np.ndarray]


def csi(counts: Counts, epsilon: float = 0.0) -> np.ndarray:
    """Critical success index: the share of hits in all events, forecast or observed."""
    events = counts["hits"] + counts["misses"] + counts["false_alarms"]
    return ratio(counts["hits"], events + epsilon)


def published_csi(counts: Counts, epsilon: float) -> np.ndarray:
    """CSI with an `epsilon`: 0 without events, NaN where nothing was observed."""
    observed = _parts(counts)[-1]
    return np.where(observed > 0, csi(counts, epsilon), np.nan)


def pod(counts: Counts, epsilon: float = 0.0) -> np.ndarray:
    """Probability of detection: the share of the observed events that was forecast."""
    return ratio(counts["hits"], counts["hits"] + counts["misses"] + epsilon)


def far(counts: Counts, epsilon: float = 0.0) -> np.ndarray:
    """False alarm ratio: the share of the forecast events that was not observed."""
    forecast = counts["hits"] + counts["false_alarms"]
    return ratio(counts["false_alarms"], forecast + epsilon)


def success_ratio(counts: Counts, epsilon: float = 0.0) -> np.ndarray:
    """Success ratio: the share of the forecast events that was observed."""
    return ratio(counts["hits"], counts["hits"] + counts["false_alarms"] + epsilon)


def frequency_bias(counts: Counts) -> np.ndarray:
    """Events forecast per event observed; NaN where none was observed."""
    forecast = counts["hits"] + counts["false_alarms"]
    return ratio(forecast, counts["hits"] + counts["misses"])


def ets(counts: Counts) -> np.ndarray:
    """Equitable threat score: CSI without the hits by chance, in -1/3 .. 1."""
    h, m, f, n = _parts(counts)
    chance = ratio((h + m) * (h + f), n)
    return ratio(h - chance, h + m + f - chance)


def hss(counts: Counts) -> np.ndarray:
    """Heidke skill score: correct forecasts beyond those by chance, in -1 .. 1."""
    h, m, f, n = _parts(counts)
    c = n - h - m - f
    return ratio(2 * (h * c - m * f), (h + m) * (m + c) + (h + f) * (f + c))


def _parts(counts: Counts) -> tuple[np.ndarray, ...]:
    """Hits, misses, false alarms and their sum with the correct negatives, float64.

    Products of counts of an archive are beyond int64.
    """
    names = ("hits", "misses", "false_alarms", "correct_negatives")
    h, m, f, c = (np.asarray(counts[name], np.float64) for name in names)
    return h, m, f, h + m + f + c
