"""A run: a config and the workdir it is trained and scored in."""

import functools
import logging
import os
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from earthformer_jax import data, models, reports
from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.source import Example
from earthformer_jax.models.contract import Embedder, Forecaster, Variables
from earthformer_jax.profiling import summary
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import workdir as workdir_lib
from earthformer_jax.run.command_line import as_config_error
from earthformer_jax.run.trained import TrainedModel, restore
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import evaluation, loop
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import state as state_lib
from earthformer_jax.training.settings import check_dataset, check_devices

logger = logging.getLogger(__name__)


def load_data(config: ml_collections.ConfigDict) -> Dataset:
    """The data set of a config.

    Raises:
        ConfigError: with the reason, if it cannot be made.
    """
    with as_config_error(f"data {config.data.name!r}", "data", config.data):
        return data.load(config.data, config.seed)


def build(config: ml_collections.ConfigDict) -> tuple[Dataset, Forecaster]:
    """The data set and the model of a config.

    Raises:
        ConfigError: with the reason, if one of them cannot be made.
    """
    dataset = load_data(config)
    with as_config_error(f"data {config.data.name!r}", "data", config.data):
        example = dataset.data.example()
    options = config.model.to_dict()
    name = options.pop("name")
    with as_config_error(f"model {name!r}", "model", config.model):
        model = models.create_model(
            name,
            input_shape=example["inputs"].shape,
            target_shape=example["targets"].shape,
            **options,
        )
    with as_config_error(f"model {name!r}", "data", config.data):
        reports.check(dataset.task, model)
    return dataset, model


def check_model(
    config: ml_collections.ConfigDict, model: Forecaster, example: Example
) -> Variables:
    """Rejects a model that cannot forecast the targets of an example.

    Returns:
        shapes and types of the model's variables.

    Raises:
        ConfigError: with the reason.
    """
    name = config.model.name
    shape = example["inputs"].shape
    try:
        variables = state_lib.abstract_variables(model, shape)
        apply = functools.partial(model.apply, train=False)
        inputs = jax.ShapeDtypeStruct((1, *shape), np.float32)
        forecast = jax.eval_shape(apply, variables, inputs).shape[1:]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model {name!r}: {error}") from error
    if forecast != example["targets"].shape:
        raise ConfigError(
            f"model {name!r} forecasts {forecast} but the targets are "
            f"{example['targets'].shape} (time, height, width, channels)"
        )
    return variables


def summarize(config: ml_collections.ConfigDict) -> str:
    """The layers and costs of a config's model, as text.

    Raises:
        ConfigError: if the config, its data or its model cannot be used.
    """
    config_lib.check(config)
    dataset, model = build(config)
    example = dataset.data.example()
    shapes = example["inputs"].shape, example["targets"].shape
    return summary.describe(
        model, *shapes, f"{config.model.name} on {dataset.data.name}"
    )


class Run:
    """A config and its workdir: trains, scores, and reads the trained model.

    Data and model are created once, when they are first needed.

    Args:
        config: a config; fields it leaves out take their defaults.
        workdir: where everything is written; created by training.

    Raises:
        ConfigError: if the config has missing, unknown or invalid fields.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
    ):
        self.config = config_lib.completed(config)
        self._settings = config_lib.check(self.config)
        self.workdir = pathlib.Path(workdir)

    @classmethod
    def of(cls, workdir: str | os.PathLike[str]) -> "Run":
        """The run that a workdir was started with.

        Raises:
            ConfigError: if the workdir does not exist, or holds no usable config.
        """
        return cls(workdir_lib.read_config(pathlib.Path(workdir)), workdir)

    def train(self) -> bool:
        """Trains, or resumes training.

        Returns:
            Whether training is complete. False after SIGTERM or Ctrl-C: the same call
            then resumes it.

        Raises:
            ConfigError: if the data or the model cannot be used, or the workdir was
                started with another config. Nothing has been written then.
            CheckpointError: if checkpoints cannot be read or written.
            NonFiniteError: if the loss is no longer finite.
        """
        check_devices(self._settings, jax.device_count())
        workdir_lib.check_same_config(self.config, self.workdir)
        check_dataset(self._settings, self.dataset)
        return loop.train(
            self.config, self.workdir, dataset=self.dataset, model=self.model
        )

    def load(self) -> TrainedModel:
        """Reads the checkpoint that `config.eval.checkpoint` selects, best or last.

        Raises:
            ConfigError: if the data or the model cannot be used, or the workdir holds
                another model.
            CheckpointError: if no checkpoint can be used.
        """
        workdir_lib.check_same_model(self.config, self.workdir)
        dataset, model, like = self._built
        return restore(
            self.config, self.workdir, data=dataset.data, model=model, like=like
        )

    def evaluate(self) -> dict[str, Any]:
        """Scores the model read by `load` on the test split.

        Returns:
            What scores.json holds: {"data": {...}, "forecasts": {name: scores}}. In a
            multi-process job the first process scores, and the others get {}.

        Raises:
            ConfigError: as for `load`, or if the test split is empty.
            CheckpointError: if no checkpoint can be used.
        """
        check_devices(self._settings, jax.device_count())
        trained = self.load()
        if len(trained.data.test) == 0:
            raise ConfigError(f"the test split of {trained.data.name!r} is empty")
        logger.info("data: %s", trained.data.description)
        if trained.step:
            logger.info("scoring the checkpoint of step %d", trained.step)
        scores = {}
        if jax.process_index() == 0:
            scores = self._report(trained)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("scored")
        return scores

    @property
    def dataset(self) -> Dataset:
        """The data set of the config."""
        return self._built[0]

    @property
    def model(self) -> Forecaster:
        """The model of the config."""
        return self._built[1]

    @functools.cached_property
    def _built(self) -> tuple[Dataset, Forecaster, Variables]:
        """The checked data and model, and the shapes of the model's variables."""
        dataset, model = build(self.config)
        return dataset, model, check_model(self.config, model, dataset.data.example())

    def _report(self, trained: TrainedModel) -> dict[str, Any]:
        """Writes scores.json and figures; returns the scores."""
        make = functools.partial(
            evaluation.make_forecaster,
            trained.model,
            jax.device_get(trained.variables),
            mesh_lib.data_mesh(jax.local_devices()),
        )
        model = reports.ModelFunctions(
            forecast=make(),
            embed=make(method="embed") if isinstance(trained.model, Embedder) else None,
        )
        options = self.config.eval
        settings = reports.Settings(options.batch_size, options.clusters)
        task = self.dataset.task
        return reports.score(task, trained.data, model, self.workdir, settings)
