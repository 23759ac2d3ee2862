"""The weights that a training begins with instead of new ones."""

import logging
import pathlib
from typing import Any

import jax
from flax import traverse_util

from earthformer_jax.data import state as data_state
from earthformer_jax.data.state import DataState
from earthformer_jax.interop import official
from earthformer_jax.interop.transfer import Transfer, transfer
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.checkpoint import CheckpointError, Checkpoints

SHOWN = 12  # lines of the log about arrays that are not simply kept
FEW = 0.5  # share of arrays that stay new, above which the log warns

logger = logging.getLogger(__name__)


def first_weights(
    path: str, model: Forecaster, like: Variables, state: DataState | None = None
) -> Variables:
    """Weights of a workdir or of a file, as far as they fit a model; says what does.

    Args:
        path: a workdir, whose best checkpoint is read as `load` reads it; or official
            weights of an Earthformer, as `interop.official.read_state_dict` reads them.
        model: to train.
        like: shapes and types of its variables.
        state: of the data that it is trained on; None if there is none.

    Returns:
        {"params": ..., "batch_stats": ...} without the arrays that stay new.

    Raises:
        ConfigError: with the reason, if there are no weights that fit.
    """
    where = pathlib.Path(path).expanduser()
    try:
        arrays, unused, source = _read(where, model)
        found = transfer(arrays, model, like, unused)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        raise ConfigError(f"config.train.init_from={path}: {error}") from error
    _say(found, source)
    if where.is_dir() and state is not None:
        _compare_data(where, state)
    return found.variables


def _read(
    where: pathlib.Path, model: Forecaster
) -> tuple[dict[str, Any], list[str], str]:
    """Arrays by path, names of others, and where they come from."""
    if where.is_dir():
        variables, progress = Checkpoints(where / "checkpoints").restore_variables(
            "best"
        )
        arrays = traverse_util.flatten_dict(variables, sep="/")
        return arrays, [], f"{where}, step {progress.step}"
    if not isinstance(model, Earthformer):
        raise ValueError(
            "expected a workdir; files of weights are read for an Earthformer only"
        )
    state_dict = official.read_state_dict(where)
    arrays, unused = official.arrays_from_state_dict(state_dict, model)
    return {f"params/{k}": v for k, v in arrays.items()}, unused, str(where)


def _say(found: Transfer, source: str) -> None:
    """Lists in the log what is taken and what is not."""
    logger.info("training begins with the weights of %s", source)
    level = logging.INFO
    count = len(jax.tree.leaves(found.variables)) + len(found.new)
    if len(found.new) > FEW * count:
        level = logging.WARNING
    logger.log(level, "%s", found.summary())
    lines = list(found.lines())
    for i, line in enumerate(lines):
        logger.log(logging.INFO if i < SHOWN else logging.DEBUG, "  %s", line)
    if len(lines) > SHOWN:
        logger.info("  and %d more (--verbosity=1 lists all)", len(lines) - SHOWN)


def _compare_data(workdir: pathlib.Path, state: DataState) -> None:
    """Says how the data differ from those that the weights were trained on.

    Raises:
        ConfigError: if the workdir's state of the data cannot be read.
    """
    before = data_state.read(workdir)
    if before is None:
        return
    for line in before.layout.differences(state.layout):
        logger.info("  data: %s", line)
