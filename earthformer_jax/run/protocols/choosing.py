"""Scoring a trained model by a protocol that it need not have been trained by."""

import copy
import pathlib

import ml_collections

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.protocols import following
from earthformer_jax.run.config import explicit
from earthformer_jax.run.workdir import read_config
from earthformer_jax.settings import ConfigError


def chosen(config: ml_collections.ConfigDict, name: str) -> ml_collections.ConfigDict:
    """A complete config whose data follow a protocol.

    Args:
        config: the complete config.
        name: of the protocol.

    Raises:
        ConfigError: if there is none of this name, or it is for other data.
    """
    following.named(name, config.data.name, f"--protocol={name}")
    config = copy.deepcopy(config)
    with config.unlocked():
        config.data.protocol = name
    return config


def asked_for(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, flag: str
) -> str:
    """The protocol that is not simply that of the training; "" if there is none.

    Args:
        config: to score with.
        workdir: of the training.
        flag: value of --protocol, or "".

    Raises:
        ConfigError: if the workdir holds no usable config.
    """
    name = config.data.get("protocol", "")
    if flag or not name or read_config(workdir).data.get("protocol") == name:
        return flag
    return name


def check_settings(
    config: ml_collections.ConfigDict, workdir: pathlib.Path, name: str
) -> None:
    """Refuses a protocol with other settings than those of a trained model.

    Args:
        config: to score with; its data follow the protocol.
        workdir: of the training.
        name: of the protocol.

    Raises:
        ConfigError: naming every setting that differs.
    """
    protocol = following.named(name, config.data.name)
    saved = read_config(workdir)
    trained = following.departures(protocol, explicit(saved).data)
    if trained:
        lines = _lines(explicit(saved), trained, name)
        raise ConfigError(
            f"protocol {name} does not fit the model in {workdir}, which was trained "
            f"with{lines}\ntrain one with --config.data.protocol={name}, or score this "
            "one without a protocol"
        )
    now = copy.deepcopy(config)
    with now.unlocked():
        now.data.protocol = saved.data.get("protocol", "")
    changed = following.departures(protocol, explicit(now).data)
    if changed:
        raise ConfigError(
            f"protocol {name} contradicts{_lines(now, changed, name)}\nleave these "
            "out, or score without a protocol"
        )


def check_followed(dataset: Dataset, name: str) -> None:
    """Refuses data that a protocol was asked for and that do not fit it.

    Raises:
        ConfigError: with the reason.
    """
    if dataset.task.protocol:
        return
    protocol = following.named(name, dataset.data.name)
    reason = ""
    if protocol.scoring is not None:
        reason = following.misfit(dataset, protocol)
    raise ConfigError(
        reason
        or f"protocol {name} divides the data in another way than that in which this "
        f"model was trained and is tested: {dataset.data.description}"
    )


def _lines(config: ml_collections.ConfigDict, different: dict, name: str) -> str:
    return "".join(
        f"\n  config.data.{field}={config.data[field]}; in {name} it is {value}"
        for field, value in different.items()
    )
