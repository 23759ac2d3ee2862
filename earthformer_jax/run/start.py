"""The weights that a training begins with instead of new ones."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from earthformer_jax import pretrained
from earthformer_jax.data import state as data_state
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.state import DataState
from earthformer_jax.forecast import archive
from earthformer_jax.interop import official
from earthformer_jax.interop.transfer import Transfer, transfer
from earthformer_jax.models.bases import LEARNS_NOTHING
from earthformer_jax.models.contract import Forecaster, Variables
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.models.ensemble import MEMBER
from earthformer_jax.models.hybrid import Hybrid, network_of
from earthformer_jax.models.probabilistic import (
    NETWORK,
    NOISE,
    SPREAD,
    Probabilistic,
)
from earthformer_jax.run.ensembles import members
from earthformer_jax.run.tokenizers import first
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.checkpoint import CheckpointError, Checkpoints

SHOWN = 12  # lines of the log about arrays that are not simply kept
_CHECKPOINTS = "checkpoints"
BASE, _GAIN = "base", "params/gain"  # parts of a hybrid
_NOISE = f"params/{NOISE}/"
FEW = 0.5  # share of arrays that stay new, above which the log warns

logger = logging.getLogger(__name__)


def initial(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    model: Forecaster,
    like: Variables,
    data: Data,
) -> Variables | None:
    """What a new training begins with; None: new weights, or a checkpoint.

    Args:
        config: the whole config.
        workdir: of the training.
        model: to train.
        like: shapes and types of its variables.
        data: that it is trained on.

    Raises:
        ConfigError: with the reason, if there are no weights that fit.
    """
    if Checkpoints(workdir / "checkpoints").steps():
        return None
    weights = None
    if path := config.train.init_from:
        state = None if data.state is None else data.state()
        weights = first_weights(path, model, like, state)
    if (base := config.model.get("base")) and base not in LEARNS_NOTHING:
        weights = with_base(weights, base, like, data)
    if first.is_needed(config):
        state = None if data.state is None else data.state()
        weights = first.add(weights, workdir, like, config, state)
    return weights


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
        source = _read(where, network_of(model))
        _check_alone(source, where)
        found = _transfer(source, model, like)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        raise ConfigError(f"config.train.init_from={path}: {error}") from error
    _say(found, source.label)
    if source.state is not None and state is not None:
        for line in source.state.layout.differences(state.layout):
            logger.info("  data: %s", line)
    return found.variables


def with_base(
    weights: Variables | None, base: str, like: Variables, data: Data
) -> Variables:
    """Weights with the constants of the base of a hybrid model.

    Args:
        weights: {"params": ..., "batch_stats": ...}, or a part of them, or None.
        base: name of a base that the data have arrays of.
        like: shapes and types of the variables of the model.
        data: the data that it is trained on.

    Raises:
        ConfigError: if the data have no such base, or it cannot be learned from them.
    """
    given = f"config.model.base={base}"
    if base not in data.bases:
        raise ConfigError(f"{given}: data {data.name!r} have no such forecast")
    try:
        arrays = {k: np.asarray(v) for k, v in data.bases[base]().items()}
    except (ValueError, OSError) as error:
        raise ConfigError(f"{given}: {error}") from error
    kinds = like["batch_stats"]
    noisy = SPREAD in kinds  # the hybrid is the network of a probabilistic model
    wanted = (kinds[NETWORK] if noisy else kinds)[BASE]
    different = [
        f"{name} {arrays[name].shape if name in arrays else 'absent'}, expected "
        f"{wanted[name].shape if name in wanted else 'none'}"
        for name in sorted({*arrays, *wanted})
        if name not in arrays
        or name not in wanted
        or arrays[name].shape != wanted[name].shape
    ]
    different += [
        f"{name} has values that are not finite"
        for name, array in arrays.items()
        if not np.isfinite(array).all()
    ]
    if different:
        raise ConfigError(f"{given}: the arrays do not fit: {'; '.join(different)}")
    weights = dict(weights or {})
    made = {k: jnp.asarray(v, wanted[k].dtype) for k, v in arrays.items()}
    given_stats = {**weights.get("batch_stats", {})}
    if noisy:
        given_stats[NETWORK] = {**given_stats.get(NETWORK, {}), BASE: made}
    else:
        given_stats[BASE] = made
    weights["batch_stats"] = given_stats
    return weights


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


def _check_alone(source: _Source, where: pathlib.Path) -> None:
    """Refuses the weights of an ensemble."""
    arrays = source.arrays
    if arrays and all(name.split("/")[1] == MEMBER for name in arrays):
        raise ValueError(
            "these are the weights of an ensemble, and a training begins with those of "
            "one model; expected a member, such as "
            f"{members.folder(where if where.is_dir() else pathlib.Path('WORKDIR'), 0)}"
        )


def _transfer(source: _Source, model: Forecaster, like: Variables) -> Transfer:
    """What a model takes; a hybrid also takes the network of a model without a base."""
    source, noise = _without_noise(source)
    if isinstance(model, Probabilistic):
        return _with_noise(source, noise, model, like)
    if noise:
        source = dataclasses.replace(source, unused=[*source.unused, *noise])
    if not isinstance(model, Hybrid):
        if any(name.startswith(f"params/{NETWORK}/") for name in source.arrays):
            raise ValueError(
                "these are weights of a network that corrects a base, and forecasts "
                "only departures from it; choose a base (config.model.base)"
            )
        return transfer(source.arrays, model, like, source.unused)
    parts = {kind: tree[NETWORK] for kind, tree in like.items() if NETWORK in tree}
    network = _inside(source.arrays)
    is_hybrid = _GAIN in source.arrays
    found = transfer(
        network if is_hybrid else source.arrays, model.network, parts, source.unused
    )
    taken = {kind: {NETWORK: tree} for kind, tree in found.variables.items()}
    kept, new = [*found.kept], {**found.new}
    gain, wanted = source.arrays.get(_GAIN), like["params"]["gain"]
    if gain is not None and np.shape(gain) == wanted.shape:
        taken.setdefault("params", {})["gain"] = jnp.asarray(gain, wanted.dtype)
        kept.append(_GAIN)
    elif gain is None:
        new[_GAIN] = "absent from the weights"
    else:
        new[_GAIN] = f"{np.shape(gain)} in the weights, {wanted.shape} here"
    return dataclasses.replace(found, variables=taken, kept=kept, new=new)


def _without_noise(source: _Source) -> tuple[_Source, dict[str, Any]]:
    """The network of a probabilistic model, and its other arrays; {}: it is another."""
    arrays = source.arrays
    if not any(name.startswith(_NOISE) for name in arrays):
        return source, {}
    own = {name: x for name, x in arrays.items() if name.split("/")[1] != NETWORK}
    return dataclasses.replace(source, arrays=_inside(arrays)), own


def _inside(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of the network that others are wrapped around, by its own names."""
    return {
        name.replace(f"/{NETWORK}/", "/", 1): array
        for name, array in arrays.items()
        if name.split("/")[1] == NETWORK
    }


def _with_noise(
    source: _Source, noise: Mapping[str, Any], model: Probabilistic, like: Variables
) -> Transfer:
    """What a probabilistic model takes from a network and from noise layers, if any."""
    parts = {kind: tree[NETWORK] for kind, tree in like.items() if NETWORK in tree}
    found = _transfer(source, model.network, parts)
    taken = {
        (kind, NETWORK, *path): x
        for kind, tree in found.variables.items()
        for path, x in traverse_util.flatten_dict(dict(tree)).items()
    }
    kept, new, unused = [*found.kept], {**found.new}, dict(noise)
    wanted: dict[Any, Any] = traverse_util.flatten_dict(dict(like))
    for path, leaf in wanted.items():
        if path[1] == NETWORK:
            continue
        name = "/".join(path)
        array = unused.pop(name, None)
        if array is None:
            new[name] = "absent from the weights"
        elif np.shape(array) != leaf.shape:
            new[name] = f"{np.shape(array)} in the weights, {leaf.shape} here"
        else:
            taken[path] = jnp.asarray(array, leaf.dtype)
            kept.append(name)
    return dataclasses.replace(
        found,
        variables=traverse_util.unflatten_dict(taken),
        kept=kept,
        new=new,
        unused=[*found.unused, *unused],
    )


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
