"""The config a workdir belongs to."""

import pathlib

import ml_collections

from earthformer_jax.run import config as config_lib

CONFIG_FILE = "config.json"


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config a workdir was started with.

    Raises:
        ConfigError: if there is none that can be read.
    """
    if not workdir.exists():
        raise config_lib.ConfigError(f"the workdir {workdir} does not exist")
    if not (workdir / CONFIG_FILE).exists():
        raise config_lib.ConfigError(
            f"{workdir} holds no {CONFIG_FILE}: nothing was trained there"
        )
    return config_lib.read_json(workdir / CONFIG_FILE)


def write_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Creates the workdir, if needed, and its config.json."""
    workdir.mkdir(parents=True, exist_ok=True)
    unfinished = workdir / f"{CONFIG_FILE}.tmp"
    unfinished.write_text(config_lib.to_json(config))
    unfinished.replace(workdir / CONFIG_FILE)


def check_same_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Refuses to continue a training with another config than it was started with.

    Fields that do not change what is learned (`config.FREE_TO_CHANGE`) may differ. A
    workdir without a config is always right.

    Raises:
        ConfigError: naming the fields that differ.
    """
    if workdir.exists() and not workdir.is_dir():
        raise config_lib.ConfigError(f"the workdir {workdir} is not a folder")
    if (workdir / CONFIG_FILE).exists():
        different = [
            line
            for line in config_lib.differences(read_config(workdir), config)
            if line.split(":")[0] not in config_lib.FREE_TO_CHANGE
        ]
        _refuse(
            different,
            f"{workdir} was started with another config",
            "use another --workdir, or the same values to continue",
        )


def check_same_model(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Refuses to score a checkpoint with another model than the trained one.

    Raises:
        ConfigError: naming the fields that differ, or a workdir without a config.
    """
    different = [
        line
        for line in config_lib.differences(read_config(workdir), config)
        if line.startswith(("model.", "data.in_len:", "data.out_len:"))
    ]
    _refuse(
        different,
        f"{workdir} holds another model",
        "leave --config out to use the config of the workdir",
    )


def _refuse(different: list[str], why: str, what_to_do: str) -> None:
    if different:
        lines = "".join(f"\n  {line}" for line in different)
        raise config_lib.ConfigError(f"{why}:{lines}\n{what_to_do}")
