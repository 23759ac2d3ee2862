"""The continuous ranked probability score of the members of an ensemble.

References:
    Lang et al. 2024, AIFS-CRPS, https://arxiv.org/abs/2412.15832 (almost fair).
    Ferro 2014, Fair scores for ensemble forecasts, https://doi.org/10.1002/qj.2270.
"""

import dataclasses
from typing import ClassVar

import jax

from earthformer_jax.losses.cells import Masked, magnitude, weighted_mean
from earthformer_jax.settings import FRACTION, setting


def almost_fair_crps(
    members: jax.Array, target: jax.Array, alpha: float = 0.95
) -> jax.Array:
    """CRPS of M members, between that of the ensemble as it is and the fair one.

        mean_j |x_j - y| - (1 - (1 - alpha) / M) S / (2 M (M - 1))

    where S is the sum of |x_j - x_k| over all j and k.

    With alpha = 0 it is the CRPS of the empirical distribution of the members. With
    alpha = 1 it is fair: its expectation is least if the members are drawn from the
    distribution that the target is drawn from, whatever M is; but M - 1 members at the
    target then let the last one be anywhere, which values below 1 prevent. A single
    member has no spread, and its score is the absolute error.

    All pairs are compared rather than sorted neighbours, which for equal members would
    have a gradient that depends on their order; with a few members it is also faster.

    Args:
        members: `[m, ...]`.
        target: `[...]`.
        alpha: from 0 (as it is) to 1 (fair).

    Returns:
        `[...]`, in the units of the target.

    Raises:
        ValueError: for other shapes, or no members.
    """
    if members.ndim < 1 or not len(members) or members.shape[1:] != target.shape:
        raise ValueError(
            f"members has shape {members.shape}: expected at least one member of the "
            f"shape of the target, {target.shape}"
        )
    size = len(members)
    error = magnitude(members - target).mean(axis=0)
    if size == 1:
        return error
    pairs = sum(
        magnitude(members[i:] - members[:-i]).sum(axis=0) for i in range(1, size)
    )
    return error - (1 - (1 - alpha) / size) / (size * (size - 1)) * pairs


@dataclasses.dataclass(frozen=True)
class AlmostFairCrps(Masked):
    """Mean almost fair CRPS of the members that a model forecasts.

    Attributes:
        alpha: 1: fair; 0: the CRPS of the ensemble as it is.
    """

    alpha: float = setting(0.95, FRACTION)
    takes_members: ClassVar[bool] = True

    def of_known(self, forecast, targets, weights, key, progress) -> jax.Array:
        """Scalar for members `[m, b, k, h, w, c]`; see `Masked`."""
        return weighted_mean(almost_fair_crps(forecast, targets, self.alpha), weights)
