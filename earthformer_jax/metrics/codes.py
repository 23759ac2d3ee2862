"""Scores of frames that were restored from codes, and how the codes are used."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.batches import valid_of
from earthformer_jax.metrics.contract import Metric, Scores, State


@dataclasses.dataclass(frozen=True, eq=False)
class RestorationScores:
    """Streaming scores of restored frames, "usage" and "perplexity".

    "usage" is the share of the codes that occur at all; "perplexity" is the exponential
    of the entropy of their frequencies, from 1 (always the same code) to the number of
    codes (all equally often).

    Attributes:
        frames: metric of the frames.
        codebook_size: number of codes.
    """

    frames: Metric
    codebook_size: int

    def init(self) -> State:
        """State of no examples."""
        return {
            "frames": self.frames.init(),
            "codes": sums.empty_count(self.codebook_size),
        }

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch with "codes", integers `[b, t, h, w]`, without its padding."""
        valid = valid_of(batch)[:, None, None, None]
        # Padding gets a number of its own, which is left out.
        codes = jnp.where(valid, batch["codes"], self.codebook_size)
        count = jnp.bincount(codes.ravel(), length=self.codebook_size + 1)[:-1]
        return {
            "frames": self.frames.update(state["frames"], forecast, batch),
            "codes": sums.add_count(state["codes"], count.astype(jnp.int32)),
        }

    def merge(self, a: State, b: State) -> State:
        """State of the examples of both."""
        return {
            "frames": self.frames.merge(a["frames"], b["frames"]),
            "codes": sums.merge_counts(a["codes"], b["codes"]),
        }

    def compute(self, state: State) -> Scores:
        """Scores over all examples; NaN if there were none."""
        scores = self.frames.compute(state["frames"])
        count = sums.count(state["codes"])
        total = count.sum()
        if total == 0:
            return scores | {"usage": np.nan, "perplexity": np.nan}
        share = count[count > 0] / total
        return scores | {
            "usage": float(np.mean(count > 0)),
            "perplexity": float(np.exp(-np.sum(share * np.log(share)))),
        }
