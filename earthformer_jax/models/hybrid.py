"""A network that corrects a simple forecast, and begins as that forecast."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from earthformer_jax.models.contract import Forecaster, uses_targets
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.models.probabilistic import Probabilistic


class Hybrid(nn.Module):
    """The forecast base(inputs) + gain * network(inputs).

    The gain, a parameter `[K, 1, 1, C_out]` for every lead and channel, begins at 0: an
    untrained hybrid is its base. It decays with the other weights, that is towards the
    base. The constants of the base are in the collection `batch_stats` and do not
    change in training.

    A network that learns with scheduled sampling or teacher forcing does so with its
    own frames alone, since what it forecasts here are departures from the base and no
    true frames. Terms that such a network adds to the loss, which compare its frames
    with true ones, are left out for the same reason.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out).
        network: a forecaster for these shapes.
        base: one of `models.bases` for these shapes.
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]
    network: Any
    base: Any

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes or options."""
        self.network.check()
        self.base.check()

    @nn.compact
    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Float32 forecast `[b, K, H, W, C_out]` of inputs `[b, T, H, W, C_in]`."""
        steps, *_, channels = self.target_shape
        zeros = nn.initializers.zeros
        gain = self.param("gain", zeros, (steps, 1, 1, channels), jnp.float32)
        learns = train and not uses_targets(self.network)
        return self.base(inputs) + gain * self.network(inputs, train=learns)


def network_of(model: Forecaster) -> Forecaster:
    """What learns in a model: the network inside members, noise and hybrids."""
    if isinstance(model, Ensemble):
        model = model.member
    if isinstance(model, Probabilistic):
        model = model.network
    return model.network if isinstance(model, Hybrid) else model
