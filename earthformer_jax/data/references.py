"""Reference forecasts that need no model: persistence, damped or not."""

from collections.abc import Callable

import numpy as np

from earthformer_jax.data.source import Batch
from earthformer_jax.data.task import Forecast

# Climatology of a batch in model units at its last input frame and at its targets, each
# broadcastable to `[b, k, h, w, c]`.
Climatologies = Callable[[Batch], tuple[np.ndarray, np.ndarray]]


def persistence(out_len: int, channels: int) -> Forecast:
    """The forecast that nothing changes: the last input frame, repeated.

    Args:
        out_len: target frames.
        channels: of the targets; they are the first channels of the inputs.
    """

    def forecast(batch: Batch) -> np.ndarray:
        last = np.asarray(batch["inputs"])[:, -1:, ..., :channels]
        return np.repeat(last, out_len, axis=1)

    return forecast


def damped_persistence(
    out_len: int,
    channels: int,
    factors: Callable[[], np.ndarray],
    climatologies: Climatologies,
) -> Forecast:
    """Climatology, and the departure of the last input frame from it, which fades.

    Args:
        out_len: target frames.
        channels: of the targets; they are the first channels of the inputs.
        factors: gives what is left of a departure, broadcastable to `[k, h, w, c]`;
            called on first use.
        climatologies: see `Climatologies`.
    """

    def forecast(batch: Batch) -> np.ndarray:
        now, later = climatologies(batch)
        departure = np.asarray(batch["inputs"])[:, -1:, ..., :channels] - now
        return like_targets(batch, later + factors() * departure, out_len)

    return forecast


def like_targets(batch: Batch, fields: np.ndarray, out_len: int) -> np.ndarray:
    """Fields of the last axis `c` as float32 `[b, out_len, h, w, c]` of a batch."""
    b, _, h, w, _ = np.shape(batch["inputs"])
    shape = (b, out_len, h, w, np.shape(fields)[-1])
    return np.array(np.broadcast_to(fields, shape), np.float32)
