"""The loss of a model that has all of its loss itself, as a validation score."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.batches import valid_of
from earthformer_jax.metrics.contract import Metric, Scores, State

LOSS = "loss"  # name of the score


@dataclasses.dataclass(frozen=True, eq=False)
class ForecastAndLoss:
    """A metric of forecasts, and "loss", the mean over examples of the model's own.

    Attributes:
        of_forecast: metric of the forecasts.
        weights: of the cells in the loss, broadcastable to a target `[k, h, w, c]`.
    """

    of_forecast: Metric
    weights: np.ndarray

    def init(self) -> State:
        """State of no examples."""
        empty = {LOSS: sums.empty_sum(), "count": sums.empty_count()}
        return {"forecast": self.of_forecast.init(), **empty}

    def update(
        self, state: State, forecast: jax.Array, batch: Mapping[str, jax.Array]
    ) -> State:
        """Adds a batch with "loss", float32 `[b]`, without its padding."""
        valid = valid_of(batch)
        total = jnp.sum(jnp.where(valid, batch[LOSS], 0))
        return {
            "forecast": self.of_forecast.update(state["forecast"], forecast, batch),
            LOSS: sums.add(state[LOSS], total),
            "count": sums.add_count(state["count"], jnp.sum(valid, dtype=jnp.int32)),
        }

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return {
            "forecast": self.of_forecast.merge(a["forecast"], b["forecast"]),
            LOSS: sums.merge(a[LOSS], b[LOSS]),
            "count": sums.merge_counts(a["count"], b["count"]),
        }

    def compute(self, state: State) -> Scores:
        """The scores of the forecasts, and "loss"; NaN if there were no examples."""
        loss = sums.ratio(sums.value(state[LOSS]), sums.count(state["count"]))
        return {**self.of_forecast.compute(state["forecast"]), LOSS: float(loss)}
