"""Losses that compare every cell with its target, whatever the cells around it are."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.losses.cells import errors, magnitude, weighted_mean


@dataclasses.dataclass(frozen=True)
class SquaredError:
    """Mean squared error; its best forecast is the conditional mean."""

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
        error = errors(forecast, targets, weights, observed)
        return weighted_mean(jnp.square(error), weights)


@dataclasses.dataclass(frozen=True)
class AbsoluteError:
    """Mean absolute error; its best forecast is the conditional median.

    The gradient where a forecast is exact is 0.
    """

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
        error = errors(forecast, targets, weights, observed)
        return weighted_mean(magnitude(error), weights)
