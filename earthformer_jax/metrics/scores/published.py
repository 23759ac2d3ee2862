"""Scores of events with the constants that published implementations add to counts.

    score = (above + epsilon[0]) / (below + epsilon[1])

With the same epsilon in both a score is 1 where there are no events at all; with one in
the denominator alone it is 0.

Reference:
    Veillette et al. 2020, SEVIR; Gao et al. 2022, Earthformer, section 4.2.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.metrics.sums import ratio

Counts = Mapping[str, np.ndarray]

# The counts above and below the fraction of each score.
_HITS, _EVERY = ("hits",), ("hits", "misses", "false_alarms")
_FORECAST, _OBSERVED = ("hits", "false_alarms"), ("hits", "misses")
FRACTIONS = {
    "csi": (_HITS, _EVERY),
    "pod": (_HITS, _OBSERVED),
    "sucr": (_HITS, _FORECAST),
    "bias": (_FORECAST, _OBSERVED),
}


def fraction(counts: Counts, name: str, epsilon: Sequence[float]) -> np.ndarray:
    """A score of events.

    Args:
        counts: "hits", "misses" and "false_alarms", of one shape.
        name: one of `FRACTIONS`.
        epsilon: what is added to numerator and denominator.

    Returns:
        float64 of that shape; NaN where the denominator is 0.
    """
    above, below = (sum(counts[x] for x in part) for part in FRACTIONS[name])
    return ratio(above + epsilon[0], below + epsilon[1])


def log_bias(counts: Counts, epsilon: Sequence[float]) -> np.ndarray:
    """Base-2 logarithm of the frequency bias, whose mean is that of a geometric one.

    Args:
        counts, epsilon: as for `fraction`.
    """
    with np.errstate(divide="ignore"):  # no event is forecast, and nothing is added
        return np.log2(fraction(counts, "bias", epsilon))
