"""Whether forecast probabilities come true: numbers from counts, on the host."""

from collections.abc import Mapping

import numpy as np
from scipy import stats

from earthformer_jax.metrics import sums

LEAST_BLOCKS = 8  # that the scatter of a histogram can be estimated from


def brier_parts(said, came) -> dict[str, np.ndarray]:
    """The Brier score, and its reliability, resolution and uncertainty.

        brier = reliability - resolution + uncertainty

    Args:
        said: `[..., m + 1]`, weight of the forecasts with 0, 1, ... m of m members for
            an event.
        came: the same, of those after which the event was observed.

    Returns:
        `[...]` each; NaN where there are no forecasts.

    Reference:
        Murphy 1973, "A new vector partition of the probability score".
    """
    said, came = np.asarray(said, np.float64), np.asarray(came, np.float64)
    probability = np.linspace(0, 1, said.shape[-1])
    total = said.sum(axis=-1)
    frequency = sums.ratio(came, said)
    climate = sums.ratio(came.sum(axis=-1), total)
    known = said > 0

    def mean(x):
        return sums.ratio(np.where(known, said * x, 0).sum(axis=-1), total)

    parts = {
        "reliability": mean((probability - frequency) ** 2),
        "resolution": mean((frequency - climate[..., None]) ** 2),
        "uncertainty": climate * (1 - climate),
    }
    brier = parts["reliability"] - parts["resolution"] + parts["uncertainty"]
    return {"brier": brier, **parts}


def roc(said, came) -> dict[str, np.ndarray]:
    """The curve of relative operating characteristics: how well events are told apart.

    A warning is given if at least n of m members have the event, n = m + 1, m, ... 0:
    never, if all have it, ... always.

    Args:
        said, came: as for `brier_parts`.

    Returns:
        `[..., m + 2]` each: "hit_rate", the share of events with a warning, and
        "false_alarm_rate", the share of other cases with one (not the false alarm
        ratio), both from 0 to 1; and "area" `[...]` under the straight lines between
        these points, 1/2 without skill. NaN unless there are both events and other
        cases.

    Reference:
        Mason 1982, "A model for assessment of weather forecasts".
    """
    said, came = np.asarray(said, np.float64), np.asarray(came, np.float64)
    rates = []
    for cases in (came, said - came):
        warned = np.cumsum(cases[..., ::-1], axis=-1)
        warned = np.concatenate([np.zeros_like(warned[..., :1]), warned], axis=-1)
        rates.append(sums.ratio(warned, warned[..., -1:]))
    hits, false = rates
    heights = (hits[..., 1:] + hits[..., :-1]) / 2
    area = np.sum(np.diff(false, axis=-1) * heights, axis=-1)
    return {"hit_rate": hits, "false_alarm_rate": false, "area": area}


def flatness(ranks) -> Mapping[str, float]:
    """A chi-square test of a flat rank histogram, for values that are not independent.

    Cells of a field and windows that overlap are not independent, so that the number of
    values says little. How much the histograms of blocks scatter tells how many
    independent values there are, and the test is for that number.

    Args:
        ranks: `[blocks, m + 1]`, the histogram of each of some blocks that are
            independent of each other.

    Returns:
        "effective", the number of independent values that scatter as much; "chi2", with
        m degrees of freedom; and "p_value", the probability of a larger one if the
        histogram is flat. NaN with fewer than `LEAST_BLOCKS` blocks.

    Reference:
        Rao and Scott 1981, "The analysis of categorical data from complex sample
        surveys", the first-order correction.
    """
    ranks = np.asarray(ranks, np.float64)
    ranks = ranks[ranks.sum(axis=1) > 0]
    blocks, bins = ranks.shape
    if blocks < LEAST_BLOCKS:
        return dict.fromkeys(("effective", "chi2", "p_value"), float("nan"))
    weight = ranks.sum(axis=1, keepdims=True) / ranks.sum()
    share = ranks.sum(axis=0) / ranks.sum()
    departures = weight * (ranks / ranks.sum(axis=1, keepdims=True) - share)
    scatter = np.sum(departures**2) * blocks / (blocks - 1)
    if scatter == 0:  # every block has the same histogram
        return dict.fromkeys(("effective", "chi2", "p_value"), float("nan"))
    effective = np.sum(share * (1 - share)) / scatter
    chi2 = effective * bins * np.sum((share - 1 / bins) ** 2)
    return {
        "effective": float(effective),
        "chi2": float(chi2),
        "p_value": float(stats.chi2.sf(chi2, bins - 1)),
    }
