"""Checks that a config matches the workdir it is used in."""

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import ml_collections

from earthformer_jax.data.dataset import DataSettings
from earthformer_jax.run.config import completed, explicit
from earthformer_jax.run.ensembles import members
from earthformer_jax.settings import ConfigError, flatten
from earthformer_jax.training import workdir as workdir_lib
from earthformer_jax.training.checkpoint import Checkpoints, UnreadableError
from earthformer_jax.training.plan import make_plan
from earthformer_jax.training.settings import FREE_TO_CHANGE, TrainSettings

BEGIN_FROM = "another --workdir begins with the weights of this one by --init_from={}"
LONGER = "to train longer, set config.train.steps instead"
# Fields that may differ when a training goes on; `check_steps` and `check_same_config`
# compare the others.
_SIZE = "model.ensemble"
_REMAT = "model.remat"  # for a machine with less memory; the results are the same
CAN_CHANGE = FREE_TO_CHANGE | {"train.steps", _SIZE, _REMAT}
# Settings of the data that decide what a model is fed with.
PART_OF_THE_MODEL = tuple(
    f"data.{name}:"
    for name in ("in_len", "out_len", "targets", "anomalies", "calendar", "memory")
    + ("normalization", "scale")
) + ("precision.params:",)


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The complete config a workdir was started with.

    Fields that did not exist when it was written take their defaults, apart from
    `data.seed`: until it existed, `seed` was the seed of the data as well.

    Raises:
        ConfigError: if there is no readable config.
    """
    saved = workdir_lib.read_config(workdir)
    config = completed(saved)
    if _draws_with_seed(saved) and "seed" in config.data:
        with config.unlocked():
            config.data.seed = saved.seed
    return config


def with_data_of(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
    """A complete config, with the data seed of a workdir from before `data.seed`.

    Data that such a workdir drew with `seed` stay as they were, unless the config has a
    `data.seed` other than the default. Other workdirs change nothing.
    """
    if not (workdir / workdir_lib.CONFIG_FILE).exists():
        return config
    try:
        saved = workdir_lib.read_config(workdir)
    except ConfigError:  # reported when the workdir is used
        return config
    if _draws_with_seed(saved) and config.data.get("seed") == DataSettings.seed:
        with config.unlocked():
            config.data.seed = saved.seed
    return config


def _draws_with_seed(saved: ml_collections.ConfigDict) -> bool:
    """Whether a config was written before `data.seed` existed."""
    fields = saved.get("data")
    if not isinstance(fields, ml_collections.ConfigDict) or "seed" not in saved:
        return False
    return "seed" not in fields


def check_same_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Refuses to resume training with a config other than the one it was started with.

    Fields that do not change what is learned (`FREE_TO_CHANGE`, `model.remat`) may
    differ, and so may `train.steps`, within the limits of `check_steps`. An ensemble
    may get further members. A workdir without a config is always accepted.

    Raises:
        ConfigError: naming the fields that differ.
    """
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"the workdir {workdir} is not a folder")
    if (workdir / workdir_lib.CONFIG_FILE).exists():
        different = [
            line
            for line in differences(read_config(workdir), completed(config))
            if line.split(":")[0] not in CAN_CHANGE - {_SIZE}
        ]
        before, now = (members.size_of(c) for c in (read_config(workdir), config))
        if 1 < before < now:  # further members
            different = [x for x in different if not x.startswith(f"{_SIZE}:")]
        advice = "use another --workdir, or the same values to continue"
        if any(line.startswith("train.epochs:") for line in different):
            advice += f"; {LONGER}"
        if now < before:
            advice += "; an ensemble can grow, but not become smaller"
        if not any(line.startswith("model.") for line in different):
            advice += f"; {BEGIN_FROM.format(workdir)}"
        _refuse(different, f"{workdir} was started with another config", advice)
    checkpoints = Checkpoints(workdir / "checkpoints")
    check_checkpoints(config, checkpoints, "that of the command")


def check_steps(train: TrainSettings, workdir: pathlib.Path, examples: int) -> None:
    """Refuses a training that is shorter than what has been trained already.

    Args:
        train: settings of the training.
        workdir: that it goes on in.
        examples: size of the training split.

    Raises:
        ConfigError: with both numbers of steps.
    """
    done = max(Checkpoints(workdir / "checkpoints").steps(), default=0)
    total = make_plan(train, examples).total_steps
    if total < done:
        field = f"steps={train.steps}"
        if not train.steps:
            field = f"epochs={train.epochs:g} ({total} steps)"
        raise ConfigError(
            f"config.train.{field}: {workdir} has been trained for {done} steps "
            "already; expected more, or another --workdir"
        )


def check_checkpoints(
    config: ml_collections.ConfigDict, checkpoints: Checkpoints, where: str
) -> None:
    """Refuses checkpoints that were trained with another config.

    Either config.json is damaged, or they are of another training.

    Args:
        config: that they should have been trained with.
        checkpoints: of a workdir.
        where: the config comes from.

    Raises:
        ConfigError: naming the fields that differ.
    """
    now = flatten(json.loads(workdir_lib.to_json(config)))
    for step in checkpoints.steps():
        before = {}
        with contextlib.suppress(UnreadableError):
            before = flatten(checkpoints.config(step) or {})
        _refuse(
            [
                f"{name}: {json.dumps(before[name])}, now {json.dumps(now[name])}"
                for name in before
                if name in now and name not in CAN_CHANGE and before[name] != now[name]
            ],
            f"{checkpoints.path(step)} was trained with another config than {where}",
            "correct the config, or move a checkpoint that does not belong here away",
        )


def check_same_model(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    checkpoints: Checkpoints | None = None,
) -> None:
    """Refuses to score a checkpoint with a model other than the trained one.

    Args:
        config: the whole config.
        workdir: of the training.
        checkpoints: those of the workdir, if they are read afterwards.

    Raises:
        ConfigError: naming the fields that differ, or if the workdir has no config.
    """
    check_checkpoints(
        workdir_lib.read_config(workdir),
        checkpoints or Checkpoints(workdir / "checkpoints"),
        str(workdir / workdir_lib.CONFIG_FILE),
    )
    different = [
        line
        for line in differences(read_config(workdir), completed(config))
        if line.startswith(("model.", *PART_OF_THE_MODEL))
        and not line.startswith(f"{_REMAT}:")
    ]
    _refuse(
        different,
        f"{workdir} holds another model",
        "leave --config out to use the config of the workdir",
    )


def has_same_data(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Whether the data of a config are those a workdir was started with.

    What a protocol sets is compared, not its name.

    Raises:
        ConfigError: if the workdir has no config.
    """
    return not any(
        line.startswith("data.") and not line.startswith("data.protocol:")
        for line in differences(read_config(workdir), completed(config))
    )


def data_name(
    config: ml_collections.ConfigDict, source: str | os.PathLike[str] | None = None
) -> str:
    """A name for files, after the last part of the data's path that has letters.

    Args:
        config: the whole config.
        source: the path, if it is not that of the config.
    """
    path = pathlib.Path(source or config.data.get("path") or config.data.name)
    names = [re.sub(r"[^\w.-]+", "", part) for part in path.with_suffix("").parts]
    return next((name for name in reversed(names) if name), "other")


def differences(
    saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> list[str]:
    """Lines that say how two configs differ, e.g. "optim.lr: 0.001, now 0.0003".

    Args:
        saved: the config of a workdir.
        config: the config to compare it with.
    """
    before, now = (
        flatten(json.loads(workdir_lib.to_json(explicit(c)))) for c in (saved, config)
    )
    return [
        f"{name}: {_shown(before, name)}, now {_shown(now, name)}"
        for name in dict.fromkeys([*before, *now])
        if _shown(before, name) != _shown(now, name)
    ]


def _shown(fields: Mapping[str, Any], name: str) -> str:
    return json.dumps(fields[name]) if name in fields else "absent"


def _refuse(different: list[str], why: str, what_to_do: str) -> None:
    if different:
        lines = "".join(f"\n  {line}" for line in different)
        raise ConfigError(f"{why}:{lines}\n{what_to_do}")
