"""A trained model as a function, and how it is read from a workdir."""

import contextlib
import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import jax.typing
import ml_collections

from earthformer_jax.data.dataset import Data
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.checkpoint import Checkpoints, UnreadableError
from earthformer_jax.training.plan import make_plan
from earthformer_jax.training.settings import from_config


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model with the variables of a checkpoint: a function from inputs to forecasts.

    It can be composed with `jax.jit`, `jax.vmap` and `jax.grad` like any function.

    Attributes:
        model: the forecaster, a Flax module.
        variables: {"params": ...}, with "batch_stats" if the model has any. These are
            the averaged parameters if training kept an average.
        config: the whole config it was trained with.
        data: the data it was trained on: examples of every split, coordinates, and the
            conversion between model units and physical ones (`normalization`).
        step: number of optimiser steps after which the variables were saved.
        complete: False if training was interrupted; the same call resumes it.
    """

    model: Forecaster
    variables: Variables
    config: ml_collections.ConfigDict
    data: Data
    step: int
    complete: bool

    @functools.cached_property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape (t, h, w, c) of the inputs of one forecast."""
        return self.data.example()["inputs"].shape

    @functools.cached_property
    def target_shape(self) -> tuple[int, int, int, int]:
        """Shape (k, h, w, c) of one forecast."""
        return self.data.example()["targets"].shape

    def __call__(self, inputs: jax.typing.ArrayLike) -> jax.Array:
        """Forecasts from inputs; compiled once for each batch size.

        Args:
            inputs: `[b, t, h, w, c]` in the units the model sees, as in
                `data.test[0]["inputs"]`, without NaN.

        Returns:
            `[b, k, h, w, c]`, float32, in the units of the targets.

        Raises:
            ValueError: if the inputs differ in shape from those it was trained on.
        """
        inputs = jnp.asarray(inputs, jnp.float32)
        if inputs.ndim != 5 or not len(inputs) or inputs.shape[1:] != self.input_shape:
            raise ValueError(
                f"inputs have the shape {inputs.shape}; expected (batch, "
                f"{', '.join(map(str, self.input_shape))}): "
                "(batch, time, height, width, channel)"
            )
        return self._compiled(self.variables, inputs)

    def apply(self, inputs: jax.typing.ArrayLike) -> jax.Array:
        """The same as calling the trained model directly."""
        return self(inputs)

    @functools.cached_property
    def _compiled(self):
        return jax.jit(functools.partial(self.model.apply, train=False))


def restore(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    *,
    data: Data,
    model: Forecaster,
    like: Variables,
) -> TrainedModel:
    """Reads the checkpoint selected by `config.eval.checkpoint`.

    Args:
        config: the whole config.
        workdir: with checkpoints, unless the model has no parameters.
        data: what the model was trained on.
        model: the forecaster.
        like: shapes and types of its variables.

    Raises:
        CheckpointError: if no checkpoint can be used.
    """
    trained = functools.partial(TrainedModel, model=model, config=config, data=data)
    if not like["params"]:
        return trained(variables={"params": {}}, step=0, complete=True)
    checkpoints = Checkpoints(workdir / "checkpoints")
    everywhere = mesh_lib.replicated(mesh_lib.data_mesh())
    variables, progress = checkpoints.restore_variables(
        config.eval.checkpoint, mesh_lib.abstract(like, everywhere)
    )
    complete = False
    with contextlib.suppress(UnreadableError):
        newest = checkpoints.progress(checkpoints.steps()[-1])
        plan = make_plan(from_config(config).train, len(data.train))
        complete = plan.is_complete(newest)
    return trained(
        variables=jax.device_put(jax.device_get(variables)),
        step=progress.step,
        complete=complete,
    )
