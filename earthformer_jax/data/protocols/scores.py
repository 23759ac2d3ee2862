"""The scores of events that a protocol defines, in place of those of the data set."""

import dataclasses
import functools

import numpy as np

from earthformer_jax.data.normalization import Affine, Normalization
from earthformer_jax.data.protocols.definition import MEAN, Protocol, Scoring
from earthformer_jax.data.task import Task
from earthformer_jax.metrics.contract import Scores, State
from earthformer_jax.metrics.precipitation import FULL_SCALE
from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.scores.published import FRACTIONS, fraction, log_bias
from earthformer_jax.metrics.statistics.contingency import Contingency
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.verification import LOWER, Score, Verification


def verified(scoring: Scoring, scale: float, offset: float) -> Verification:
    """Counts and errors, and the scores of a protocol.

    Scores of events have the axes ("threshold", "pool"); those of errors, in
    code / 255, have none. The same with "_by_lead" have the axis "lead" as well.

    Args:
        scoring: of the protocol.
        scale, offset: code = scale * model value + offset.
    """
    by_lead = scoring.leads == MEAN
    over = functools.partial(
        Score,
        add=() if by_lead else ("lead",),
        mean=("lead",) if by_lead else (),
    )
    errors = {"mse": continuous.mse, "mae": continuous.mae}
    made = {n: over("errors", f, LOWER) for n, f in errors.items()}
    made["mse_by_lead"] = Score("errors", continuous.mse, LOWER)
    for name in FRACTIONS:
        # The reference implementation adds nothing to a plain frequency bias.
        plain = name == "bias" and not by_lead
        epsilon = (0.0, 0.0) if plain else scoring.epsilon
        function = functools.partial(fraction, name=name, epsilon=epsilon)
        if name == "bias" and by_lead:
            function = functools.partial(log_bias, epsilon=epsilon)
        made[name] = over("contingency", function)
    csi = functools.partial(fraction, name="csi", epsilon=scoring.epsilon)
    made["csi_by_lead"] = Score("contingency", csi)
    return Verification(
        statistics={
            "errors": Errors(scale=scale / FULL_SCALE),
            "contingency": Contingency(
                scoring.thresholds, scoring.pools, scale, offset
            ),
        },
        scores=made,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class EventScores:
    """The metric of a protocol for events above thresholds.

    Attributes:
        scoring: of the protocol.
        scale, offset: code = scale * model value + offset.
    """

    scoring: Scoring
    scale: float
    offset: float

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of the events, in codes."""
        return self.scoring.thresholds

    @functools.cached_property
    def verification(self) -> Verification:
        """The counts and errors, and scores with all their axes."""
        return verified(self.scoring, self.scale, self.offset)

    def init(self) -> State:
        """State of no examples."""
        return self.verification.init()

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch, without padding and unobserved values."""
        return self.verification.update(state, forecast, batch)

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return self.verification.merge(a, b)

    def compute(self, state: State) -> Scores:
        """Scores over all examples; NaN if there were none.

        Returns:
            "mse", "mae"; "csi_m", "csi_16", ..., "pod_m", "sucr_m", "bias_m", where
            "_m" is the mean over thresholds (thresholds that are never observed are
            left out of that of a plain bias); for other pools than 1 "csi_m_pool4";
            "csi_by_lead" (mean over thresholds) and "mse_by_lead", `[k]`.
        """
        made = self.verification
        sums = made.sums(state)
        known = bool(np.any(sums["errors"]["weight"]))
        events = {n: made.value(n, sums) for n in FRACTIONS}
        if self.scoring.leads == MEAN:
            events["bias"] = 2 ** events["bias"]
        if not known:
            events = {n: np.full_like(x, np.nan) for n, x in events.items()}
        found: Scores = {n: float(made.value(n, sums)) for n in ("mse", "mae")}
        for p, pool in enumerate(self.scoring.pools):
            end = "" if pool == 1 else f"_pool{pool}"
            found[f"csi_m{end}"] = float(np.mean(events["csi"][:, p]))
        for m, threshold in enumerate(self.scoring.thresholds):
            found[f"csi_{threshold:g}"] = float(events["csi"][m, 0])
        for name in ("pod", "sucr", "bias"):
            of_cells = events[name][:, 0]
            defined = of_cells[~np.isnan(of_cells)]
            found[f"{name}_m"] = float(np.mean(defined)) if defined.size else np.nan
        curve = np.mean(made.value("csi_by_lead", sums)[..., 0], axis=-1)
        seen = sums["errors"]["weight"] > 0
        found["csi_by_lead"] = np.where(seen, curve, np.nan).tolist()
        found["mse_by_lead"] = made.value("mse_by_lead", sums).tolist()
        return found


def scored_by(task: Task, protocol: Protocol, units: Normalization) -> Task:
    """A task whose forecasts are scored as a protocol says.

    Args:
        task: of the data set.
        protocol: that the data follow; only one with events changes the scores.
        units: the conversion between codes and model units.
    """
    scoring = protocol.scoring
    if scoring is None or not scoring.thresholds:
        return task
    assert isinstance(units, Affine)
    metric = EventScores(scoring, units.scale, units.offset)
    csi = metric.verification.scores["csi"]
    where = {"threshold": scoring.thresholds, "pool": scoring.pools}
    mean = (*csi.mean, "threshold")
    scores = {"csi_m": dataclasses.replace(csi, where=where, mean=mean)}
    kept = task.verification
    verification = dataclasses.replace(kept, scores={**kept.scores, **scores})
    return dataclasses.replace(task, metric=metric, verification=verification)
