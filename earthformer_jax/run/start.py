"""The weights that a training begins with instead of new ones."""

import pathlib

import jax
import jax.numpy as jnp

from earthformer_jax.interop import official
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.checkpoint import CheckpointError, Checkpoints


def read_weights(path: str, model: Forecaster, like: Variables) -> Variables:
    """Weights of a workdir or of a file, for a model of the same names and shapes.

    Args:
        path: a workdir, whose newest checkpoint is read (the parameters that were
            trained, not their average); or official weights of an Earthformer, as
            `interop.official.read_state_dict` reads them.
        model: to train.
        like: shapes and types of its variables.

    Raises:
        ConfigError: with the reason, if there are none that fit.
    """
    where = pathlib.Path(path).expanduser()
    try:
        if where.is_dir():
            return _of_workdir(where, like)
        if not isinstance(model, Earthformer):
            raise ValueError(
                "expected a workdir; files of weights are read for an Earthformer only"
            )
        weights = official.params_from_state_dict(
            official.read_state_dict(where), model
        )
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        raise ConfigError(f"config.train.init_from={path}: {error}") from error
    return jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), weights, like)


def _of_workdir(folder: pathlib.Path, like: Variables) -> Variables:
    everywhere = mesh_lib.replicated(mesh_lib.data_mesh())
    variables, _ = Checkpoints(folder / "checkpoints").restore_variables(
        "last", mesh_lib.abstract(like, everywhere), averaged=False
    )
    return variables
