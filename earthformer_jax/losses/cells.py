"""Means over the cells that count, in which unknown values have no effect.

Every cell has a weight that is known before training, and perhaps is unknown in some of
the examples. An unknown target counts as no error; it does not make the others count
more, so that the loss of a batch is the mean of those of its parts.
"""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import check_array


def where_known(
    weights: np.ndarray, observed: jax.Array | None
) -> np.ndarray | jax.Array:
    """Bool, True for the cells that count; broadcastable to `[b, k, h, w, c]`."""
    counts = weights > 0
    return counts if observed is None else counts & observed


def check_shapes(
    forecast: jax.Array,
    targets: jax.Array,
    observed: jax.Array | None,
    axes: str = "b t h w c",
) -> None:
    """Refuses arrays of other shapes than `Loss` says.

    Args:
        forecast: with `axes`.
        targets: `[b, t, h, w, c]`.
        observed: bool, like `targets`, or None.
        axes: names of the axes of the forecast.

    Raises:
        ValueError: naming the one that is not.
    """
    sizes = check_array("targets", targets, "b t h w c")
    check_array("forecast", forecast, axes, sizes)
    if observed is not None:
        check_array("observed", observed, "b t h w c", sizes, kind=bool)


def weighted_mean(values: jax.Array, weights: np.ndarray) -> jax.Array:
    """sum(weights * values) / (b * sum(weights over the field)).

    Args:
        values: `[b, k, h, w, c]`, 0 where nothing is known.
        weights: broadcastable to `[k, h, w, c]`.
    """
    normaliser = len(values) * np.broadcast_to(weights, values.shape[1:]).sum()
    return jnp.sum(weights * values) / normaliser


def magnitude(x: jax.Array) -> jax.Array:
    """|x| with the gradient 0 at x = 0, where that of `jnp.abs` is 1.

    Equal members of an ensemble would otherwise be driven apart in their order.
    """
    return x * jnp.sign(x)


class Masked(abc.ABC):
    """A loss of fields that are 0 wherever a target is unknown or does not count."""

    takes_members: ClassVar[bool] = False

    def __call__(
        self,
        forecast: jax.Array,
        targets: jax.Array,
        weights: np.ndarray,
        observed: jax.Array | None = None,
        *,
        key: Any = None,
        progress: jax.Array | None = None,
    ) -> jax.Array:
        """Scalar; arguments as in `losses.contract.Loss`."""
        axes = "m b t h w c" if self.takes_members else "b t h w c"
        check_shapes(forecast, targets, observed, axes)
        counts = where_known(weights, observed)
        # The mask is applied before anything is made of the values: a missing one (NaN)
        # must not reach the gradient, where 0 * NaN would be NaN.
        forecast, targets = (jnp.where(counts, x, 0) for x in (forecast, targets))
        return self.of_known(forecast, targets, weights, key, progress)

    @abc.abstractmethod
    def of_known(
        self,
        forecast: jax.Array,
        targets: jax.Array,
        weights: np.ndarray,
        key: Any,
        progress: jax.Array | None,
    ) -> jax.Array:
        """Scalar; arguments as in `losses.contract.Loss`, without unknown values."""


class PerCell(Masked):
    """A loss that is the weighted mean of something that each cell has by itself."""

    def of_known(self, forecast, targets, weights, key, progress) -> jax.Array:
        """Scalar; see `Masked`."""
        return weighted_mean(self.of_cells(forecast - targets, targets), weights)

    @abc.abstractmethod
    def of_cells(self, error: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of each cell.

        Args:
            error: `[b, k, h, w, c]`, forecast - target, 0 where the target is unknown.
            targets: `[b, k, h, w, c]`, 0 where they are unknown.

        Returns:
            `[b, k, h, w, c]`, 0 where the error is 0.
        """
