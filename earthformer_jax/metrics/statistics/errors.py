"""Sums of errors: for bias, MSE, MAE, RMSE and PSNR."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics.batches import as_pair, check_names, check_weights, weighed
from earthformer_jax.metrics.statistics import cells


@dataclasses.dataclass(frozen=True, eq=False)
class Errors:
    """Sums of errors over the values that count.

    For every example and lead time, sums over cells (and over channels, if `variables`
    is empty) of

        error      w e
        squared    w e^2
        absolute   w |e|
        weight     w
        frames     w / (cells of a frame, or of a region)

    where e = scale (forecast - target) and w is 1 or the weight of the cell, divided by
    the mean of all weights. `squared / weight` is a mean over cells, and
    `squared / frames` a mean over frames of the sum over cells.

    Sums are `[b, k, *regions, *variables]` float32, without the axes that are empty.

    Attributes:
        variables: names of the channels, whose sums are kept apart; (): channels are
            added.
        scale: units of the errors per model unit, one for all channels or one for each.
        weights: broadcastable to a target `[k, h, w, c]`, non-negative; None: equal.
            Values where the weight is 0 have no effect, not even NaN.
        regions: bool `[h, w]` by name; they may overlap. {}: all cells.
        equal_examples: whether the weights of an example are divided by their sum over
            all its values that count, so that every example counts the same however
            much of it was observed; "frames" has no meaning then.

    Raises:
        ValueError: for numbers that do not go together.
    """

    variables: tuple[str, ...] = ()
    scale: float | tuple[float, ...] = 1.0
    weights: np.ndarray | None = None
    regions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    equal_examples: bool = False

    names = ("error", "squared", "absolute", "weight", "frames")
    dtype = jnp.float32

    def __post_init__(self):
        scales = np.size(self.scale)
        if np.ndim(self.scale) and self.variables and scales != len(self.variables):
            raise ValueError(
                f"scale={self.scale} has {scales} values for the "
                f"{len(self.variables)} channels {self.variables}"
            )
        check_weights(self.weights)

    @property
    def coords(self) -> dict[str, tuple]:
        found = {"region": tuple(self.regions), "variable": self.variables}
        return {name: values for name, values in found.items() if values}

    def __call__(self, forecast, batch) -> dict[str, jax.Array]:
        forecast, targets = as_pair(forecast, batch["targets"])
        check_names(targets, self.variables)
        keep, share = weighed(batch, self.weights)
        share = jnp.where(keep, share, 0)
        if self.equal_examples:
            total = jnp.sum(share, axis=(1, 2, 3, 4), keepdims=True)
            share = share / jnp.where(total > 0, total, 1)
        error = jnp.where(keep, forecast - targets, 0)
        error *= jnp.asarray(self.scale, jnp.float32)
        parts = {
            "error": share * error,
            "squared": share * error**2,
            "absolute": share * jnp.abs(error),
            "weight": share,
        }
        apart = bool(self.variables)
        found = {
            name: cells.total(x, self.regions, apart=apart) for name, x in parts.items()
        }
        sizes = cells.sizes(targets.shape[2:4], self.regions)
        sizes = sizes[..., None] if apart else sizes
        return found | {"frames": found["weight"] / jnp.asarray(sizes, jnp.float32)}
