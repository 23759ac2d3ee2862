"""The package's main functions: loading a config, running it, reading the results."""

import os
from collections.abc import Mapping
from typing import Any

import ml_collections

from earthformer_jax.run import config_files, loading
from earthformer_jax.run.command_line import as_config_error
from earthformer_jax.run.run import Run
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError, flatten, nearest
from earthformer_jax.training.precision import policy


def load_config(
    name: str, changes: Mapping[str, Any] | None = None, **more: Any
) -> ml_collections.ConfigDict:
    """The config of a file, with some fields changed.

    load_config("enso:quick")
    load_config("configs/sevir.py:test", {"train.steps": 4, "model.name": "unet"})
    load_config("mine.py", seed=1, train={"batch_size": 16})

    Args:
        name: a config file, or the name of an installed one ("enso"), with a variant
            after a colon. As on the command line, "quick,unet" chooses another model,
            and so does the field "model.name"; a data set is chosen in the same way.
        changes: values by field, "train.steps" or nested.
        **more: further values by section or field.

    Returns:
        the locked config.

    Raises:
        ConfigError: if there is no such file, variant or field (the nearest one is
            named), or a value has the wrong type.
    """
    fields = {
        field: os.fspath(value) if isinstance(value, os.PathLike) else value
        for field, value in flatten({**(changes or {}), **more}).items()
    }
    chosen = (fields.get(f"{section}.name") for section in ("data", "model"))
    config = config_files.load(config_files.with_names(name, *chosen))
    known = flatten(config)
    for field, value in fields.items():
        if after := policy.successor(field):
            raise ConfigError(f"{field} is {after} now")
        if field not in known:
            raise ConfigError(f"{name} has no field {field}{nearest(field, known)}")
        with as_config_error(f"{field}={value!r}"):
            config.update_from_flattened_dict({field: value})
    return config.lock()


def train(
    config: ml_collections.ConfigDict, workdir: str | os.PathLike[str]
) -> TrainedModel:
    """Trains a model, or resumes training, and reads its best checkpoint.

    Ctrl-C and SIGTERM stop training after the current step, which is saved. The
    result's `complete` is then False, and the same call resumes training.

    Args:
        config: the whole config, from `load_config`.
        workdir: where everything is written; created if needed.

    Raises:
        ConfigError: if the config, its data or its model cannot be used, or the workdir
            was started with another config. Nothing has been written then.
        CheckpointError: if checkpoints cannot be read or written.
        NonFiniteError: if the loss is no longer finite.
    """
    run = Run(config, workdir)
    run.train()
    return run.load()


def evaluate(
    workdir: str | os.PathLike[str], protocol: str | None = None
) -> dict[str, Any]:
    """Scores a trained model on the test split; writes scores.json and figures.

    Args:
        workdir: of a training.
        protocol: name of a protocol to score by (docs/protocols.md), into
            scores-NAME.json; None: that of the training, if any.

    Returns:
        {"data": what was scored, "forecasts": {"model": scores, "persistence": ...}}.

    Raises:
        ConfigError: if the workdir does not exist or holds no usable config, or if
            there is no such protocol or the model does not fit it.
        CheckpointError: if it holds no checkpoint that can be used.
    """
    return Run.of(workdir, protocol).evaluate()


def load(
    what: str | os.PathLike[str],
    config: str | os.PathLike[str] | ml_collections.ConfigDict | None = None,
) -> TrainedModel:
    """Reads a trained model.

    Args:
        what: the workdir of a training, of which the best checkpoint is read, or the
            one that `eval.checkpoint` says; an exported file (`.efx`); a file of
            official weights (`.pt`, `.npz`, `.safetensors`); or the name of a model
            that comes with the package.
        config: of the model, for official weights only: a name ("sevir:released"), a
            file, also a yaml file of the reference implementation, or a config.

    Raises:
        ConfigError: if there is nothing of that name, or it cannot be used.
        CheckpointError: if a workdir holds no checkpoint that can be used.
    """
    return loading.load(what, config)
