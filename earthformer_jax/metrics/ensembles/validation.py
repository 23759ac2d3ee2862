"""Scores of members for validation: those of their mean, and how they are spread."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.batches import weighed
from earthformer_jax.metrics.contract import Metric, Scores, State
from earthformer_jax.metrics.ensembles.crps import crps

CRPS = "crps"  # name of the score


@dataclasses.dataclass(frozen=True, eq=False)
class MembersAndMean:
    """A metric of the mean of members, and "crps", the fair one of the members.

    The error of a mean says nothing about the spread around it, and the CRPS does. It
    is the weighted mean over all observed values, in model units, as the loss.

    Attributes:
        of_mean: metric of the mean.
        weights: of the cells, broadcastable to a target `[k, h, w, c]`, non-negative.
    """

    of_mean: Metric
    weights: np.ndarray

    def init(self) -> State:
        """State of no examples."""
        empty = {CRPS: sums.empty_sum(), "weight": sums.empty_sum()}
        return {"mean": self.of_mean.init(), "members": empty}

    def update(
        self, state: State, forecast: jax.Array, batch: Mapping[str, jax.Array]
    ) -> State:
        """Adds a batch of members `[m, b, k, h, w, c]` in model units."""
        targets = jnp.asarray(batch["targets"], jnp.float32)
        keep, share = weighed(batch, self.weights)
        share = jnp.where(keep, share, 0)
        score = crps(jnp.where(keep, forecast, 0), jnp.where(keep, targets, 0))
        new = {CRPS: jnp.mean(share * score), "weight": jnp.mean(share)}
        sizes = jnp.float32(len(targets))
        members = {
            name: sums.add(state["members"][name], sizes * x) for name, x in new.items()
        }
        mean = self.of_mean.update(state["mean"], jnp.mean(forecast, axis=0), batch)
        return {"mean": mean, "members": members}

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        members = {
            name: sums.merge(a["members"][name], b["members"][name])
            for name in a["members"]
        }
        return {"mean": self.of_mean.merge(a["mean"], b["mean"]), "members": members}

    def compute(self, state: State) -> Scores:
        """The scores of the mean, and "crps"; NaN if there were no examples."""
        members = state["members"]
        score = sums.ratio(sums.value(members[CRPS]), sums.value(members["weight"]))
        return {**self.of_mean.compute(state["mean"]), CRPS: float(score)}
