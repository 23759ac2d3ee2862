"""The spread that members should have had: a factor for every lead and channel.

A factor s makes x' = mu + s (x - mu) of draws x with the mean mu, and its fair CRPS is

    E|x' - y| - s E|x_1 - x_2| / 2

The mean of m members that includes x is closer to x than mu is: with it, reliable
members would seem to be too much alike. In the first term, mu is therefore the mean of
the other m - 1, so that the score and its slope are unbiased where s is 1.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.ensembles.crps import mean_distance
from earthformer_jax.metrics.pixel import broadcast_weights, counted

# Factors that are tried; the best is found between them.
FACTORS = np.geomspace(1 / 8, 8, 49)


def terms(members, batch: Mapping[str, Any], weights) -> dict[str, jax.Array]:
    """What the CRPS of members with other departures from their mean is made of.

    Args:
        members: `[m, b, k, h, w, c]`, at least two.
        batch: as for metrics (`metrics.contract`).
        weights: broadcastable to a target `[k, h, w, c]`, non-negative.

    Returns:
        sums over the examples of weighted means over the cells of a frame: "absolute"
        `[f, k, c]`, mean |x'_j - y| for each of `FACTORS`; "distance" `[k, c]`, mean
        |x_j - x_k|; "weight" `[k, c]`.
    """
    targets = jnp.asarray(batch["targets"], jnp.float32)
    share = jnp.asarray(broadcast_weights(weights, targets.shape[1:]), jnp.float32)
    keep = counted(batch) & (share > 0)
    share = jnp.where(keep, share, 0)
    members = jnp.where(keep, members, 0)
    mean = members.mean(axis=0)
    error = mean - jnp.where(keep, targets, 0)

    def total(x):
        return jnp.sum(jnp.mean(share * x, axis=(2, 3)), axis=0)

    m = len(members)
    departure = (members - mean) * (m / (m - 1))  # from the mean of the others

    def absolute(factor):
        moved = error + (members - mean) + (factor - 1) * departure
        return total(jnp.mean(jnp.abs(moved), axis=0))

    return {
        "absolute": jax.lax.map(absolute, jnp.asarray(FACTORS, jnp.float32)),
        "distance": total(mean_distance(members)),
        "weight": total(jnp.ones_like(share)),
    }


def best(total: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The factors with the smallest fair CRPS.

    The score is a convex function of the factor; its minimum is that of the parabola
    through the best factor that was tried and its neighbours.

    Args:
        total: sums of `terms` over all batches.

    Returns:
        factors `[k, c]`, 1 where nothing was observed or all members are equal, and
        the CRPS `[2, k, c]` in model units, with a factor of 1 and with the best.
    """
    weight = np.asarray(total["weight"], np.float64)
    distance = np.asarray(total["distance"], np.float64)
    score = np.asarray(total["absolute"], np.float64)
    score = sums.ratio(score - FACTORS[:, None, None] * distance / 2, weight)
    known = np.isfinite(score[0]) & (distance > 0)
    middle = np.argmin(np.where(known, score, 0), axis=0)
    middle = np.clip(middle, 1, len(FACTORS) - 2)
    below, here, above = (
        np.take_along_axis(score, middle[None] + i, axis=0)[0] for i in (-1, 0, 1)
    )
    bend = below - 2 * here + above
    # Far from the minimum the score is a straight line, up to rounding.
    line = np.sign(below - above)
    move = np.where(bend > 0, (below - above) / 2 / np.where(bend > 0, bend, 1), line)
    move = np.clip(np.where(known, move, 0), -1, 1)
    step = np.log(FACTORS[1] / FACTORS[0])
    factors = np.where(known, FACTORS[middle] * np.exp(move * step), 1.0)
    least = here - (below - above) * move / 4
    (one,) = np.flatnonzero(np.isclose(FACTORS, 1))
    return factors, np.stack([score[one], np.where(known, least, score[one])])
