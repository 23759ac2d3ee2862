"""Frame scores of video prediction: MSE and MAE per frame, and SSIM."""

import dataclasses
import functools

import numpy as np

from earthformer_jax.metrics.contract import Scores, State, Statistic
from earthformer_jax.metrics.scores import continuous, spatial
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.statistics.similarity import Similarity
from earthformer_jax.metrics.statistics.spectra import LEAST_SIDE, Spectra
from earthformer_jax.metrics.verification import (
    LOWER,
    NEAR_ONE,
    NEAR_ZERO,
    Score,
    Verification,
)


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

    @property
    def _sums(self) -> Verification:
        similarity = Similarity(self.data_range)
        return Verification({"errors": Errors(), "similarity": similarity})

    def init(self) -> State:
        """State of no examples."""
        return self._sums.init()

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without padding and unobserved values."""
        return self._sums.update(state, forecast, batch)

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return self._sums.merge(a, b)

    def compute(self, state: State) -> Scores:
        """Scores over all examples; NaN if there were none.

        Returns:
            "mse", "mae", "ssim", and each with "_by_lead", `[k]`. There is no SSIM
            where no frame has one: smaller than 11 pixels, or with unknown pixels.
        """
        sums = self._sums.sums(state)
        mse, mae = continuous.mse, continuous.mae
        if self.per_frame_sum:
            mse, mae = continuous.frame_mse, continuous.frame_mae
        parts = [("mse", mse, sums["errors"]), ("mae", mae, sums["errors"])]
        if np.any(sums["similarity"]["frames"]):
            parts.append(("ssim", continuous.ssim, sums["similarity"]))
        scores, curves = {}, {}
        for name, function, by_lead in parts:
            pooled = {n: x.sum(axis=0) for n, x in by_lead.items()}
            scores[name] = float(function(pooled))
            curves[f"{name}_by_lead"] = function(by_lead).tolist()
        return scores | curves


def verification(
    data_range: float = 1.0, frame: tuple[int, int] | None = None
) -> Verification:
    """How video predictions are verified.

    Scores have the axis ("lead",); those of `spectral` are added. "mse" and "mae" are
    sums over the pixels of a frame, as in tables on MovingMNIST; "rmse", "bias" and
    "psnr" are of single pixels.

    Args:
        data_range: highest minus lowest value possible.
        frame: as for `spectral`.
    """
    of_errors = functools.partial(Score, "errors")
    psnr = functools.partial(continuous.psnr, data_range=data_range)
    scores = {
        "mse": of_errors(continuous.frame_mse, LOWER, units="per frame"),
        "mae": of_errors(continuous.frame_mae, LOWER, units="per frame"),
        "rmse": of_errors(continuous.rmse, LOWER),
        "bias": of_errors(continuous.bias, NEAR_ZERO),
        "psnr": of_errors(psnr, units="dB"),
        "ssim": Score("similarity", continuous.ssim),
    }
    spectra, spectral_scores = spectral(frame)
    statistics = {"errors": Errors(), "similarity": Similarity(data_range)}
    return Verification(statistics | spectra, scores | spectral_scores)


def spectral(
    frame: tuple[int, int] | None, scale: float = 1.0
) -> tuple[dict[str, Statistic], dict[str, Score]]:
    """Statistics and scores of power spectra, by name.

    "power_ratio" has the axes ("lead", "wavelength"), at the wavelengths that are 1,
    1/2, 1/4, ... of the longer side of a frame; "effective_resolution" has ("lead",).

    Args:
        frame: height and width in pixels. None, or too small to have a spectrum: there
            are no scores.
        scale: units of the fields per model unit.
    """
    if frame is None or max(frame) < LEAST_SIDE:
        return {}, {}
    spectra = Spectra(*frame, scale=scale)
    lengths = spectra.coords["wavelength"]
    octaves = tuple(lengths[2**i - 1] for i in range(len(lengths).bit_length()))
    resolution = functools.partial(spatial.effective_resolution, wavelengths=lengths)
    return {"spectra": spectra}, {
        "power_ratio": Score(
            "spectra", spatial.power_ratio, NEAR_ONE, where={"wavelength": octaves}
        ),
        "effective_resolution": Score(
            "spectra", resolution, LOWER, mean=("wavelength",), units="pixels"
        ),
    }
