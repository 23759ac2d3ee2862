"""Totals of a statistic over examples: exact counts, and sums that stay accurate."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.contract import State, Statistic


@dataclasses.dataclass(frozen=True, eq=False)
class Totals:
    """The sums of a statistic, streamed over batches.

    The state has room for `sums.MAX_LEADS` lead times. Counts are exact up to 2**54;
    float32 sums keep their rounding errors.

    Attributes:
        statistic: what each example adds.
    """

    statistic: Statistic

    @property
    def _counts(self) -> bool:
        return jnp.dtype(self.statistic.dtype) == jnp.int32

    def init(self) -> State:
        """Totals of no examples."""
        shape = [len(self.statistic.coords[dim]) for dim in self.statistic.dims[1:]]
        empty = sums.empty_count if self._counts else sums.empty_sum
        return {
            "leads": jnp.zeros((), jnp.int32),
            "sums": {
                name: empty(sums.MAX_LEADS, *shape) for name in self.statistic.names
            },
        }

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch; the arguments are those of `Metric.update`."""
        return self.add(state, self.statistic(forecast, batch))

    def add(self, state: State, terms: Mapping[str, jax.Array]) -> State:
        """Adds examples.

        Args:
            state: of the examples so far.
            terms: `[b, k, *sizes]` by name, as the statistic gives them.

        Raises:
            ValueError: for more than `sums.MAX_LEADS` lead times.
        """
        add = sums.add_count if self._counts else sums.add
        dtype = jnp.dtype(self.statistic.dtype)
        leads = max(x.shape[1] for x in terms.values())
        return {
            "leads": jnp.maximum(state["leads"], leads),
            "sums": {
                name: add(
                    state["sums"][name],
                    sums.by_lead(jnp.sum(terms[name], axis=0, dtype=dtype)),
                )
                for name in self.statistic.names
            },
        }

    def merge(self, a: State, b: State) -> State:
        """Totals of the examples of both."""
        merge = sums.merge_counts if self._counts else sums.merge
        return {
            "leads": jnp.maximum(a["leads"], b["leads"]),
            "sums": {n: merge(x, b["sums"][n]) for n, x in a["sums"].items()},
        }

    def values(self, state: State) -> dict[str, np.ndarray]:
        """The totals on the host.

        Returns:
            by name `[k, *sizes]` with the axes `statistic.dims`, int64 if they are
            counts, else float64; k is 0 if there were no examples.
        """
        state = jax.device_get(state)
        value = sums.count if self._counts else sums.value
        leads = int(state["leads"])
        return {name: value(x)[:leads] for name, x in state["sums"].items()}
