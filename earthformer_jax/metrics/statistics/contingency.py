"""Contingency tables of events: hits, misses, false alarms and correct negatives."""

import dataclasses
from collections.abc import Mapping

import einops
import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.metrics import sums
from earthformer_jax.metrics.batches import as_pair, counted
from earthformer_jax.metrics.statistics import cells

# A code that was normalised and back may have lost its last bit (16, with offset 33.44
# and scale 47.54, returns as 15.999998): it is still an event at its own threshold.
ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True, eq=False)
class Contingency:
    """Numbers of hits, misses, false alarms and correct negatives.

    An event is a value of at least the threshold; values are scale x + offset. With a
    pool of p the largest values of blocks of p x p cells are compared, so that an event
    is hit by a forecast of it in the same block. Forecast and target have the maximum
    over the same cells, those that count; a block without any does not count. Blocks
    begin at cell (0, 0), and those at the far borders may be smaller. Channels are
    added. A forecast that is NaN is not an event.

    Counts are `[b, k, *regions, thresholds, pools]` int32; without regions they are
    `[b, k, thresholds, pools]`. A region consists of its cells: a block counts there
    with the cells that it has in the region.

    Attributes:
        thresholds: of the events, in the units of scale x + offset.
        pools: widths of the blocks in cells; 1: the cells themselves.
        scale, offset: from model units.
        regions: bool `[h, w]` by name; they may overlap. {}: all cells.

    Raises:
        ValueError: without thresholds or pools, or for a pool below 1.
    """

    thresholds: tuple[float, ...]
    pools: tuple[int, ...] = (1,)
    scale: float = 1.0
    offset: float = 0.0
    regions: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    names = ("hits", "misses", "false_alarms", "correct_negatives")
    dtype = jnp.int32

    def __post_init__(self):
        if not self.thresholds:
            raise ValueError("thresholds=() is empty; give at least one")
        if not self.pools or min(self.pools) < 1:
            raise ValueError(f"pools={self.pools}: expected widths of at least 1 cell")

    @property
    def coords(self) -> dict[str, tuple]:
        regions = {"region": tuple(self.regions)} if self.regions else {}
        return regions | {"threshold": self.thresholds, "pool": self.pools}

    def __call__(self, forecast, batch) -> dict[str, jax.Array]:
        forecast, targets = as_pair(forecast, batch["targets"])
        if targets.size // targets.shape[1] > sums.MOST:
            raise ValueError(
                f"a batch of targets {list(targets.shape)} is too large to be counted; "
                f"take fewer examples, {sums.MOST} pixels per lead time at most"
            )
        forecast, targets = (self.scale * x + self.offset for x in (forecast, targets))
        keep = counted(batch)
        if not self.regions:
            return self._tables(forecast, targets, keep)
        cells.sizes(targets.shape[2:4], self.regions)
        each = [
            self._tables(forecast, targets, keep & np.asarray(mask)[..., None])
            for mask in self.regions.values()
        ]
        return {name: jnp.stack([x[name] for x in each], 2) for name in self.names}

    def _tables(self, forecast, targets, keep) -> dict[str, jax.Array]:
        """Counts `[b, k, thresholds, pools]` by name."""
        each = [
            self._table(*_pooled(forecast, targets, keep, pool)) for pool in self.pools
        ]
        return {name: jnp.stack([x[name] for x in each], -1) for name in self.names}

    def _table(self, forecast, targets, keep) -> dict[str, jax.Array]:
        """Counts `[b, k, thresholds]` by name."""

        def number(where):
            return jnp.sum(where & keep, axis=(2, 3, 4), dtype=jnp.int32)

        every = number(True)
        found: dict[str, list] = {name: [] for name in self.names}
        for threshold in self.thresholds:
            p, t = (x >= threshold - ROUNDING for x in (forecast, targets))
            row = [number(p & t), number(~p & t), number(p & ~t)]
            row.append(every - sum(row))
            for name, x in zip(self.names, row, strict=True):
                found[name].append(x)
        return {name: jnp.stack(x, axis=-1) for name, x in found.items()}


def _pooled(forecast, targets, keep, pool: int) -> tuple[jax.Array, ...]:
    """Largest values of blocks, of the cells that count, and the blocks that do."""
    if pool == 1:
        return forecast, targets, keep
    height, width = keep.shape[2:4]
    edges = [(0, 0), (0, 0), (0, -height % pool), (0, -width % pool), (0, 0)]

    def largest(x):
        known = jnp.pad(jnp.where(keep, x, -jnp.inf), edges, constant_values=-jnp.inf)
        pattern = "b k (h p) (w q) c -> b k h w c"
        return einops.reduce(known, pattern, "max", p=pool, q=pool)

    forecast, targets = largest(forecast), largest(targets)
    # No target is that small: where the maximum is, nothing counts.
    return forecast, targets, targets != -jnp.inf
