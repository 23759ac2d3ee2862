"""Several trained copies of one model, whose mean is the forecast."""

from typing import Any

import jax
from flax import linen as nn

from earthformer_jax.checks import check_value
from earthformer_jax.settings import at_least

MEMBER = "member"  # name of the stacked variables in every collection


class Ensemble(nn.Module):
    """The mean of the forecasts of models that differ in their variables alone.

    Every variable is that of the member with a further first axis `[n]`. Members
    forecast one after the other, so that memory hardly grows with their number. An
    ensemble is not trained itself: its members are.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out).
        member: a forecaster for these shapes.
        size: number of members, n.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    member: Any
    size: int

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes or options."""
        check_value("ensemble", self.size, at_least(2))
        self.member.check()

    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Float32 forecast `[b, K, H, W, C_out]` of inputs `[b, T, H, W, C_in]`.

        Raises:
            ValueError: with `train`.
        """
        return self.members(inputs, train=train).mean(axis=0)

    def members(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Float32 forecasts `[n, b, K, H, W, C_out]` of inputs `[b, T, H, W, C_in]`.

        Raises:
            ValueError: with `train`.
        """
        if train:
            raise ValueError("an ensemble is not trained itself; train its members")

        def forecast(member, carry, _):
            return carry, member(inputs, train=False)

        one_by_one = nn.scan(
            forecast,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True, "sampling": True},
            length=self.size,
        )
        return one_by_one(self.member, (), None)[1]
