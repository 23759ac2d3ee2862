"""Streaming scores of ensembles: CRPS, spread and error, ranks, events."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from earthformer_jax.checks import check_array
from earthformer_jax.metrics import sums
from earthformer_jax.metrics.batches import check_weights, weighed
from earthformer_jax.metrics.contract import State
from earthformer_jax.metrics.ensembles.calibration import brier_parts, roc
from earthformer_jax.metrics.ensembles.crps import crps_gaussian, mean_distance
from earthformer_jax.metrics.statistics.contingency import ROUNDING

MOMENTS = ("absolute", "distance", "variance", "squared", "weight")


@dataclasses.dataclass(frozen=True)
class Event:
    """A value that reaches a threshold.

    Attributes:
        threshold: in the units of the scores.
        above: whether values of at least the threshold are the event; False: values of
            at most the threshold.
    """

    threshold: float
    above: bool = True

    @property
    def name(self) -> str:
        """ ">=16" or "<=-0.5"."""
        return f"{'>=' if self.above else '<='}{self.threshold:g}"

    def happens(self, x):
        """Bool like `x`."""
        if self.above:
            return x >= self.threshold - ROUNDING
        return x <= self.threshold + ROUNDING


@dataclasses.dataclass(frozen=True, eq=False)
class EnsembleScores:
    """Streaming scores of forecasts by members.

    Means over the values that are observed, sum(weights * score) / sum(weights). Scores
    of all channels together are in physical units if all channels have the same
    `scale`; else in model units.

    Attributes:
        size: number of members, m.
        names: of the channels.
        scale: physical units per model unit, of each channel.
        offset: physical value of the model value 0, of each channel.
        weights: broadcastable to a target `[k, h, w, c]`, non-negative; None: equal.
            Values where the weight is 0 have no effect, not even NaN.
        events: that have probabilities.
        drawn: whether members are independent draws of one distribution, so that
            "crps", "brier", "spread" and "ratio" are corrected for their number; False:
            they are the distribution itself, such as quantiles.

    Raises:
        ValueError: for numbers that do not go together.
    """

    size: int
    names: tuple[str, ...] = ("value",)
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    weights: np.ndarray | None = None
    events: tuple[Event, ...] = ()
    drawn: bool = True

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"size={self.size}: expected at least one member")
        if not len(self.names) == len(self.scale) == len(self.offset):
            raise ValueError(
                f"names={self.names}, scale={self.scale} and offset={self.offset} "
                "differ in length; expected one of each for every channel"
            )
        check_weights(self.weights)

    def init(self) -> State:
        """State of no examples."""
        bins = self.size + 1
        return {
            "moments": sums.empty_table(MOMENTS, len(self.names)),
            "ranks": sums.empty_table(("ranks",), bins),
            "events": sums.empty_table(("said", "came"), len(self.events), bins),
        }

    def update(self, state: State, members, batch) -> State:
        """Adds a batch, without padding and unobserved values.

        Args:
            state: of the examples so far.
            members: `[m, b, k, h, w, c]` in model units.
            batch: as for other metrics (`metrics.contract`).
        """
        return self.add(state, self.terms(members, batch))

    def add(self, state: State, terms: Mapping[str, jax.Array]) -> State:
        """Adds the examples that `terms` are of."""
        total = {name: jnp.sum(x, axis=0) for name, x in terms.items()}
        parts = {
            "moments": {name: total[name] for name in MOMENTS},
            "ranks": {"ranks": total["ranks"]},
            "events": {name: total[name] for name in ("said", "came")},
        }
        return {key: sums.add_to_table(state[key], x) for key, x in parts.items()}

    def terms(self, members, batch) -> dict[str, jax.Array]:
        """What every example adds to the sums.

        Args:
            members, batch: as for `update`.

        Returns:
            `[b, k, c]`: weighted means over the cells of a frame of "absolute", the
            mean |x_j - y|; "distance", the mean |x_j - x_k| of different members;
            "variance" of the members, unbiased if they are drawn; "squared", of the
            error of their mean; and "weight". `[b, k, m + 1]`: "ranks", the weight of
            the targets above 0, 1, ... m members, equally shared among the places
            between members that are equal to it. `[b, k, e, m + 1]`: "said", the weight
            of the forecasts in which 0, 1, ... m members have an event, and "came", of
            those where it was observed.
        """
        share, targets, members = self._counted(members, batch)
        if len(members) != self.size:
            raise ValueError(
                f"members={len(members)} were given: expected size={self.size}"
            )
        unbiased = int(self.drawn and self.size > 1)
        cells = {
            "absolute": jnp.mean(jnp.abs(members - targets), axis=0),
            "distance": mean_distance(members),
            "variance": jnp.var(members, axis=0, ddof=unbiased),
            "squared": jnp.square(jnp.mean(members, axis=0) - targets),
            "weight": jnp.ones_like(share),
        }
        found = {name: jnp.mean(share * x, axis=(2, 3)) for name, x in cells.items()}
        return found | self._counts(members, targets, share)

    def _counted(self, members, batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Weights and targets `[b, k, h, w, c]`, and members, 0 where nothing counts.

        Raises:
            ValueError: if shapes do not fit.
        """
        targets = jnp.asarray(batch["targets"], jnp.float32)
        sizes = check_array("targets", targets, "b k h w c", {"c": len(self.names)})
        check_array("members", members, "m b k h w c", sizes)
        keep, share = weighed(batch, self.weights)
        members = jnp.where(keep, jnp.asarray(members, jnp.float32), 0)
        return jnp.where(keep, share, 0), jnp.where(keep, targets, 0), members

    def gaussian_terms(self, parameters, batch) -> dict[str, jax.Array]:
        """`terms` of normal distributions.

        CRPS, spread and error are those of the distributions in closed form; ranks and
        events are those of `size` equally probable quantiles.

        Args:
            parameters: `[2, b, k, h, w, c]`, mean and standard deviation in model
                units.
            batch: as for `update`.
        """
        share, targets, (mean, std) = self._counted(parameters, batch)
        levels = (jnp.arange(self.size) + 0.5) / self.size
        quantiles = stats.norm.ppf(levels).reshape(-1, 1, 1, 1, 1, 1)
        exact = {
            "absolute": crps_gaussian(mean, std, targets),
            "distance": jnp.zeros_like(mean),
            "variance": std**2,
            "squared": jnp.square(mean - targets),
        }
        found = {name: jnp.mean(share * x, axis=(2, 3)) for name, x in exact.items()}
        return self.terms(mean + std * quantiles, batch) | found

    def _counts(self, members, targets, share) -> dict[str, jax.Array]:
        """ "ranks", "said" and "came", see `terms`."""
        scale = jnp.asarray(self.scale, jnp.float32)
        offset = jnp.asarray(self.offset, jnp.float32)
        below = jnp.sum(members < targets, axis=0)
        equal = jnp.sum(members == targets, axis=0)
        part = share / (equal + 1)
        said = [
            jnp.sum(event.happens(scale * members + offset), axis=0)
            for event in self.events
        ]
        came = [
            jnp.where(event.happens(scale * targets + offset), share, 0)
            for event in self.events
        ]

        def at(number):
            def mean(where, weight):
                return jnp.mean(jnp.where(where, weight, 0), axis=(2, 3, 4))

            here = (below <= number) & (number <= below + equal)

            def stacked(rows):
                return jnp.reshape(jnp.asarray(rows), (len(rows), *share.shape[:2]))

            return {
                "ranks": mean(here, part),
                "said": stacked([mean(x == number, share) for x in said]),
                "came": stacked(
                    [mean(x == number, y) for x, y in zip(said, came, strict=True)]
                ),
            }

        # One number of members after the other, so that memory hardly grows with it.
        found = jax.lax.map(at, jnp.arange(self.size + 1))
        patterns = {"ranks": "m b k -> b k m"}
        return {
            name: einops.rearrange(x, patterns.get(name, "m e b k -> b k e m"))
            for name, x in found.items()
        }

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return {key: sums.merge_tables(a[key], b[key]) for key in a}

    def compute(self, state: State) -> dict[str, Any]:
        """Scores over all examples; NaN if there were none.

        Returns:
            "crps" (fair if members are drawn), "crps_plain" of the members as they are,
            "spread" and "rmse", the roots of the mean variance and of the mean squared
            error of the mean, and "ratio", spread / rmse, which is 1 for reliable
            forecasts; each but "crps_plain" also with "_by_lead", `[k]`. With several
            channels also "crps_<name>" and "ratio_<name>", in physical units.
            "rank_histogram" `[m + 1]` sums to 1, also "_by_lead" `[k, m + 1]`.
            "events" by name: "brier" (fair if members are drawn), also "_by_lead";
            "brier_plain", which is "reliability" - "resolution" + "uncertainty"; and
            `[m + 1]` each, "probability", "frequency", how often the event followed,
            and "share" of the forecasts; "roc_area", also "_by_lead", and `[m + 2]`
            each the points of that curve, "hit_rate" and "false_alarm_rate" (`roc`).
        """
        tables = [sums.table_values(table) for table in state.values()]
        return self.of_sums({name: x for table in tables for name, x in table.items()})

    def of_sums(self, total: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """`compute` of sums of `terms` over examples, float64 `[k, ...]`."""
        scale = np.abs(np.asarray(self.scale, np.float64))
        unit = scale[0] if np.all(scale == scale[0]) else 1.0
        moments = {name: total[name] for name in MOMENTS}
        together = {name: x.sum(axis=1) for name, x in moments.items()}
        pooled = {name: x.sum() for name, x in together.items()}
        overall, by_lead = self._scores(pooled, unit), self._scores(together, unit)
        found: dict[str, Any] = {name: float(x) for name, x in overall.items()}
        found |= {
            f"{name}_by_lead": x.tolist()
            for name, x in by_lead.items()
            if name != "crps_plain"
        }
        if len(self.names) > 1:
            each = self._scores({n: x.sum(axis=0) for n, x in moments.items()}, scale)
            for name in ("crps", "ratio"):
                for channel, x in zip(self.names, each[name], strict=True):
                    found[f"{name}_{channel}"] = float(x)
        ranks = total["ranks"]
        found["rank_histogram"] = sums.ratio(ranks.sum(axis=0), ranks.sum()).tolist()
        found["rank_histogram_by_lead"] = sums.ratio(
            ranks, ranks.sum(axis=1, keepdims=True)
        ).tolist()
        found["events"] = {
            event.name: self._of_event(total["said"][:, i], total["came"][:, i])
            for i, event in enumerate(self.events)
        }
        return found

    def crps_of(self, terms: Mapping[str, np.ndarray]) -> np.ndarray:
        """ "crps" of every example, from `terms`: `[b, k]`, NaN without values."""
        scale = np.abs(np.asarray(self.scale, np.float64))
        unit = scale[0] if np.all(scale == scale[0]) else 1.0
        together = {n: np.asarray(terms[n], np.float64).sum(axis=2) for n in MOMENTS}
        return self._scores(together, unit)["crps"]

    def _scores(self, total: Mapping[str, Any], unit: Any) -> dict[str, np.ndarray]:
        """Scores of sums, whatever they are summed over."""
        absolute, distance, variance, squared = (
            sums.ratio(total[name], total["weight"]) for name in MOMENTS[:-1]
        )
        m = self.size
        plain = absolute - distance * (m - 1) / m / 2
        spread, rmse = np.sqrt(variance), np.sqrt(squared)
        # The mean of m draws is itself uncertain, by 1 / m of the variance.
        correction = np.sqrt((m + 1) / m) if self.drawn else 1.0
        return {
            "crps": unit * (absolute - distance / 2 if self.drawn else plain),
            "crps_plain": unit * plain,
            "spread": unit * spread,
            "rmse": unit * rmse,
            "ratio": correction * sums.ratio(spread, rmse),
        }

    def _of_event(self, said: np.ndarray, came: np.ndarray) -> dict[str, Any]:
        """Scores of an event from `[k, m + 1]` sums."""
        pooled, happened = said.sum(axis=0), came.sum(axis=0)
        parts = brier_parts(pooled, happened)
        plain, by_lead = parts.pop("brier"), brier_parts(said, came)["brier"]
        curve = roc(pooled, happened)
        return {
            "brier": float(plain - self._luck(pooled)),
            "brier_plain": float(plain),
            **{name: float(x) for name, x in parts.items()},
            "brier_by_lead": (by_lead - self._luck(said)).tolist(),
            "probability": np.linspace(0, 1, len(pooled)).tolist(),
            "frequency": sums.ratio(happened, pooled).tolist(),
            "share": sums.ratio(pooled, pooled.sum()).tolist(),
            "roc_area": float(curve["area"]),
            "roc_area_by_lead": roc(said, came)["area"].tolist(),
            "hit_rate": curve["hit_rate"].tolist(),
            "false_alarm_rate": curve["false_alarm_rate"].tolist(),
        }

    def _luck(self, said: np.ndarray) -> np.ndarray:
        """What a finite number of draws adds to a Brier score (Ferro 2014)."""
        if not self.drawn or self.size == 1:
            return np.zeros(said.shape[:-1])
        share = np.linspace(0, 1, self.size + 1)
        variance = share * (1 - share) / (self.size - 1)
        return sums.ratio((said * variance).sum(axis=-1), said.sum(axis=-1))
