"""Scores of rain forecasts: events above thresholds, hit, missed or falsely forecast.

    CSI = H / (H + M + F),   POD = H / (H + M),   SUCR = H / (H + F)
    frequency bias = (H + F) / (H + M)

H, M, F are numbers of pixels over all examples and, unless by lead, all lead times; a
value equal to the threshold is an event. "_m" is the mean over thresholds. As in the
reference implementation of Earthformer the denominators of the first three have 1e-4
added: where there is no event anywhere they are 0, even if the forecast is perfect.
The bias is the plain one (that of the reference implementation is mistyped); thresholds
that the observations never reach are left out of its mean.

Reference:
    Veillette et al. 2020, SEVIR; Gao et al. 2022, Earthformer, section 4.2.
"""

import dataclasses
import functools

import numpy as np

from earthformer_jax.metrics.contract import Scores, State, Statistic
from earthformer_jax.metrics.frames import spectral
from earthformer_jax.metrics.scores import categorical, continuous, spatial
from earthformer_jax.metrics.statistics.contingency import Contingency
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.statistics.fractions import Fractions
from earthformer_jax.metrics.verification import (
    LOWER,
    NEAR_ONE,
    NEAR_ZERO,
    Score,
    Verification,
)

THRESHOLDS = (16, 74, 133, 160, 181, 219)  # of vertically integrated liquid, 0..255
FULL_SCALE = 255.0
EPSILON = 1e-4
POOLS = (1, 4, 16)  # widths of the blocks of pixels in which events are compared
WINDOWS = (1, 5, 17, 33, 65)  # widths of the windows of the fractions skill score
M3 = (16, 74, 133)  # thresholds of the SEVIR challenge


@dataclasses.dataclass(frozen=True, eq=False)
class RainScores:
    """Streaming rain scores.

    Attributes:
        thresholds: of the events, in codes of vertically integrated liquid.
        scale, offset: code = scale * model value + offset.
    """

    thresholds: tuple[float, ...] = THRESHOLDS
    scale: float = FULL_SCALE
    offset: float = 0.0

    def __post_init__(self):
        _ = self._sums  # checks the thresholds

    @property
    def _sums(self) -> Verification:
        return Verification(
            {
                "errors": Errors(scale=self.scale / FULL_SCALE),
                "contingency": Contingency(
                    self.thresholds, scale=self.scale, offset=self.offset
                ),
            }
        )

    def init(self) -> State:
        """State of no examples."""
        return self._sums.init()

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without padding and unobserved values."""
        return self._sums.update(state, forecast, batch)

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return self._sums.merge(a, b)

    def counts(self, state: State) -> dict[str, np.ndarray]:
        """Hits, misses, false alarms and correct negatives, int64 `[k, m]`."""
        counts = self._sums.sums(state)["contingency"]
        return {kind: x[..., 0] for kind, x in counts.items()}

    def compute(self, state: State) -> Scores:
        """Scores over all examples; NaN if there were none.

        Returns:
            "mse", "mae" of code / 255; "csi_m", "csi_16", ..., "pod_m", "sucr_m",
            "bias_m"; "csi_by_lead" (mean over thresholds) and "mse_by_lead", `[k]`.
        """
        errors = self._sums.sums(state)["errors"]
        total = {name: x.sum() for name, x in errors.items()}
        by_lead = self.counts(state)
        pooled = {kind: x.sum(axis=0) for kind, x in by_lead.items()}
        undefined = 0.0 if total["weight"] else np.nan
        csi, pod, sucr = (
            score(pooled, EPSILON) + undefined
            for score in (categorical.csi, categorical.pod, categorical.success_ratio)
        )
        bias = categorical.frequency_bias(pooled)
        known = bias[~np.isnan(bias)]
        each = zip(self.thresholds, csi, strict=True)
        csi_by_lead = np.mean(categorical.csi(by_lead, EPSILON), axis=1)
        return {
            "mse": float(continuous.mse(total)),
            "mae": float(continuous.mae(total)),
            "csi_m": float(np.mean(csi)),
            **{f"csi_{threshold:g}": float(value) for threshold, value in each},
            "pod_m": float(np.mean(pod)),
            "sucr_m": float(np.mean(sucr)),
            "bias_m": float(np.mean(known)) if known.size else float("nan"),
            "csi_by_lead": np.where(errors["weight"] > 0, csi_by_lead, np.nan).tolist(),
            "mse_by_lead": continuous.mse(errors).tolist(),
        }


def verification(
    scale: float = FULL_SCALE,
    offset: float = 0.0,
    thresholds: tuple[float, ...] = THRESHOLDS,
    pools: tuple[int, ...] = POOLS,
    windows: tuple[int, ...] = WINDOWS,
    frame: tuple[int, int] | None = None,
) -> Verification:
    """How rain forecasts are verified.

    Scores of events have the axes ("lead", "threshold", "pool"), and those of errors,
    in code / 255, have ("lead",). "csi_m" is the mean over thresholds of CSI from
    counts of all lead times; "csi_m_by_lead_mean" and "csi_m3_by_lead_mean" are means
    over lead times of CSI from counts of one. The three are those of the published
    tables of SEVIR, with 1e-4 in the denominator. "fss" has the axes ("lead",
    "threshold", "window"); "power_ratio" has ("lead", "wavelength"), at the wavelengths
    that are 1, 1/2, 1/4, ... of the frame; "useful_scale" and "effective_resolution"
    say the scales, in pixels, from which a forecast is good.

    Args:
        scale, offset: code = scale * model value + offset.
        thresholds: of the events, in codes.
        pools: widths of the blocks of pixels in which events are compared.
        windows: widths of the windows in which fractions of events are compared; those
            that are wider than `frame` are left out.
        frame: height and width in pixels; None: unknown, so that there are no spectra.
    """
    published_csi = functools.partial(categorical.published_csi, epsilon=EPSILON)
    challenge = {"threshold": tuple(x for x in thresholds if x in M3)}
    of_events = functools.partial(Score, "contingency")
    of_errors = functools.partial(Score, "errors")
    means = {
        "csi_m": of_events(published_csi, add=("lead",), mean=("threshold",)),
        "csi_m_by_lead_mean": of_events(published_csi, mean=("lead", "threshold")),
    }
    if challenge["threshold"]:
        means["csi_m3_by_lead_mean"] = of_events(
            published_csi, where=challenge, mean=("lead", "threshold")
        )
    scores = {
        "mse": of_errors(continuous.mse, LOWER),
        "mae": of_errors(continuous.mae, LOWER),
        "rmse": of_errors(continuous.rmse, LOWER),
        "bias": of_errors(continuous.bias, NEAR_ZERO),
        "psnr": of_errors(continuous.psnr, units="dB"),
        "csi": of_events(categorical.csi),
        "pod": of_events(categorical.pod),
        "far": of_events(categorical.far, LOWER),
        "success_ratio": of_events(categorical.success_ratio),
        "frequency_bias": of_events(categorical.frequency_bias, NEAR_ONE),
        "hss": of_events(categorical.hss),
        "ets": of_events(categorical.ets),
    }
    of_space, spatial_scores = _space(scale, offset, thresholds, windows, frame)
    return Verification(
        statistics={
            "errors": Errors(scale=scale / FULL_SCALE),
            "contingency": Contingency(thresholds, pools, scale, offset),
            **of_space,
        },
        scores=scores | means | spatial_scores,
    )


def _space(
    scale: float,
    offset: float,
    thresholds: tuple[float, ...],
    windows: tuple[int, ...],
    frame: tuple[int, int] | None,
) -> tuple[dict[str, Statistic], dict[str, Score]]:
    """The part of `verification` that is about scales."""
    if frame is not None:
        windows = tuple(n for n in windows if n <= min(frame))
    useful = functools.partial(spatial.useful_scale, windows=windows)
    statistics: dict[str, Statistic] = {
        "fractions": Fractions(thresholds, windows, scale, offset)
    }
    scores = {
        "fss": Score("fractions", spatial.fss),
        "useful_scale": Score(
            "fractions", useful, LOWER, mean=("window",), units="pixels"
        ),
    }
    spectra, spectral_scores = spectral(frame, scale)
    return statistics | spectra, scores | spectral_scores
