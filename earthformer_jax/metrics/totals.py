"""Totals of a statistic over examples: exact counts, and sums that stay accurate."""

import dataclasses

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

    def init(self) -> State:
        """Totals of no examples."""
        of = self.statistic
        shape = map(len, of.coords.values())
        return sums.empty_table(of.names, *shape, dtype=of.dtype)

    def update(self, state: State, forecast, batch) -> State:
        """Adds a batch; the arguments are those of `Metric.update`.

        Raises:
            ValueError: for more than `sums.MAX_LEADS` lead times.
        """
        of = self.statistic
        terms = of(forecast, batch)
        total = {n: jnp.sum(terms[n], axis=0, dtype=of.dtype) for n in of.names}
        return sums.add_to_table(state, total)

    def merge(self, a: State, b: State) -> State:
        """Totals of the examples of both."""
        return sums.merge_tables(a, b)

    def values(self, state: State) -> dict[str, np.ndarray]:
        """The totals on the host.

        Returns:
            by name `[k, *sizes]`, int64 if they are counts, else float64; k is 0 if
            there were no examples.
        """
        return sums.table_values(state)
