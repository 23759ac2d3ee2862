"""Mean squared and mean absolute error over grid cells, streamed over batches."""

import dataclasses

import numpy as np

from earthformer_jax.metrics.contract import Scores, State
from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.totals import Totals


@dataclasses.dataclass(frozen=True, eq=False)
class PixelError:
    """Streaming "mse" and "mae": every example counts the same.

    The error of an example is the mean over its observed cells; an example without any
    does not count.

    Attributes:
        weights: of the cells, broadcastable to a target `[k, h, w, c]`; None for equal.

    Raises:
        ValueError: if all weights are zero.
    """

    weights: np.ndarray | None = None

    def __post_init__(self):
        _ = self._totals

    @property
    def _totals(self) -> Totals:
        return Totals(Errors(weights=self.weights, equal_examples=True))

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
        """Means over the examples; NaN if there were none."""
        sums = {name: x.sum() for name, x in self._totals.values(state).items()}
        return {
            "mse": float(continuous.mse(sums)),
            "mae": float(continuous.mae(sums)),
        }
