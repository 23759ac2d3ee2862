"""The weights that a training begins with instead of new ones."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from earthformer_jax import pretrained
from earthformer_jax.data import state as data_state
from earthformer_jax.data.state import DataState
from earthformer_jax.forecast import archive
from earthformer_jax.interop import official
from earthformer_jax.interop.transfer import Transfer, transfer
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.checkpoint import CheckpointError, Checkpoints

SHOWN = 12  # lines of the log about arrays that are not simply kept
_CHECKPOINTS = "checkpoints"
FEW = 0.5  # share of arrays that stay new, above which the log warns

logger = logging.getLogger(__name__)


def first_weights(
    path: str, model: Forecaster, like: Variables, state: DataState | None = None
) -> Variables:
    """Weights of a workdir or of a file, as far as they fit a model; says what does.

    Args:
        path: a workdir, whose best checkpoint is read as `load` reads it; an exported
            model (`.efx`); the name of a model of the package; or official weights of
            an Earthformer, as `interop.official.read_state_dict` reads them.
        model: to train.
        like: shapes and types of its variables.
        state: of the data that it is trained on; None if there is none.

    Returns:
        {"params": ..., "batch_stats": ...} without the arrays that stay new.

    Raises:
        ConfigError: with the reason, if there are no weights that fit.
    """
    where = pathlib.Path(path).expanduser()
    if not where.exists() and path in pretrained.names():
        where = pretrained.path(path)
    try:
        source = _read(where, model)
        found = transfer(source.arrays, model, like, source.unused)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        raise ConfigError(f"config.train.init_from={path}: {error}") from error
    _say(found, source.label)
    if source.state is not None and state is not None:
        for line in source.state.layout.differences(state.layout):
            logger.info("  data: %s", line)
    return found.variables


@dataclasses.dataclass(frozen=True)
class _Source:
    """Weights as they were found.

    Attributes:
        label: where they are from.
        arrays: by path, "params/head/kernel".
        unused: names of further arrays, which a model of this kind does not have.
        state: of the data that they were trained on, if known.
    """

    label: str
    arrays: Mapping[str, Any]
    unused: Sequence[str] = ()
    state: DataState | None = None


def _read(where: pathlib.Path, model: Forecaster) -> _Source:
    if not where.exists():
        raise ValueError(
            "does not exist; expected a workdir, an exported model (.efx), a file of "
            f"official weights, or one of {', '.join(pretrained.names())}"
        )
    for folder in (where, where.parent):
        if folder.name == _CHECKPOINTS:
            raise ValueError(f"expected the workdir, {folder.parent}")
    if where.is_dir():
        variables, progress = Checkpoints(where / _CHECKPOINTS).restore_variables(
            "best"
        )
        label = f"{where}, step {progress.step}"
        return _Source(label, archive.flatten(variables), state=data_state.read(where))
    if where.suffix == archive.SUFFIX:
        exported = archive.read(where)
        return _Source(
            str(where), archive.flatten(exported.variables), state=exported.state
        )
    if not isinstance(model, Earthformer):
        raise ValueError(
            "expected a workdir or an exported model (.efx); other files of weights "
            "are read for an Earthformer only"
        )
    state_dict = official.read_state_dict(where)
    arrays, unused = official.arrays_from_state_dict(state_dict, model)
    named = {f"params/{name}": array for name, array in arrays.items()}
    return _Source(str(where), named, unused)


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
