"""Skill of Nino3.4 forecasts: correlation by lead, C-Nino3.4-M and C-Nino3.4-WM.

The index is the weighted mean of temperature over the Nino3.4 box, of one month, or of
a month and the two after it ("three-month": K forecast months give K - 2 values).

    C_i = sum p t / (sqrt(sum p^2 sum t^2) + 1e-6),   p, t centred over the test set
    C-Nino3.4-M = mean_i C_i,   C-Nino3.4-WM = mean_i b_i ln(i) C_i,   i = 1, 2, ...

Reference:
    Gao et al. 2022, Earthformer, section 4.3 and its reference implementation, whose
    additive 1e-6 and weights b_i are kept. The weighted score can exceed 1.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics.batches import valid_of
from earthformer_jax.metrics.contract import Scores, State
from earthformer_jax.metrics.pixel import PixelError
from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.scores import index as index_scores
from earthformer_jax.metrics.statistics.anomaly import Anomalies
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.statistics.index import IndexSums
from earthformer_jax.metrics.verification import LOWER, NEAR_ZERO, Score, Verification

EPSILON = 1e-6
WINDOW = 3  # months in the index of the paper
# b_i of the reference implementation: (number of leads, weight); None: all further.
LEAD_WEIGHTS = ((4, 1.5), (7, 2.0), (7, 3.0), (None, 4.0))


def nino34(fields, weights) -> jax.Array:
    """Index of each month: weighted mean of `[..., h, w]` fields with `[h, w]`.

    The weights sum to 1; cells of weight 0 may hold anything.
    """
    weights = jnp.asarray(weights, jnp.float32)
    return jnp.sum(jnp.where(weights != 0, fields * weights, 0), axis=(-2, -1))


def three_month_mean(index):
    """Mean of a month and the next two: `[..., k]` to `[..., k - 2]`."""
    means = index.shape[-1] - WINDOW + 1
    months = [index[..., i : i + means] for i in range(WINDOW)]
    return functools.reduce(operator.add, months) / WINDOW


def lead_weights(leads: int) -> np.ndarray:
    """b_i ln(i) of the weighted score for i = 1 .. leads; the first is 0."""
    steps = [np.full(leads if n is None else n, b) for n, b in LEAD_WEIGHTS]
    return np.concatenate(steps)[:leads] * np.log(np.arange(1, leads + 1))


def weighted_score(correlation) -> float:
    """C-Nino3.4-WM of `[k]` correlations."""
    correlation = np.asarray(correlation, np.float64)
    return float(np.mean(lead_weights(correlation.size) * correlation))


def moments(forecast, target, valid) -> State:
    """Count, means and centred second moments over the examples with a known target.

    Args:
        forecast, target: `[b, k]`; the target is NaN where it is unknown.
        valid: `[b]` bool.

    Returns:
        {"count": int32 `[k]`, "mean_p", "mean_t", "pp", "tt", "pt": `[k]`}. Moments are
        centred, so float32 holds them accurately whatever the mean is.
    """
    forecast, target = (jnp.asarray(x, jnp.float32) for x in (forecast, target))
    keep = valid[:, None] & ~jnp.isnan(target)
    count = jnp.sum(keep, axis=0, dtype=jnp.int32)
    divisor = jnp.maximum(count, 1)
    mean_p = jnp.sum(jnp.where(keep, forecast, 0), axis=0) / divisor
    mean_t = jnp.sum(jnp.where(keep, target, 0), axis=0) / divisor
    p = jnp.where(keep, forecast - mean_p, 0)
    t = jnp.where(keep, target - mean_t, 0)
    return {
        "count": count,
        "mean_p": mean_p,
        "mean_t": mean_t,
        "pp": jnp.sum(p * p, axis=0),
        "tt": jnp.sum(t * t, axis=0),
        "pt": jnp.sum(p * t, axis=0),
    }


def merge_moments(a: State, b: State) -> State:
    """Moments of two disjoint sets of examples together (Chan et al. 1979)."""
    count = a["count"] + b["count"]
    divisor = jnp.maximum(count, 1).astype(jnp.float32)
    share = b["count"] / divisor
    d_p, d_t = b["mean_p"] - a["mean_p"], b["mean_t"] - a["mean_t"]
    between = a["count"] * share
    return {
        "count": count,
        "mean_p": a["mean_p"] + share * d_p,
        "mean_t": a["mean_t"] + share * d_t,
        "pp": a["pp"] + b["pp"] + between * d_p * d_p,
        "tt": a["tt"] + b["tt"] + between * d_t * d_t,
        "pt": a["pt"] + b["pt"] + between * d_p * d_t,
    }


def correlation(state: State) -> np.ndarray:
    """`[k]` correlations in float64: 0 if a side is constant, NaN without examples."""
    s = {name: np.asarray(x, np.float64) for name, x in state.items()}
    values = s["pt"] / (np.sqrt(s["pp"] * s["tt"]) + EPSILON)
    return np.where(s["count"] > 0, values, np.nan)


def rmse(state: State) -> np.ndarray:
    """`[k]` root mean square errors in float64, NaN without examples."""
    s = {name: np.asarray(x, np.float64) for name, x in state.items()}
    spread = (s["pp"] + s["tt"] - 2 * s["pt"]) / np.maximum(s["count"], 1)
    values = np.sqrt(np.maximum(spread, 0) + (s["mean_p"] - s["mean_t"]) ** 2)
    return np.where(s["count"] > 0, values, np.nan)


@dataclasses.dataclass(frozen=True, eq=False)
class NinoSkill:
    """Streaming Nino3.4 skill and mean squared error of temperature forecasts.

    Fields are `[b, k, h, w, 1]` in the units the model sees; K = scale * x + offset.
    The observed index is `batch["nino34"]` and `batch["nino34_three_month"]` (K) where
    a data set gives them, NaN in months where it is unknown, otherwise that of the
    targets. Targets that are not `observed` do not count in "mse", and neither does an
    example without any.

    Attributes:
        nino_weights: `[h, w]`, summing to 1.
        out_len: forecast months, at least 3.
        scale, offset: from model units to K.
        index_months: 3 or 1, the index "correlation" stands for.
        pixel_weights: for "mse", broadcastable to `[k, h, w, 1]`; None for equal.
        mse_in_kelvin: "mse" in K^2 rather than in model units squared.
    """

    nino_weights: np.ndarray
    out_len: int
    scale: float = 1.0
    offset: float = 0.0
    index_months: int = WINDOW
    pixel_weights: np.ndarray | None = None
    mse_in_kelvin: bool = False

    def __post_init__(self):
        total = float(np.sum(self.nino_weights))
        if not np.isclose(total, 1, atol=1e-4):
            raise ValueError(f"nino_weights must sum to 1; they sum to {total:g}")
        if self.index_months not in (1, WINDOW):
            raise ValueError(f"index_months={self.index_months}: expected 1 or 3")
        if self.out_len < WINDOW:
            raise ValueError(
                f"out_len={self.out_len} is too short for a three-month index"
            )

    @property
    def _errors(self) -> PixelError:
        return PixelError(self.pixel_weights)

    def init(self) -> State:
        """State of no examples."""

        def empty(leads):
            zeros = jnp.zeros(leads, jnp.float32)
            names = ("mean_p", "mean_t", "pp", "tt", "pt")
            return {"count": jnp.zeros(leads, jnp.int32)} | {n: zeros for n in names}

        return {
            "errors": self._errors.init(),
            "monthly": empty(self.out_len),
            "three_month": empty(self.out_len - WINDOW + 1),
        }

    def indices(self, fields) -> tuple[jax.Array, jax.Array]:
        """Monthly `[b, k]` and three-month `[b, k - 2]` index in K of model fields."""
        monthly = nino34(jnp.asarray(fields)[..., 0], self.nino_weights)
        monthly = self.scale * monthly + self.offset
        return monthly, three_month_mean(monthly)

    def monthly(self, forecast, batch) -> tuple[jax.Array, jax.Array]:
        """Monthly index in K, `[b, k]`: forecast, and observed, NaN where unknown."""
        true = self.indices(batch["targets"])[0]
        return self.indices(forecast)[0], batch.get("nino34", true)

    def three_month(self, forecast, batch) -> tuple[jax.Array, jax.Array]:
        """Three-month index in K, `[b, k - 2]`, as `monthly`."""
        true = self.indices(batch["targets"])[1]
        return self.indices(forecast)[1], batch.get("nino34_three_month", true)

    def verification(self) -> Verification:
        """How these forecasts are verified.

        "mse" and "mae" are those of the metric, with the axis ("lead",); "map_acc" is
        the anomaly correlation of maps. Scores of the index have ("lead", "months"),
        the months that it is a mean of; "c_nino34_m" is the mean over lead times of the
        correlation of the three-month index.
        """
        index = functools.partial(Score, "index")
        published = functools.partial(index_scores.correlation, epsilon=EPSILON)
        unit = self.scale if self.mse_in_kelvin else 1.0
        weights = self.pixel_weights
        zero = -self.offset / self.scale  # 0 K in model units
        three = {"months": (WINDOW,)}
        statistics = {
            "errors": Errors(scale=unit, weights=weights, equal_examples=True),
            "anomalies": Anomalies(center=zero, weights=weights),
            "index": IndexSums({1: self.monthly, WINDOW: self.three_month}),
        }
        scores = {
            "mse": Score("errors", continuous.mse, LOWER),
            "mae": Score("errors", continuous.mae, LOWER),
            "map_acc": Score("anomalies", continuous.acc),
            "correlation": index(index_scores.correlation),
            "index_rmse": index(index_scores.rmse, LOWER, units="K"),
            "index_bias": index(index_scores.bias, NEAR_ZERO, units="K"),
            "c_nino34_m": index(published, where=three, mean=("lead", "months")),
        }
        return Verification(statistics, scores)

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without the examples that `batch["valid"]` marks as padding."""
        valid = valid_of(batch)
        monthly, true_monthly = self.monthly(forecast, batch)
        three_month, true_three_month = self.three_month(forecast, batch)
        return {
            "errors": self._errors.update(state["errors"], forecast, batch),
            "monthly": merge_moments(
                state["monthly"], moments(monthly, true_monthly, valid)
            ),
            "three_month": merge_moments(
                state["three_month"], moments(three_month, true_three_month, valid)
            ),
        }

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return {
            "errors": self._errors.merge(a["errors"], b["errors"]),
            "monthly": merge_moments(a["monthly"], b["monthly"]),
            "three_month": merge_moments(a["three_month"], b["three_month"]),
        }

    def compute(self, state: State) -> Scores:
        """Scores over all examples, on the host in float64; NaN if there were none.

        Returns:
            "mse"; "correlation_monthly" `[k]`, "correlation_three_month" `[k - 2]`
            and "correlation", the one of `index_months`; "c_nino34_m",
            "c_nino34_wm" and "nino34_rmse" (K, mean over leads) of the three-month
            index.
        """
        state = jax.device_get(state)
        monthly = correlation(state["monthly"])
        three_month = correlation(state["three_month"])
        chosen = three_month if self.index_months == WINDOW else monthly
        unit = self.scale**2 if self.mse_in_kelvin else 1.0
        mse = self._errors.compute(state["errors"])["mse"]
        return {
            "mse": float(unit * np.asarray(mse)),
            "correlation": chosen.tolist(),
            "correlation_monthly": monthly.tolist(),
            "correlation_three_month": three_month.tolist(),
            "c_nino34_m": float(np.mean(three_month)),
            "c_nino34_wm": weighted_score(three_month),
            "nino34_rmse": float(np.mean(rmse(state["three_month"]))),
        }
