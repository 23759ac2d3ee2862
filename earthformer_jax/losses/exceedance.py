"""Errors that count more where more is observed: rare and strong events."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.checks import each
from earthformer_jax.losses.cells import PerCell, magnitude
from earthformer_jax.settings import (
    FINITE,
    NOT_NEGATIVE,
    POSITIVE,
    ConfigError,
    setting,
)

# A value that was normalised and back may have lost its last bits: it is still an event
# at its own threshold. In units of `scale`.
ROUNDING = 1e-5


@dataclasses.dataclass(frozen=True)
class BalancedError(PerCell):
    """B-MSE: the squared error, times a factor that grows with the observed value.

    The factor of a cell is that of the highest threshold that its target reaches, and 1
    below the first. It multiplies the weight of the cell and is not normalised, as in
    the source: the loss is that of `mse` where no threshold is reached.

    HKO-7's own are thresholds of 2, 5, 10 and 30 mm/h with factors of the same values,
    and training there minimises the sum of B-MSE and B-MAE (absolute=1, of errors in
    the units of the model).

    Attributes:
        thresholds: rising, in the units that the data are shown in.
        factors: one for each threshold; empty (default): 2, 4, 8, ..., doubled at
            each.
        absolute: share of the absolute error (B-MAE) that is added to the squared one.
        scale: shown value = scale * model value + offset; one number, or one for each
            channel.
        offset: see `scale`.

    Reference:
        Shi et al. 2017, Deep learning for precipitation nowcasting: a benchmark and a
        new model, https://arxiv.org/abs/1706.03458, section 3.3.
    """

    thresholds: tuple[float, ...] = setting((), each(FINITE))
    factors: tuple[float, ...] = setting((), each(POSITIVE))
    absolute: float = setting(0.0, NOT_NEGATIVE)
    scale: tuple[float, ...] = setting((1.0,), each(POSITIVE))
    offset: tuple[float, ...] = setting((0.0,), each(FINITE))

    def check(self) -> None:
        """Refuses thresholds that do not rise, and another number of factors.

        Raises:
            ConfigError: naming them.
        """
        thresholds, factors = self.thresholds, self.factors
        if not thresholds or list(thresholds) != sorted(set(thresholds)):
            raise ConfigError(
                f"thresholds={thresholds}: expected at least one, each above the one "
                "before"
            )
        if factors and len(factors) != len(thresholds):
            raise ConfigError(
                f"factors={factors}: expected one for each of the {len(thresholds)} "
                "thresholds, or none"
            )

    def of_cells(self, error: jax.Array, targets: jax.Array) -> jax.Array:
        """The loss of each cell; see `PerCell`."""
        loss = jnp.square(error)
        if self.absolute:
            loss += self.absolute * magnitude(error)
        return self.factor(targets) * loss

    def factor(self, targets: jax.Array) -> jax.Array:
        """Factors of targets `[..., c]`, of the same shape; 1 for NaN."""
        scale, offset = (np.asarray(x, np.float32) for x in (self.scale, self.offset))
        shown = scale * targets + offset
        factor = jnp.ones_like(shown)
        factors = self.factors or [2.0 ** (i + 1) for i in range(len(self.thresholds))]
        for threshold, above in zip(self.thresholds, factors, strict=True):
            factor = jnp.where(shown >= threshold - ROUNDING * scale, above, factor)
        return factor
