"""Reference forecasts that need no model: persistence and damped persistence."""

from collections.abc import Callable

import numpy as np

from earthformer_jax.data.source import Batch
from earthformer_jax.data.task import Forecast

# The climatology for a batch at its last input frame and at its targets, in model
# units, each broadcastable to `[b, k, h, w, c]`.
Climatologies = Callable[[Batch], tuple[np.ndarray, np.ndarray]]


def persistence(out_len: int, channels: int) -> Forecast:
    """The forecast that nothing changes: the last input frame, repeated.

    Args:
        out_len: number of target frames.
        channels: number of target channels, the first channels of the inputs.
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
    """The climatology plus the damped anomaly of the last input frame.

    Args:
        out_len: number of target frames.
        channels: number of target channels, the first channels of the inputs.
        factors: returns the factors of the anomaly, broadcastable to `[k, h, w, c]`;
            called on first use.
        climatologies: see `Climatologies`.
    """

    def forecast(batch: Batch) -> np.ndarray:
        now, later = climatologies(batch)
        departure = np.asarray(batch["inputs"])[:, -1:, ..., :channels] - now
        return like_targets(batch, later + factors() * departure, out_len)

    return forecast


def like_targets(batch: Batch, fields: np.ndarray, out_len: int) -> np.ndarray:
    """Fields broadcast to the targets of a batch: float32 `[b, out_len, h, w, c]`."""
    b, _, h, w, _ = np.shape(batch["inputs"])
    shape = (b, out_len, h, w, np.shape(fields)[-1])
    return np.array(np.broadcast_to(fields, shape), np.float32)
