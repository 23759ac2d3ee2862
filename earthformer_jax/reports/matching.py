"""CSI of forecasts that have the observed frequencies of events.

The CSI of two models cannot be compared while one of them forecasts events more often:
rankings change once each forecasts them as often as they are observed. The levels that
make it so are fitted on the validation split, for the model and for every reference,
and are applied to the test split.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.protocols.scores import EventScores
from earthformer_jax.data.source import Batch, Selected, Source
from earthformer_jax.data.task import Forecast, Task
from earthformer_jax.metrics.batches import counted
from earthformer_jax.metrics.calibration import matching
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.metrics.scores import categorical
from earthformer_jax.metrics.verification import NEAR_ONE, Score, Verification
from earthformer_jax.reports.verification.sums import BlockSums, Gatherer, together

EXAMPLES = 1000  # of the validation split, at most
SCORES = ("csi_m", "bias_m")  # and, after matching, each with "_matched"
STATISTIC = "matched"  # counts of events after matching


def of(
    task: Task,
    validation: Source,
    forecasts: Mapping[str, Forecast],
    batch_size: int,
    data: Data | None = None,
) -> "Matching | None":
    """What matches the forecasts of a task; None if there are no events to match.

    Args:
        task: whose metric has thresholds of rain.
        validation: examples to fit on.
        forecasts: by name; each maps a batch to `[b, k, h, w, c]` in model units.
        batch_size: examples per call of a forecast.
        data: whose test split is scored by blocks as well, if the task has a
            verification with events; None: it is not.
    """
    if not isinstance(task.metric, RainScores | EventScores) or not len(validation):
        return None
    made = _verification(task.verification)
    gatherer = None
    if data is not None and made.scores:
        gatherer = Gatherer(dataclasses.replace(task, verification=made), data)
    return Matching(task.metric, validation, forecasts, batch_size, gatherer)


def _verification(plain: Verification) -> Verification:
    """The scores after matching, of which sums are kept by block."""
    csi, statistic = plain.scores.get("csi_m"), plain.statistics.get("contingency")
    if csi is None or statistic is None:
        return Verification()
    scores = {"csi_m_matched": dataclasses.replace(csi, statistic=STATISTIC)}
    if "frequency_bias" in plain.scores:
        scores["bias_m_matched"] = Score(
            STATISTIC,
            categorical.frequency_bias,
            NEAR_ONE,
            add=("lead",),
            mean=("threshold",),
        )
    return Verification({STATISTIC: statistic}, scores)


class Matching:
    """Levels fitted on the validation split, and scores of the test split.

    Args:
        metric: with `thresholds`, and code = scale * model value + offset.
        validation: examples to fit on.
        forecasts: by name.
        batch_size: examples per call of a forecast.
        gatherer: of the sums of matched forecasts by block; None: they are not kept.
    """

    def __init__(
        self,
        metric: RainScores | EventScores,
        validation: Source,
        forecasts: Mapping[str, Forecast],
        batch_size: int,
        gatherer: Gatherer | None = None,
    ):
        self._gatherer = gatherer
        self._metric, self._update = metric, jax.jit(metric.update)
        self._thresholds = tuple(sorted(metric.thresholds))
        self.examples = min(len(validation), EXAMPLES)
        chosen = np.linspace(0, len(validation) - 1, self.examples).round()
        part = Selected(validation, chosen.astype(int))
        none = np.zeros((1, matching.BINS), np.int64)
        observed, counts = none, dict.fromkeys(forecasts, none)
        for batch in evaluation_batches(part, batch_size):
            keep = np.asarray(counted(batch))
            observed = observed + matching.counts(self._codes(batch["targets"]), keep)
            for name, forecast in forecasts.items():
                codes = self._codes(forecast(batch))
                counts[name] = counts[name] + matching.counts(codes, keep)
        self.levels = {
            name: matching.fit(x, observed, self._thresholds)
            for name, x in counts.items()
        }
        self._states = {name: metric.init() for name in forecasts}

    def watch(self, batch: Batch, fields: Mapping[str, Any]) -> None:
        """Adds a batch of the test split and its forecasts by name."""
        matched = {name: self._matched(name, field) for name, field in fields.items()}
        for name, field in matched.items():
            self._states[name] = self._update(self._states[name], field, batch)
        if self._gatherer is not None:
            self._gatherer.watch(batch, matched)

    def with_sums(self, sums: BlockSums) -> BlockSums:
        """The sums of forecasts, with those after matching if they were kept."""
        return sums if self._gatherer is None else together(sums, self._gatherer.sums())

    def add(self, scores: dict[str, Any]) -> None:
        """Adds scores after matching to those of every forecast, and the levels.

        Args:
            scores: what scores.json will hold.
        """
        for name, state in self._states.items():
            found = self._metric.compute(state)
            scores["forecasts"][name] |= {f"{x}_matched": found[x] for x in SCORES}
        scores["matching"] = {
            "split": "validation",
            "examples": self.examples,
            "thresholds": list(self._thresholds),
            "levels": {name: x.tolist() for name, x in self.levels.items()},
        }

    def _matched(self, name: str, field: Any) -> np.ndarray:
        codes = matching.apply(self._codes(field), self.levels[name], self._thresholds)
        units = (codes - self._metric.offset) / self._metric.scale
        return np.asarray(units, np.float32)

    def _codes(self, field: Any) -> np.ndarray:
        values = np.asarray(field, np.float32)
        return np.float32(self._metric.scale) * values + np.float32(self._metric.offset)


def note(scores: Mapping[str, Any]) -> list[str]:
    """What "matched" means, as a line below a table; [] if nothing was matched.

    Args:
        scores: what scores.json holds.
    """
    if "matching" not in scores:
        return []
    return [
        "_matched: each forecast with its events as frequent as observed, by levels "
        f"fitted on {scores['matching']['examples']} validation examples"
    ]
