"""Sums of a climate index: for its correlation and error by lead time."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from earthformer_jax.metrics.batches import as_pair, valid_of

# Forecast and batch to an index forecast and observed, `[b, k]`, NaN where unknown.
Indices = Callable[..., tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class IndexSums:
    """Sums of an index over the examples of which it is known.

    With p forecast and t observed, for every example, lead time and definition of the
    index: "count" 1, "forecast" p, "target" t, "forecast_squared" p^2,
    "target_squared" t^2 and "product" p t; all 0 where t is NaN.

    Each is a product of two float32 and nothing is centred: the index has to be an
    anomaly, whose mean is not large against its spread.

    Sums are `[b, k, months]` float32.

    Attributes:
        indices: by the number of months that the index is a mean of, a function of a
            forecast `[b, k, h, w, c]` and a batch to the index forecast and observed,
            `[b, m]` with m at most k: the later lead times have none.

    Raises:
        ValueError: if there are none.
    """

    indices: Mapping[int, Indices]

    names = (
        "count",
        "forecast",
        "target",
        "forecast_squared",
        "target_squared",
        "product",
    )
    dtype = jnp.float32

    def __post_init__(self):
        if not self.indices:
            raise ValueError("indices={}: expected at least one")

    @property
    def coords(self) -> dict[str, tuple]:
        return {"months": tuple(self.indices)}

    def __call__(self, forecast, batch) -> dict[str, jax.Array]:
        leads = as_pair(forecast, batch["targets"])[0].shape[1]
        valid = valid_of(batch)[:, None]
        columns = []
        for both in self.indices.values():
            p, t = (jnp.asarray(x, jnp.float32) for x in both(forecast, batch))
            keep = valid & ~jnp.isnan(t)
            p, t = jnp.where(keep, p, 0), jnp.where(keep, t, 0)
            column = jnp.stack([keep.astype(jnp.float32), p, t, p * p, t * t, p * t])
            rest = leads - column.shape[2]
            columns.append(jnp.pad(column, ((0, 0), (0, 0), (0, rest))))
        return dict(zip(self.names, jnp.stack(columns, axis=-1), strict=True))
