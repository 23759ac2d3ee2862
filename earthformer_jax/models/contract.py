"""What training, forecasting and reports expect of a model."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import jax

# {"params": ..., "batch_stats": ...}, as Flax has them.
Variables = Mapping[str, Any]


class Forecaster(Protocol):
    """A Flax module that maps inputs to a forecast.

    Inputs are `[b, t, h, w, c_in]`, forecasts `[b, k, h, w, c_out]` float32. Further
    loss terms are sown into `losses`, what a reader may want to see into
    `intermediates`; batch statistics live in `batch_stats`. Training gives the rngs
    `dropout` and `sampling`.
    """

    def __call__(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """The forecast; only inside `init` or `apply`."""
        ...

    def init(self, rngs: Any, *args: Any, **kwargs: Any) -> Variables:
        """Initial variables, see `flax.linen.Module.init`."""
        ...

    def apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """Calls the module with its variables, see `flax.linen.Module.apply`."""
        ...


class NamedForecaster(Forecaster, Protocol):
    """A forecaster that `create_model` can make from the shapes of an example.

    Attributes:
        input_shape: (T, H, W, C_in).
        target_shape: (K, H, W, C_out).
    """

    input_shape: tuple[int, int, int, int]
    target_shape: tuple[int, int, int, int]

    def check(self) -> None:
        """Raises ValueError for inconsistent shapes or options."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """A model that also maps inputs to embeddings."""

    def embed(self, inputs: jax.Array, *, train: bool = False) -> jax.Array:
        """Embeddings `[b, t, d]` of inputs `[b, t, h, w, c_in]`."""
        ...


@runtime_checkable
class Pupil(Protocol):
    """A model that may learn with scheduled sampling or teacher forcing.

    Attributes:
        uses_targets: whether training calls it with `targets` `[b, k, h, w, c_out]`
            and `step`, the number of optimiser steps taken.
    """

    uses_targets: bool


def uses_targets(model: Forecaster) -> bool:
    """Whether the model is given the targets in training."""
    return isinstance(model, Pupil) and model.uses_targets
