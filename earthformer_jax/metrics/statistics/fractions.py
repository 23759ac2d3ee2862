"""Sums of squared fractions of events in windows: for the fractions skill score."""

import dataclasses

import einops
import jax
import jax.numpy as jnp

from earthformer_jax.metrics.batches import as_pair, counted
from earthformer_jax.metrics.statistics.contingency import ROUNDING


@dataclasses.dataclass(frozen=True, eq=False)
class Fractions:
    """Fractions of windows that are covered by events, in forecasts and targets.

    An event is a value of at least the threshold; values are scale x + offset. Around
    every cell that counts lies a window of n x n cells. P and T are the numbers of
    cells in it with an event in the forecast and in the target, divided by n^2. For
    every example, lead time, threshold and n the sums over these windows are

        difference      (P - T)^2
        forecast        P^2
        target          T^2
        events          1 where the target has an event in the middle of the window
        cells           1

    What lies outside the frame has no event, in the forecast and in the target alike,
    and no window of its own. The same holds for cells that are not observed: leaving
    out the cells along a border gives the sums of the smaller frame. A forecast that is
    NaN is not an event. Channels are added.

    Sums are `[b, k, thresholds, windows]` float32.

    Attributes:
        thresholds: of the events, in the units of scale x + offset.
        windows: widths n in cells, odd; 1: the cells themselves.
        scale, offset: from model units.

    Raises:
        ValueError: if there are no thresholds or windows, or a width is not odd.

    Reference:
        Roberts and Lean 2008, "Scale-selective verification of rainfall accumulations
        from high-resolution forecasts of convective events".
    """

    thresholds: tuple[float, ...]
    windows: tuple[int, ...] = (1, 5, 17, 33, 65)
    scale: float = 1.0
    offset: float = 0.0

    names = ("difference", "forecast", "target", "events", "cells")
    dtype = jnp.float32

    def __post_init__(self):
        if not self.thresholds:
            raise ValueError("thresholds=() is empty; give at least one")
        if not self.windows or any(n < 1 or n % 2 == 0 for n in self.windows):
            raise ValueError(
                f"windows={self.windows}: expected odd widths of at least 1 cell"
            )

    @property
    def coords(self) -> dict[str, tuple]:
        return {"threshold": self.thresholds, "window": self.windows}

    def __call__(self, forecast, batch) -> dict[str, jax.Array]:
        pair = as_pair(forecast, batch["targets"])
        forecast, target, keep = (
            einops.rearrange(x, "b k h w c -> b k c h w")
            for x in (*pair, counted(batch))
        )
        forecast, target = (self.scale * x + self.offset for x in (forecast, target))

        def at(threshold):
            return self._at(forecast >= threshold, target >= threshold, keep)

        # One threshold after the other, so that memory does not grow with them.
        levels = jnp.asarray(self.thresholds, jnp.float32) - ROUNDING
        found = jax.lax.map(at, levels)
        return {n: jnp.moveaxis(x, 0, 2) for n, x in found.items()}

    def _at(self, forecast, target, keep) -> dict[str, jax.Array]:
        """Sums `[b, k, windows]` of events `[b, k, c, h, w]` at one threshold."""

        def total(x):
            return jnp.sum(jnp.where(keep, x, 0), axis=(2, 3, 4), dtype=jnp.float32)

        rows = {name: [] for name in self.names[:3]}
        for n in self.windows:
            # Half the memory, and so about half the time, where it holds the counts.
            dtype = jnp.int16 if n * n < 2**15 else jnp.int32
            p, t = (
                window_sums((x & keep).astype(dtype), n) for x in (forecast, target)
            )
            for name, x in zip(rows, (p - t, p, t), strict=True):
                rows[name].append(total((x.astype(jnp.float32) / n**2) ** 2))
        found = {name: jnp.stack(x, axis=-1) for name, x in rows.items()}
        counts = {"events": total(target), "cells": total(True)}
        shape = found["target"].shape
        return found | {
            name: jnp.broadcast_to(x[..., None], shape) for name, x in counts.items()
        }


def window_sums(x, size: int) -> jax.Array:
    """Sums over the windows around each cell, with zeros outside.

    Args:
        x: `[..., h, w]`, of a type that holds the sums.
        size: width of the windows, odd.

    Returns:
        like `x`.
    """
    return _along(_along(x, size, x.ndim - 2), size, x.ndim - 1)


def _along(x, size: int, axis: int) -> jax.Array:
    """Sums of `size` neighbours along an axis, in about 2 log2(size) additions.

    Sums of 1, 2, 4, ... neighbours are made of each other; those that are the binary
    digits of `size` are joined. Exact for whole numbers, unlike differences of
    cumulative sums in float32, and faster on CPUs.
    """
    length, half = x.shape[axis], size // 2
    edges = [(half, half) if i == axis else (0, 0) for i in range(x.ndim)]
    powers = jnp.pad(x, edges)  # sums of `width` neighbours from a cell on
    width, start, total = 1, 0, jnp.zeros_like(x)
    while True:
        if size & width:
            part = jax.lax.slice_in_dim(powers, start, start + length, axis=axis)
            total, start = total + part, start + width
        if 2 * width > size:
            return total
        end = powers.shape[axis]
        before = jax.lax.slice_in_dim(powers, 0, end - width, axis=axis)
        powers = before + jax.lax.slice_in_dim(powers, width, end, axis=axis)
        width *= 2
