"""A trained model as a function, and how it is read from a workdir."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.typing
import ml_collections

from earthformer_jax.data.dataset import Data, Dataset
from earthformer_jax.data.state import DataState
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
        state: what the workdir keeps of the data it was trained on: channels, units,
            grid, periods, statistics. None in workdirs of earlier versions.
        open_dataset: returns the data set of the config; it is called on first use of
            `data`.
        step: number of optimiser steps after which the variables were saved.
        complete: False if training was interrupted; the same call resumes it.
    """

    model: Forecaster
    variables: Variables
    config: ml_collections.ConfigDict
    state: DataState | None
    open_dataset: Callable[[], Dataset]
    step: int
    complete: bool

    @functools.cached_property
    def data(self) -> Data:
        """Examples of every split, coordinates, and the conversion between model units
        and physical ones (`normalization`). Reads the files of the config.
        """
        return self.open_dataset().data

    @functools.cached_property
    def input_shape(self) -> tuple[int, ...]:
        """Shape (t, h, w, c) of the inputs of one forecast."""
        if self.state is not None:
            return self.state.input_shape
        return self.data.example()["inputs"].shape

    @functools.cached_property
    def target_shape(self) -> tuple[int, ...]:
        """Shape (k, h, w, c) of one forecast."""
        if self.state is not None:
            return self.state.target_shape
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
    open_dataset: Callable[[], Dataset],
    state: DataState | None,
    model: Forecaster,
    like: Variables,
) -> TrainedModel:
    """Reads the checkpoint selected by `config.eval.checkpoint`.

    Args:
        config: the whole config.
        workdir: with checkpoints, unless the model has no parameters.
        open_dataset: returns the data set of the config.
        state: what the workdir keeps of the data it was trained on.
        model: the forecaster.
        like: shapes and types of its variables.

    Raises:
        CheckpointError: if no checkpoint can be used.
    """
    trained = functools.partial(
        TrainedModel, model=model, config=config, state=state, open_dataset=open_dataset
    )
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
        if state is not None:
            examples = state.examples["train"]
        else:
            examples = len(open_dataset().data.train)
        plan = make_plan(from_config(config).train, examples)
        complete = plan.is_complete(newest)
    return trained(
        variables=jax.device_put(jax.device_get(variables)),
        step=progress.step,
        complete=complete,
    )
