"""What training, forecasting and reports expect of a model."""

from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

import jax
import jax.typing

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


class Draws(Protocol):
    """A model that draws many forecasts of the same inputs.

    Its `__call__` gives one forecast, the best that it can make of them. In training
    it may give members `[m, b, k, h, w, c]`.

    Attributes:
        draws: True.
    """

    draws: bool

    def members(
        self,
        inputs: jax.Array,
        size: int,
        *,
        first: jax.typing.ArrayLike = 0,
        seen: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """Float32 members `[size, b, k, h, w, c]` of inputs `[b, t, h, w, c_in]`.

        Without `train` a member is a function of its number, the inputs of its window
        and the model's options: the first n of a larger number are the same n.

        Args:
            inputs: of the forecasts.
            size: number of members.
            first: number of the first of them, an integer that may be traced.
            seen: `[b, ...]`, from whose values follows what is drawn; None: from those
                of the inputs. Inputs that were computed, as forecasts that are fed
                back, differ in their last digits from device to device.
            train: whether the members are for training; they are drawn anew then.
        """
        ...


@runtime_checkable
class Tokenizer(Protocol):
    """A model that restores frames from maps of codes.

    Attributes:
        codebook_size: number of codes, Q.
        factor: height and width of a frame, divided by those of a map of codes.
    """

    codebook_size: int
    factor: int

    def encode(self, frames: jax.Array) -> jax.Array:
        """Codes, int32 `[b, t, h, w]` from 0 to Q - 1, of frames `[b, t, H, W, c]`."""
        ...

    def decode(self, codes: jax.Array) -> jax.Array:
        """Frames, float32 `[b, t, H, W, c]`, from codes `[b, t, h, w]`."""
        ...


@runtime_checkable
class Pupil(Protocol):
    """A model that may learn with scheduled sampling or teacher forcing.

    Training then calls it with these arguments besides `train=True`:

        targets: `[b, k, h, w, c_out]`; values without weight may be anything, even NaN.
        weights: of the targets in the loss, broadcastable to them; the mean over the
            field is 1, and unknown targets have 0. None: all have weight 1.
        input_weights: the same for the first c_out channels of the inputs.
        step: int32, the optimiser steps taken so far.
        total_steps: planned length of the training, an integer.

    Attributes:
        uses_targets: whether training does so.
    """

    uses_targets: bool

    def teaching_probability(self, step: Any, total_steps: int | None) -> jax.Array:
        """Probability that a true frame is read in place of a forecast one."""
        ...


def draws(model: Forecaster) -> bool:
    """Whether the model `Draws` forecasts (an `Ensemble` has a fixed number)."""
    return bool(getattr(model, "draws", False))


def uses_targets(model: Forecaster) -> bool:
    """Whether the model is given the targets in training."""
    return bool(getattr(model, "uses_targets", False))


def own_loss(model: Forecaster) -> bool:
    """Whether all that the model learns from are terms that it sows into `losses`.

    Such a model has the class attribute `own_loss = True`.
    """
    return bool(getattr(model, "own_loss", False))


def validates_own_loss(model: Forecaster) -> bool:
    """Whether the model tells its own loss of examples that it does not learn from.

    It then has a method `validation_loss(inputs, targets, weights) -> [b]`.
    """
    return own_loss(model) and hasattr(model, "validation_loss")


def trains_members(model: Forecaster) -> bool:
    """Whether a call with `train=True` gives members `[m, b, k, h, w, c_out]`.

    A model that draws does, unless its loss is its own.
    """
    return draws(model) and not own_loss(model)


def members_of_mean(model: Forecaster) -> int:
    """The number of first members that the forecast is the mean of.

    Args:
        model: that is trained with members (`trains_members`); it has this number as
            its attribute `mean_of`.
    """
    return cast(Any, model).mean_of


def final_teaching(model: Forecaster, total_steps: int) -> float:
    """Probability of true frames in the last step of a training; 0 for most models."""
    if not uses_targets(model) or not isinstance(model, Pupil):
        return 0.0
    return float(model.teaching_probability(total_steps - 1, total_steps))
