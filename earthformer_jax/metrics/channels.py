"""Scores of forecasts of several quantities: one error for all, and one for each."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.contract import Scores, State
from earthformer_jax.metrics.pixel import as_pair, broadcast_weights, counted


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
        if self.weights is not None and not np.sum(self.weights) > 0:
            raise ValueError("the weights of all cells are zero")

    def init(self) -> State:
        """State of no examples."""
        return sums.empty_table(("squared", "absolute", "weight"), len(self.names))

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without padding and unobserved values."""
        forecast, targets = as_pair(forecast, batch["targets"])
        channels = targets.shape[-1]
        if channels != len(self.names):
            raise ValueError(
                f"the targets have {channels} channels; the scores name "
                f"{len(self.names)}: {', '.join(self.names)}"
            )
        weights = np.ones(1) if self.weights is None else self.weights
        weights = broadcast_weights(weights, targets.shape[1:])
        share = jnp.asarray(weights / weights.mean(), jnp.float32)
        keep = counted(batch) & (share > 0)
        error = jnp.where(keep, forecast - targets, 0)
        parts = {
            "squared": share * error**2,
            "absolute": share * jnp.abs(error),
            "weight": jnp.where(keep, share, 0),
        }
        rows = {
            name: jnp.sum(jnp.mean(x, axis=(2, 3)), axis=0) for name, x in parts.items()
        }
        return sums.add_to_table(state, rows)

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return sums.merge_tables(a, b)

    def compute(self, state: State) -> Scores:
        """Scores over all examples; NaN if there were none.

        Returns:
            "mse" and "mae" in model units, "rmse_<name>" in physical units, and
            "mse_by_lead" `[k]`.
        """
        total = sums.table_values(state)
        squared, absolute, weight = (
            total[name] for name in ("squared", "absolute", "weight")
        )
        scale = np.abs(np.asarray(self.scale or [1.0] * len(self.names)))
        rmse = scale * np.sqrt(sums.ratio(squared.sum(axis=0), weight.sum(axis=0)))
        return {
            "mse": float(sums.ratio(squared.sum(), weight.sum())),
            "mae": float(sums.ratio(absolute.sum(), weight.sum())),
            **{f"rmse_{n}": float(x) for n, x in zip(self.names, rmse, strict=True)},
            "mse_by_lead": sums.ratio(squared.sum(axis=1), weight.sum(axis=1)).tolist(),
        }
