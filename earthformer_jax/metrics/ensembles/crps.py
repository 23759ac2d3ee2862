"""The continuous ranked probability score: an absolute error for distributions.

    CRPS(F, y) = E|X - y| - E|X - X'| / 2,   X, X' independent draws of F

It has the units of the values, is smallest on average for the true distribution, and is
the absolute error if F is a single value.

Reference:
    Gneiting and Raftery 2007, "Strictly proper scoring rules, prediction, and
    estimation", equations 20 and 21; Ferro 2014, "Fair scores for ensemble forecasts".
"""

import jax.numpy as jnp
import numpy as np
from jax.scipy import stats


def mean_distance(members):
    """Mean of |x_j - x_k| over all pairs of different members; 0 for a single one.

    Args:
        members: `[m, ...]`.

    Returns:
        `[...]`. Members are sorted, so that the cost grows with m log m.
    """
    m = len(members)
    if m == 1:
        return jnp.zeros_like(members[0])
    # In order, member i (from 0) is the larger one of i pairs, the smaller one of the
    # other m - 1 - i.
    signs = (2 * np.arange(m) - m + 1) / (m * (m - 1) / 2)
    return jnp.tensordot(
        jnp.asarray(signs, jnp.float32), jnp.sort(members, axis=0), axes=1
    )


def crps(members, target, *, fair: bool = True):
    """CRPS of an ensemble in every cell.

    Args:
        members: `[m, ...]`.
        target: `[...]`.
        fair: what an endless number of such draws would score on average; False: the
            score of the m values as they are. Both are the absolute error if m is 1.

    Returns:
        `[...]` in the units of the values; a fair one can be negative.
    """
    m = len(members)
    distance = mean_distance(members)
    if not fair:
        distance = distance * (m - 1) / m
    return jnp.mean(jnp.abs(members - target), axis=0) - distance / 2


def crps_gaussian(mean, std, target):
    """CRPS of normal distributions in closed form.

    Args:
        mean, std, target: broadcastable to each other, std >= 0; where it is 0, the
            result is the absolute error.

    Returns:
        Their broadcast shape, in their units.

    Reference:
        Gneiting et al. 2005, "Calibrated probabilistic forecasting using ensemble
        model output statistics and minimum CRPS estimation", equation 5.
    """
    error = jnp.asarray(target, jnp.float32) - mean
    spread = jnp.where(std > 0, std, 1)
    z = error / spread
    score = spread * (
        z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - 1 / np.sqrt(np.pi)
    )
    return jnp.where(std > 0, score, jnp.abs(error))
