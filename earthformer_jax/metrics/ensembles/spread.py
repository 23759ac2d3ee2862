"""The spread that members should have had: factors on their departures from the mean.

A factor s makes x' = mu + s (x - mu) of draws x with the mean mu, and its fair CRPS is

    E|x' - y| - s E|x_1 - x_2| / 2

The mean of m members that includes x is closer to x than mu is: with it, reliable
members would seem to be too much alike. In the first term, mu is therefore the mean of
the other m - 1, so that the score and its slope are unbiased where s is 1.

One factor for every lead and channel is the one with the smallest CRPS. Members may
also be too much alike in one place and too little in another. A factor for every cell
makes their mean variance that of the errors, of which m members leave (m + 1) / m; it
is drawn towards that of the whole frame, since the errors of one cell are few.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.batches import broadcast_weights, counted
from earthformer_jax.metrics.ensembles.crps import mean_distance

# Factors that are tried; the best is found between them.
FACTORS = np.geomspace(1 / 8, 8, 49)


def terms(members, batch: Mapping[str, Any], weights) -> dict[str, jax.Array]:
    """What factors are found from, as sums over the examples.

    Args:
        members: `[m, b, k, h, w, c]`, at least two.
        batch: as for metrics (`metrics.contract`).
        weights: broadcastable to a target `[k, h, w, c]`, non-negative.

    Returns:
        weighted means over the cells of a frame: "absolute" `[f, k, c]`, mean
        |x'_j - y| for each of `FACTORS`; "distance" `[k, c]`, mean |x_j - x_k|;
        "weight" `[k, c]`. Of every cell, `[k, h, w, c]`: "error", of the mean, squared,
        as of infinitely many members; "variance" of the members; "number" of examples.
    """
    known, members, targets = _known(members, batch, weights)
    m, mean = len(members), members.mean(axis=0)

    def absolute(factor):
        return _frames(known * _absolute(members, targets, factor))

    return {
        "absolute": jax.lax.map(absolute, jnp.asarray(FACTORS, jnp.float32)),
        "distance": _frames(known * mean_distance(members)),
        "weight": _frames(known),
        "error": jnp.sum((mean - targets) ** 2, axis=0) * (m / (m + 1)),
        "variance": jnp.sum(jnp.var(members, axis=0, ddof=1), axis=0),
        "number": jnp.sum(known > 0, axis=0, dtype=jnp.float32),
    }


def scores(members, batch: Mapping[str, Any], weights, factors) -> jax.Array:
    """The fair CRPS of members with other departures from their mean.

    Args:
        members, batch, weights: as for `terms`.
        factors: `[n, k, h, w, c]`; the cells may be one.

    Returns:
        `[n]`, weighted sums over all examples and values.
    """
    known, members, targets = _known(members, batch, weights)
    distance = mean_distance(members)

    def score(factor):
        fair = _absolute(members, targets, factor) - factor * distance / 2
        return jnp.sum(known * fair)

    return jax.lax.map(score, jnp.asarray(factors, jnp.float32))


def best(total: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The factors of leads and channels with the smallest fair CRPS.

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


def by_cell(total: Mapping[str, np.ndarray], weights, prior: float) -> np.ndarray:
    """The factors of cells that make their variance that of their errors.

    Args:
        total: sums of `terms` over all batches.
        weights: broadcastable to a target `[k, h, w, c]`, non-negative.
        prior: number of examples in which every cell is also given the variance and
            the errors of its frame.

    Returns:
        `[k, h, w, c]`; that of the frame where nothing was observed or all members are
        equal.
    """
    error, variance, number = (
        np.asarray(total[name], np.float64) for name in ("error", "variance", "number")
    )
    share = broadcast_weights(weights, error.shape)
    frame = sums.ratio(
        (share * error).sum(axis=(1, 2), keepdims=True),
        (share * variance).sum(axis=(1, 2), keepdims=True),
    )
    frame = np.where(np.isfinite(frame) & (frame > 0), frame, 1.0)
    own = sums.ratio(error, variance)
    own = np.where(np.isfinite(own), own, frame)
    return np.sqrt((number * own + prior * frame) / (number + prior))


def _known(members, batch, weights) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Weights `[b, k, h, w, c]`, members and targets; 0 where they do not count."""
    targets = jnp.asarray(batch["targets"], jnp.float32)
    share = jnp.asarray(broadcast_weights(weights, targets.shape[1:]), jnp.float32)
    keep = counted(batch) & (share > 0)
    share, members, targets = (jnp.where(keep, x, 0) for x in (share, members, targets))
    return share, members, targets


def _absolute(members, targets, factor) -> jax.Array:
    """Mean |x'_j - y|, `[b, k, h, w, c]`."""
    m, mean = len(members), members.mean(axis=0)
    departure = (members - mean) * (m / (m - 1))  # from the mean of the others
    moved = members - targets + (factor - 1) * departure
    return jnp.mean(jnp.abs(moved), axis=0)


def _frames(x) -> jax.Array:
    """`[k, c]` of `[b, k, h, w, c]`: means over cells, summed over examples."""
    return jnp.sum(jnp.mean(x, axis=(2, 3)), axis=0)
