"""Mean squared and mean absolute error over grid cells, streamed over batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array
from earthformer_jax.metrics import sums
from earthformer_jax.metrics.contract import Scores, State


def as_pair(forecast, targets) -> tuple[jax.Array, jax.Array]:
    """Forecast and targets in float32.

    Raises:
        ValueError: unless both are `[b, k, h, w, c]`; one that is shorter would be
            compared many times.
    """
    sizes = check_array("targets", targets, "b k h w c")
    check_array("forecast", forecast, "b k h w c", sizes)
    return jnp.asarray(forecast, jnp.float32), jnp.asarray(targets, jnp.float32)


def broadcast_weights(weights, shape: tuple[int, ...]) -> np.ndarray:
    """float64 `[k, h, w, c]` of weights that are broadcastable to it.

    Raises:
        ValueError: if they are not.
    """
    weights = np.asarray(weights, np.float64)
    try:
        return np.broadcast_to(weights, shape)
    except ValueError:
        raise ValueError(
            f"weights has shape {weights.shape}: expected one that can be broadcast to "
            f"[k, h, w, c] = {list(shape)}"
        ) from None


def example_errors(
    forecast, targets, weights=None, observed=None
) -> tuple[jax.Array, jax.Array]:
    """Weighted mean squared and absolute error of each example.

    Args:
        forecast, targets: `[b, k, h, w, c]`.
        weights: broadcastable to `[k, h, w, c]`, non-negative; equal if None. Cells
            of weight 0 may hold anything, including NaN.
        observed: bool, like `targets`; the means are over those values. None: all.

    Returns:
        two arrays `[b]`, float32; 0 for an example without observed values.
    """
    forecast, targets = as_pair(forecast, targets)
    error = forecast - targets
    axes = tuple(range(1, error.ndim))
    if weights is None and observed is None:
        return jnp.mean(error**2, axis=axes), jnp.mean(jnp.abs(error), axis=axes)
    weights = np.ones(1) if weights is None else weights
    weights = broadcast_weights(weights, error.shape[1:])
    if not weights.sum() > 0:
        raise ValueError("the weights of all cells are zero")
    share = jnp.asarray(weights / weights.sum(), jnp.float32)
    if observed is not None:
        share = jnp.where(observed, share, 0)
        total = jnp.sum(share, axis=axes, keepdims=True)
        share = share / jnp.where(total > 0, total, 1)
    error = jnp.where(share > 0, error, 0)
    return (
        jnp.sum(share * error**2, axis=axes),
        jnp.sum(share * jnp.abs(error), axis=axes),
    )


def frame_errors(error, keep) -> dict[str, jax.Array]:
    """Errors of frames, summed over examples.

    Args:
        error: `[b, k, h, w, c]`; any value where `keep` is False.
        keep: bool, like `error`: the values that count.

    Returns:
        `[k]` sums over examples: "squared" and "absolute", the mean error of a frame
        (values that do not count are 0), and "share", the part of it that counts.
    """
    error = jnp.where(keep, error, 0)
    frames = {
        "squared": jnp.mean(error**2, axis=(2, 3, 4)),
        "absolute": jnp.mean(jnp.abs(error), axis=(2, 3, 4)),
        "share": jnp.mean(keep, axis=(2, 3, 4), dtype=jnp.float32),
    }
    return {name: jnp.sum(x, axis=0) for name, x in frames.items()}


def valid_of(batch) -> jax.Array:
    """`[b]` bool: which examples of a batch are real, not padding."""
    examples = jnp.shape(batch["targets"])[0]
    return jnp.asarray(batch.get("valid", jnp.ones(examples, bool)), bool)


def counted(batch) -> jax.Array:
    """Bool, like the targets: the values of real examples that are observed."""
    targets, valid, observed = batch["targets"], valid_of(batch), batch.get("observed")
    sizes = check_array("targets", jnp.asarray(targets), "b k h w c")
    check_array("valid", valid, "b", sizes)
    if observed is not None:
        check_array("observed", observed, "b k h w c", sizes, kind=bool)
    valid = valid[:, None, None, None, None]
    return jnp.broadcast_to(valid & batch.get("observed", True), jnp.shape(targets))


@dataclasses.dataclass(frozen=True, eq=False)
class PixelError:
    """Streaming "mse" and "mae": every example counts the same.

    The error of an example is the mean over its observed cells; an example without any
    does not count.

    Attributes:
        weights: of the cells, broadcastable to a target `[k, h, w, c]`; None for equal.
    """

    weights: np.ndarray | None = None

    def init(self) -> State:
        """State of no examples: sums of their errors, and their number."""
        return {
            "mse": sums.empty_sum(),
            "mae": sums.empty_sum(),
            "examples": jnp.zeros((), jnp.int32),
        }

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without the examples that `batch["valid"]` marks as padding."""
        counts = valid_of(batch)
        observed = batch.get("observed")
        squared, absolute = example_errors(
            forecast, batch["targets"], self.weights, observed
        )
        if observed is not None:
            seen = observed if self.weights is None else observed & (self.weights > 0)
            counts &= jnp.any(seen, axis=(1, 2, 3, 4))
        return {
            "mse": sums.add(state["mse"], jnp.sum(jnp.where(counts, squared, 0))),
            "mae": sums.add(state["mae"], jnp.sum(jnp.where(counts, absolute, 0))),
            "examples": state["examples"] + jnp.sum(counts, dtype=jnp.int32),
        }

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        both = {name: sums.merge(a[name], b[name]) for name in ("mse", "mae")}
        return both | {"examples": a["examples"] + b["examples"]}

    def compute(self, state: State) -> Scores:
        """Means over the examples; NaN if there were none."""
        state = jax.device_get(state)
        return {
            name: float(sums.ratio(sums.value(state[name]), state["examples"]))
            for name in ("mse", "mae")
        }
