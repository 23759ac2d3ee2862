"""Scores of forecasts of several quantities: one error for all, and one for each."""

import dataclasses
from collections.abc import Callable

import numpy as np

from earthformer_jax.metrics.contract import Scores, State
from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.statistics.anomaly import CLIMATOLOGY, Anomalies
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.totals import Totals
from earthformer_jax.metrics.verification import (
    LOWER,
    NEAR_ZERO,
    Batch,
    Score,
    Verification,
)


@dataclasses.dataclass(frozen=True, eq=False)
class ChannelScores:
    """Streaming "mse", "mae" of all channels and root mean square errors of each.

    Means over the values that are observed: sum(weights * error) / sum(weights).

    Attributes:
        names: of the channels.
        scale: physical units per model unit, of each channel; all 1 if empty.
        weights: broadcastable to a target `[k, h, w, c]`, non-negative; None: equal.
            Values where the weight is 0 have no effect, not even NaN.
    """

    names: tuple[str, ...]
    scale: tuple[float, ...] = ()
    weights: np.ndarray | None = None

    def __post_init__(self):
        if not self.names:
            raise ValueError("names=() is empty; name every channel")
        if self.scale and len(self.scale) != len(self.names):
            raise ValueError(
                f"scale={self.scale} has {len(self.scale)} values for the "
                f"{len(self.names)} channels {self.names}"
            )
        _ = self._totals  # checks the weights

    @property
    def _totals(self) -> Totals:
        return Totals(Errors(self.names, weights=self.weights))

    def init(self) -> State:
        """State of no examples."""
        return self._totals.init()

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without padding and unobserved values."""
        return self._totals.update(state, forecast, batch)

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return self._totals.merge(a, b)

    def compute(self, state: State) -> Scores:
        """Scores over all examples; NaN if there were none.

        Returns:
            "mse" and "mae" in model units, "rmse_<name>" in physical units, and
            "mse_by_lead" `[k]`.
        """
        sums = self._totals.values(state)  # [k, c]
        each = {n: x.sum(axis=0) for n, x in sums.items()}
        by_lead = {n: x.sum(axis=1) for n, x in sums.items()}
        pooled = {n: x.sum() for n, x in sums.items()}
        scale = np.abs(np.asarray(self.scale or [1.0] * len(self.names)))
        rmse = scale * continuous.rmse(each)
        return {
            "mse": float(continuous.mse(pooled)),
            "mae": float(continuous.mae(pooled)),
            **{f"rmse_{n}": float(x) for n, x in zip(self.names, rmse, strict=True)},
            "mse_by_lead": continuous.mse(by_lead).tolist(),
        }


def verification(
    names: tuple[str, ...],
    scale: tuple[float, ...],
    weights: np.ndarray | None = None,
    climatology: Callable[[Batch], np.ndarray] | None = None,
) -> Verification:
    """How forecasts of several quantities are verified.

    "mse" and "mae" are those of all channels in model units, with the axis ("lead",).
    "rmse" and "bias" in physical units and "acc" have ("lead", "variable").

    Args:
        names: of the channels.
        scale: physical units per model unit, of each channel.
        weights: broadcastable to a target `[k, h, w, c]`, non-negative; None: equal.
        climatology: that anomalies are departures from, in model units: a function of
            a batch on the host to `[b, k, h, w, c]`. None: 0, the values are anomalies.
    """
    by_batch = climatology is not None
    statistics = {
        "errors": Errors(weights=weights),
        "channel_errors": Errors(names, scale, weights),
        "anomalies": Anomalies(names, weights=weights, by_batch=by_batch),
    }
    scores = {
        "mse": Score("errors", continuous.mse, LOWER),
        "mae": Score("errors", continuous.mae, LOWER),
        "rmse": Score("channel_errors", continuous.rmse, LOWER),
        "bias": Score("channel_errors", continuous.bias, NEAR_ZERO),
        "acc": Score("anomalies", continuous.acc),
    }
    extras = {CLIMATOLOGY: climatology} if climatology is not None else {}
    return Verification(statistics, scores, extras)
