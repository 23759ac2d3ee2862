"""Frame scores of video prediction: MSE and MAE per frame, and SSIM."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.contract import Scores, State
from earthformer_jax.metrics.pixel import as_pair, counted, frame_errors
from earthformer_jax.metrics.ssim import has_ssim, ssim


@dataclasses.dataclass(frozen=True)
class FrameScores:
    """Streaming "mse", "mae" and "ssim", also "..._by_lead".

    MSE and MAE are means over all values that are counted, times the pixels of a frame:
    the mean over frames of the sum over pixels, as in tables on MovingMNIST. Several
    channels are averaged. Forecasts are not clipped to the range of the data. SSIM is
    the mean over frames and channels of `ssim.ssim`, of frames without unknown pixels.

    Attributes:
        data_range: highest minus lowest value possible, for SSIM.
        per_frame_sum: whether MSE and MAE are sums over the pixels of a frame;
            otherwise means.
    """

    data_range: float = 1.0
    per_frame_sum: bool = True

    def init(self) -> State:
        """State of no examples."""
        return sums.empty_table(("squared", "absolute", "share", "ssim", "ssim_frames"))

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without padding and unobserved values."""
        forecast, targets = as_pair(forecast, batch["targets"])
        keep = counted(batch)
        height, width = targets.shape[2:4]
        rows = frame_errors(forecast - targets, keep)
        if self.per_frame_sum:
            rows |= {n: height * width * rows[n] for n in ("squared", "absolute")}
        if has_ssim(height, width):
            planes, true_planes = (jnp.moveaxis(x, -1, 2) for x in (forecast, targets))
            alike = ssim(planes, true_planes, self.data_range)  # [b, k, c]
            whole = jnp.all(keep, axis=(2, 3))
            alike = jnp.mean(jnp.where(whole, alike, 0), axis=2)
            share = jnp.mean(whole, axis=2, dtype=jnp.float32)
            rows |= {
                "ssim": jnp.sum(alike, axis=0),
                "ssim_frames": jnp.sum(share, axis=0),
            }
        return sums.add_to_table(state, rows)

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return sums.merge_tables(a, b)

    def compute(self, state: State) -> Scores:
        """Scores over all examples; NaN if there were none.

        Returns:
            "mse", "mae", "ssim", and each with "_by_lead", `[k]`. There is no SSIM
            where no frame has one: smaller than 11 pixels, or with unknown pixels.
        """
        total = sums.table_values(state)
        parts = [("mse", "squared", "share"), ("mae", "absolute", "share")]
        if np.any(total["ssim_frames"]):
            parts.append(("ssim", "ssim", "ssim_frames"))
        scores, curves = {}, {}
        for name, numerator, denominator in parts:
            above, below = total[numerator], total[denominator]
            scores[name] = float(sums.ratio(above.sum(), below.sum()))
            curves[f"{name}_by_lead"] = sums.ratio(above, below).tolist()
        return scores | curves
