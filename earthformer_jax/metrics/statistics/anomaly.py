"""Sums of products of anomalies: for the anomaly correlation coefficient (ACC)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array
from earthformer_jax.metrics.batches import as_pair, check_names, check_weights, weighed

CLIMATOLOGY = "climatology"  # key of a batch


@dataclasses.dataclass(frozen=True, eq=False)
class Anomalies:
    """Sums of products of the anomalies of forecast and target.

    With anomalies f and o, departures from a climatology, and weights w of the cells,
    for every example, lead time and channel (or added over channels, if `variables` is
    empty):

        product        sum of w f o over the cells that count
        forecast       sum of w f^2
        target         sum of w o^2
        correlation    product / sqrt(forecast target) of this frame, 0 if undefined
        frames         1 if it is defined: neither anomaly is 0 everywhere

    Sums are `[b, k]` float32, or `[b, k, variables]`.

    Attributes:
        variables: names of the channels, whose sums are kept apart; (): channels are
            added, and the correlation is over all of them.
        center: the climatology in model units, one for all channels or one for each.
        by_batch: whether the climatology is `batch["climatology"]`, `[b, k, h, w, c]`
            in model units, instead.
        weights: broadcastable to a target `[k, h, w, c]`, non-negative; None: equal.
            Values where the weight is 0 have no effect, not even NaN.

    Raises:
        ValueError: if all weights are zero.
    """

    variables: tuple[str, ...] = ()
    center: float | tuple[float, ...] = 0.0
    by_batch: bool = False
    weights: np.ndarray | None = None

    names = ("product", "forecast", "target", "correlation", "frames")
    dtype = jnp.float32

    def __post_init__(self):
        check_weights(self.weights)

    @property
    def coords(self) -> dict[str, tuple]:
        return {"variable": self.variables} if self.variables else {}

    def __call__(self, forecast, batch) -> dict[str, jax.Array]:
        forecast, targets = as_pair(forecast, batch["targets"])
        check_names(targets, self.variables)
        keep, share = weighed(batch, self.weights)
        center = self._center(batch)
        f, o = (jnp.where(keep, x - center, 0) for x in (forecast, targets))
        axes = (2, 3) if self.variables else (2, 3, 4)
        found = {
            name: jnp.sum(share * x, axis=axes)
            for name, x in (("product", f * o), ("forecast", f * f), ("target", o * o))
        }
        # A product of roots: that of squares would be less than the smallest float32.
        size = jnp.sqrt(found["forecast"]) * jnp.sqrt(found["target"])
        known = size != 0  # true of NaN, which has to be seen
        return found | {
            "correlation": jnp.where(
                known, found["product"] / jnp.where(known, size, 1), 0
            ),
            "frames": known.astype(jnp.float32),
        }

    def _center(self, batch) -> jax.Array:
        if not self.by_batch:
            return jnp.asarray(self.center, jnp.float32)
        if CLIMATOLOGY not in batch:
            raise ValueError(
                f"the batch has no {CLIMATOLOGY!r}, which anomalies are departures "
                "from: give what Verification.prepare returns"
            )
        found = jnp.asarray(batch[CLIMATOLOGY], jnp.float32)
        sizes = dict(zip("bkhwc", jnp.shape(batch["targets"]), strict=True))
        check_array(CLIMATOLOGY, found, "b k h w c", sizes)
        return found
