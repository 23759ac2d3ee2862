"""The VQ-VAE that an auto-regressive model needs before it is trained.

It is trained first, in a folder of the workdir, or taken from the workdir of one that
is finished. Its variables become constants of the model, which then needs neither.
"""

import copy
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from flax import traverse_util

from earthformer_jax import models
from earthformer_jax.data import state as data_state
from earthformer_jax.data.readers import times
from earthformer_jax.data.state import LEARNED, DataState
from earthformer_jax.models.contract import Variables
from earthformer_jax.run.config import completed, defaults
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import workdir as workdir_lib
from earthformer_jax.training.checkpoint import CheckpointError, Checkpoints

FOLDER = "tokenizer"  # in the workdir, and in `batch_stats`
MODEL = "vq_vae"
_GIVEN = "config.model.tokenizer"
# What its training has in common with that of the model of its codes.
_SHARED = ("batch_size", "micro_batch", "log_every", "checkpoint_every") + (
    "num_threads",
    "num_workers",
)


def is_needed(config: ml_collections.ConfigDict) -> bool:
    """Whether the model of a config forecasts codes of a VQ-VAE."""
    return "tokenizer_steps" in config.model


def is_trained(config: ml_collections.ConfigDict) -> bool:
    """Whether it is trained first, and not taken from elsewhere.

    Raises:
        ConfigError: if it would be taken from two places.
    """
    if not is_needed(config):
        return False
    given, path = config.model.tokenizer, config.train.init_from
    if given and path:
        raise ConfigError(
            f"{_GIVEN}={given}: the weights of config.train.init_from={path} bring the "
            "VQ-VAE whose codes they forecast; leave one of the two empty"
        )
    return not (given or path)


def folder(workdir: pathlib.Path) -> pathlib.Path:
    """Where the VQ-VAE of a workdir is trained."""
    return workdir / FOLDER


def config_of(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config of the VQ-VAE: the same data, `config.model.tokenizer_steps` steps.

    Args:
        config: the whole config of the model of its codes.
    """
    own = copy.deepcopy(config)
    steps = config.model.tokenizer_steps
    with own.unlocked():
        own.model = {"name": MODEL, **_sizes(config)}
        own.optim.ema_decay = 0.0  # the codebook is an average already
        own.train = {name: config.train[name] for name in _SHARED} | dict(
            steps=steps,
            validate_every=max(steps // 2, 1),
            early_stop_patience=0,
        )
    return completed(own)


def constants(
    where: pathlib.Path,
    like: Variables,
    config: ml_collections.ConfigDict,
    state: DataState | None,
) -> Variables:
    """The variables of a trained VQ-VAE, of its best checkpoint.

    Args:
        where: its workdir.
        like: shapes and types of the variables.
        config: the whole config of the model of its codes.
        state: of the data that this model is trained on; None: there is none.

    Raises:
        ConfigError: if there is no VQ-VAE, it has other sizes, or was trained on data
            that do not fit.
    """
    given = f"{_GIVEN}={where}"
    if not where.is_dir():
        raise ConfigError(f"{given} is not a folder; expected the workdir of a VQ-VAE")
    saved = completed(workdir_lib.read_config(where))
    if saved.model.name != MODEL:
        raise ConfigError(
            f"{given} holds a model {saved.model.name!r}; expected one of {MODEL!r}"
        )
    if problems := [*_other_sizes(config, saved), *_other_data(where, state)]:
        raise ConfigError(
            f"{given} does not fit:" + "".join(f"\n  {line}" for line in problems)
        )
    try:
        found, _ = Checkpoints(where / "checkpoints").restore_variables("best")
    except CheckpointError as error:
        raise ConfigError(f"{given}: {error}") from error
    wanted: dict[str, Any] = traverse_util.flatten_dict(dict(like), sep="/")
    arrays: dict[str, Any] = traverse_util.flatten_dict(dict(found), sep="/")
    have, want = (
        {name: np.shape(x) for name, x in tree.items()} for tree in (arrays, wanted)
    )
    different = [
        f"{name} {have.get(name, 'absent')}, expected {want.get(name, 'none')}"
        for name in sorted({*have, *want})
        if have.get(name) != want.get(name)
    ]
    if different:
        raise ConfigError(f"{given}: its arrays do not fit: {'; '.join(different)}")
    made = {k: jnp.asarray(arrays[k], wanted[k].dtype) for k in wanted}
    return traverse_util.unflatten_dict(jax.device_get(made), sep="/")


def add(
    weights: Variables | None,
    workdir: pathlib.Path,
    like: Variables,
    config: ml_collections.ConfigDict,
    state: DataState | None,
) -> Variables:
    """The weights that a training begins with, and the VQ-VAE as constants.

    Args:
        weights: of `config.train.init_from`, which bring their own VQ-VAE; None: there
            are none.
        workdir: of the model; its VQ-VAE is used if the config names no other.
        like: shapes and types of the variables of the model.
        config: its whole config.
        state: of the data that it is trained on; None: there is none.

    Raises:
        ConfigError: with the reason, if there is no VQ-VAE that fits.
    """
    wanted = like["batch_stats"][FOLDER]
    given = config.model.tokenizer
    if path := config.train.init_from:
        _check_own(weights or {}, wanted, path)
        return weights or {}
    where = pathlib.Path(given).expanduser() if given else folder(workdir)
    made = constants(where, wanted, config, state)
    return {"batch_stats": {FOLDER: made}}


def _check_own(weights: Mapping[str, Any], like: Mapping[str, Any], path: str) -> None:
    """Refuses weights without the VQ-VAE whose codes they forecast.

    Raises:
        ConfigError: with how much of it is missing.
    """
    found = weights.get("batch_stats", {}).get(FOLDER, {})
    have, want = (set(traverse_util.flatten_dict(dict(x))) for x in (found, like))
    if missing := want - have:
        raise ConfigError(
            f"config.train.init_from={path}: {len(missing)} of {len(want)} arrays of "
            "the VQ-VAE, whose codes the model forecasts, are absent or of another "
            "size; expected the weights of a model with the same VQ-VAE"
        )


def _sizes(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Options of the VQ-VAE that a model of codes states."""
    model = config.model
    return {
        "codebook_size": model.codebook_size,
        "factor": model.factor,
        **model.tokenizer_options.to_dict(),
    }


def _other_sizes(
    config: ml_collections.ConfigDict, saved: ml_collections.ConfigDict
) -> list[str]:
    """Lines that say which options differ from those of a trained VQ-VAE."""
    expected = defaults("model", MODEL) | _sizes(config)
    own = ("codebook_size", "factor")
    have, want = (
        json.loads(workdir_lib.to_json(ml_collections.ConfigDict(x)))
        for x in (saved.model.to_dict() | {"name": MODEL}, expected | {"name": MODEL})
    )
    return [
        f"{name}={have[name]} there, {want.get(name)} here; set config.model."
        f"{name if name in own else f'tokenizer_options.{name}'}={have[name]}"
        for name in have
        if name in models.fields(MODEL) and have[name] != want.get(name)
    ]


def _other_data(where: pathlib.Path, state: DataState | None) -> list[str]:
    """Lines that say why a VQ-VAE of other data cannot be used."""
    before = data_state.read(where)
    if state is None or before is None:
        return []
    lines = [f"data: {x}" for x in before.layout.differences(state.layout)]
    if not before.fitted.equals(state.fitted):
        lines.append(
            "data: its training had other statistics, so that the frames are in other "
            "units"
        )
    test = state.minutes.get("test")
    for split in LEARNED:
        learned = before.minutes.get(split)
        if test and learned and learned[0] <= test[1] and test[0] <= learned[1]:
            first, last = map(times.text, learned)
            lines.append(
                f"data: its {split} period {first}..{last} has months of the test "
                f"period {times.text(test[0])}..{times.text(test[1])}"
            )
    return lines
