"""Losses that compare every cell with its target, whatever the cells around it are."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from earthformer_jax.losses.cells import PerCell, magnitude
from earthformer_jax.settings import POSITIVE, number, setting


@dataclasses.dataclass(frozen=True)
class SquaredError(PerCell):
    """Mean squared error; its best forecast is the conditional mean."""

    def of_cells(self, error: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of each cell; see `PerCell`."""
        return jnp.square(error)


@dataclasses.dataclass(frozen=True)
class AbsoluteError(PerCell):
    """Mean absolute error; its best forecast is the conditional median.

    The gradient where a forecast is exact is 0.
    """

    def of_cells(self, error: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of each cell; see `PerCell`."""
        return magnitude(error)


@dataclasses.dataclass(frozen=True)
class Huber(PerCell):
    """Squared error of small errors, absolute error of large ones.

    error^2 / 2 up to delta, delta (|error| - delta / 2) beyond, so that value and slope
    are continuous and single large errors count less than in the squared error.

    Attributes:
        delta: largest error that counts as small, in model units.

    Reference:
        Huber 1964, Robust estimation of a location parameter,
        https://doi.org/10.1214/aoms/1177703732.
    """

    delta: float = setting(1.0, POSITIVE)

    def of_cells(self, error: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of each cell; see `PerCell`."""
        return optax.losses.huber_loss(error, delta=self.delta)


@dataclasses.dataclass(frozen=True)
class Pinball(PerCell):
    """Error of a forecast quantile; its best forecast is the quantile of a level.

    level * (target - forecast) where the forecast is too low, and
    (1 - level) * (forecast - target) where it is too high. The one forecast of the
    model becomes the quantile of this one level; with 0.5 it is the median, and the
    loss half the absolute error.

    Attributes:
        level: probability that the target is below the forecast.

    Reference:
        Koenker and Bassett 1978, Regression quantiles,
        https://doi.org/10.2307/1913643.
    """

    level: float = setting(0.5, number("between 0 and 1", lambda value: 0 < value < 1))

    def of_cells(self, error: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of each cell; see `PerCell`."""
        return magnitude(error) / 2 + (0.5 - self.level) * error
