"""Sums of structural similarity (SSIM)."""

import dataclasses

import jax
import jax.numpy as jnp

from earthformer_jax.metrics.batches import as_pair, check_names, counted
from earthformer_jax.metrics.statistics.ssim import has_ssim, ssim


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Sums of the SSIM of frames without unknown pixels, and the number of these.

    For every example and lead time (and added over channels, if `variables` is empty):

        ssim      sum of the similarity of frames of which every value counts
        frames    how many these are

    Similarity is that of `statistics.ssim.ssim`; both sums are 0 for frames smaller
    than its window.

    Sums are `[b, k]` float32, or `[b, k, variables]`.

    Attributes:
        data_range: highest minus lowest value possible, in model units, one for all
            channels or one for each.
        variables: names of the channels, whose sums are kept apart; (): channels are
            added.
    """

    data_range: float | tuple[float, ...] = 1.0
    variables: tuple[str, ...] = ()

    names = ("ssim", "frames")
    dtype = jnp.float32

    @property
    def coords(self) -> dict[str, tuple]:
        return {"variable": self.variables} if self.variables else {}

    def __call__(self, forecast, batch) -> dict[str, jax.Array]:
        forecast, targets = as_pair(forecast, batch["targets"])
        keep = counted(batch)
        b, k, height, width, channels = targets.shape
        check_names(targets, self.variables)
        if has_ssim(height, width):
            planes, true_planes = (jnp.moveaxis(x, -1, 2) for x in (forecast, targets))
            whole = jnp.all(keep, axis=(2, 3))  # [b, k, c]
            alike = ssim(planes, true_planes, jnp.asarray(self.data_range))
            found = {"ssim": jnp.where(whole, alike, 0), "frames": whole}
        else:
            nothing = jnp.zeros((b, k, channels))
            found = {"ssim": nothing, "frames": nothing}
        found = {name: jnp.asarray(x, jnp.float32) for name, x in found.items()}
        if self.variables:
            return found
        return {name: jnp.sum(x, axis=2) for name, x in found.items()}
