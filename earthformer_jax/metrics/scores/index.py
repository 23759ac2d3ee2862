"""Scores of the sums of a climate index (`statistics.index`).

Every function maps sums by name, arrays of one shape, to an array of that shape, in
float64; NaN where the index is unknown.
"""

from collections.abc import Mapping

import numpy as np

from earthformer_jax.metrics.sums import ratio

Sums = Mapping[str, np.ndarray]


def correlation(sums: Sums, epsilon: float = 0.0) -> np.ndarray:
    """Correlation of index and observation over all that was added.

    Args:
        sums: of an index.
        epsilon: is added to the denominator, a sum of squares.

    Returns:
        the correlation; where a side is constant 0 with an `epsilon`, else NaN.
    """
    count, pp, tt, pt = _centred(sums)
    size = np.sqrt(pp * tt) + epsilon
    return np.where(count > 0, ratio(pt, size), np.nan)


def rmse(sums: Sums) -> np.ndarray:
    """Root mean square error of the index."""
    s = {name: np.asarray(x, np.float64) for name, x in sums.items()}
    squares = s["forecast_squared"] + s["target_squared"] - 2 * s["product"]
    return np.sqrt(ratio(np.maximum(squares, 0), s["count"]))


def bias(sums: Sums) -> np.ndarray:
    """Mean error of the index, forecast minus observation."""
    forecast, target = (np.asarray(sums[n], np.float64) for n in ("forecast", "target"))
    return ratio(forecast - target, sums["count"])


def _centred(sums: Sums) -> tuple[np.ndarray, ...]:
    """Number of values, and sums of products of departures from the means."""
    s = {name: np.asarray(x, np.float64) for name, x in sums.items()}
    divisor = np.maximum(s["count"], 1)
    pp = s["forecast_squared"] - s["forecast"] ** 2 / divisor
    tt = s["target_squared"] - s["target"] ** 2 / divisor
    pt = s["product"] - s["forecast"] * s["target"] / divisor
    return s["count"], np.maximum(pp, 0), np.maximum(tt, 0), pt
