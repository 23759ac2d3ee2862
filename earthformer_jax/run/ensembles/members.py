"""What the members of an ensemble are: their configs, folders and data."""

import copy
import pathlib

import ml_collections
import numpy as np

from earthformer_jax import models
from earthformer_jax.data.dataset import Data
from earthformer_jax.settings import ConfigError

FOLDER = "members"


def size_of(config: ml_collections.ConfigDict) -> int:
    """Number of members that a config asks for; 1: a model that is not an ensemble."""
    size = config.model.get("ensemble", models.CommonOptions.ensemble)
    return size if type(size) is int and size > 1 else 1


def folder(workdir: pathlib.Path, number: int) -> pathlib.Path:
    """The workdir of a member, from 0."""
    return workdir / FOLDER / str(number)


def folds_of(config: ml_collections.ConfigDict) -> int:
    """Number of folds that the members validate on in turn; 0: all on the same."""
    return config.data.get("folds", 0)


def config_of(
    config: ml_collections.ConfigDict, number: int
) -> ml_collections.ConfigDict:
    """The config of a member: a model alone, with a seed and perhaps a fold of its own.

    Args:
        config: the whole config of the ensemble.
        number: of the member, from 0.
    """
    config = copy.deepcopy(config)
    with config.unlocked():
        config.model.ensemble = 1
        config.seed += number
        if folds := folds_of(config):
            config.data.fold = number % folds
    return config.lock()


def whole(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config whose data are those of an ensemble: of the period without folds."""
    if size_of(config) == 1 or not folds_of(config):
        return config
    config = copy.deepcopy(config)
    with config.unlocked():
        config.data.folds = config.data.fold = 0
    return config.lock()


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a fold that was chosen for an ensemble, whose members take them in turn.

    Raises:
        ConfigError: naming both fields.
    """
    size = size_of(config)
    if size > 1 and folds_of(config) and config.data.fold:
        raise ConfigError(
            f"config.data.fold={config.data.fold}: expected 0 with "
            f"config.model.ensemble={size}, whose members validate on the "
            f"{folds_of(config)} folds in turn"
        )


def check_same_units(ensemble: Data, member: Data, number: int) -> None:
    """Refuses members that see the same fields in other units than the ensemble.

    Args:
        ensemble: the data of the ensemble, without folds.
        member: the data of a member; the test split is that of the ensemble.
        number: of the member.

    Raises:
        ConfigError: if examples of the test split differ, or there is none.
    """
    count = len(ensemble.test)
    different = count == 0 or len(member.test) != count
    if not different:
        for i in {0, count // 2, count - 1}:
            a, b = ensemble.test[i], member.test[i]
            different |= any(
                not np.array_equal(a[name], b[name]) for name in ("inputs", "targets")
            )
    if different:
        raise ConfigError(
            f"member {number} of the ensemble would see other values in the "
            f"{count} test examples than the ensemble, so that its forecasts cannot be "
            "averaged with those of others; expected data whose folds keep the "
            "statistics of the whole training period, and at least one test example"
        )
