"""Mean squared and mean absolute error over grid cells, streamed over batches."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

State = Any


def example_errors(forecast, targets, weights=None) -> tuple[jax.Array, jax.Array]:
    """Weighted mean squared and absolute error of each example.

    Args:
        forecast, targets: `[b, k, h, w, c]`.
        weights: broadcastable to `[k, h, w, c]`, non-negative; equal if None. Cells
            of weight 0 may hold anything, NaN too.

    Returns:
        two arrays `[b]`, float32.
    """
    error = jnp.asarray(forecast, jnp.float32) - jnp.asarray(targets, jnp.float32)
    axes = tuple(range(1, error.ndim))
    if weights is None:
        return jnp.mean(error**2, axis=axes), jnp.mean(jnp.abs(error), axis=axes)
    weights = np.broadcast_to(np.asarray(weights, np.float64), error.shape[1:])
    if not weights.sum() > 0:
        raise ValueError("the weights of all cells are zero")
    share = jnp.asarray(weights / weights.sum(), jnp.float32)
    error = jnp.where(share > 0, error, 0)
    return (
        jnp.sum(share * error**2, axis=axes),
        jnp.sum(share * jnp.abs(error), axis=axes),
    )


def valid_of(batch) -> jax.Array:
    """`[b]` bool: which examples of a padded batch are real; all if it does not say."""
    examples = jnp.shape(batch["targets"])[0]
    return jnp.asarray(batch.get("valid", jnp.ones(examples, bool)), bool)


@dataclasses.dataclass(frozen=True, eq=False)
class PixelError:
    """Streaming "mse" and "mae": every example counts the same.

    Attributes:
        weights: of the cells, broadcastable to a target `[k, h, w, c]`; None for equal.
    """

    weights: np.ndarray | None = None

    def init(self) -> State:
        """Sums over nothing: sum of errors of the examples, and their number."""
        zero = jnp.zeros((), jnp.float32)
        return {"mse": zero, "mae": zero, "examples": jnp.zeros((), jnp.int32)}

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch; examples not marked in `batch["valid"]` are left out."""
        valid = valid_of(batch)
        squared, absolute = example_errors(forecast, batch["targets"], self.weights)
        return {
            "mse": state["mse"] + jnp.sum(jnp.where(valid, squared, 0)),
            "mae": state["mae"] + jnp.sum(jnp.where(valid, absolute, 0)),
            "examples": state["examples"] + jnp.sum(valid, dtype=jnp.int32),
        }

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return jax.tree.map(jnp.add, a, b)

    def compute(self, state: State) -> dict[str, float]:
        """Means over the examples; NaN if there were none."""
        examples = int(state["examples"])
        if not examples:
            return {"mse": float("nan"), "mae": float("nan")}
        return {name: float(state[name]) / examples for name in ("mse", "mae")}
