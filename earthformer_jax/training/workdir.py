"""The config a workdir belongs to."""

import hashlib
import json
import pathlib

import ml_collections

from earthformer_jax.settings import ConfigError

CONFIG_FILE = "config.json"


def read_config(workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The locked config a workdir was started with, as it was written.

    Raises:
        ConfigError: if there is none that can be read.
    """
    path = workdir / CONFIG_FILE
    if not workdir.exists():
        raise ConfigError(f"the workdir {workdir} does not exist")
    if not path.exists():
        raise ConfigError(
            f"{workdir} holds no {CONFIG_FILE}: nothing was trained there"
        )
    try:
        fields = dict(json.loads(path.read_text()))
        return ml_collections.ConfigDict(fields).lock()
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as a config: {error}") from error


def write_config(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
    """Creates the workdir, if needed, and its config.json."""
    workdir.mkdir(parents=True, exist_ok=True)
    unfinished = workdir / f"{CONFIG_FILE}.tmp"
    unfinished.write_text(to_json(config))
    unfinished.replace(workdir / CONFIG_FILE)


def to_json(config: ml_collections.ConfigDict) -> str:
    """The config as indented JSON: references resolved, tuples as lists."""
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2) + "\n"


def config_hash(config: ml_collections.ConfigDict) -> str:
    """SHA-256 of the config in hexadecimal, whatever the order of its fields."""
    fields = json.loads(config.to_json_best_effort())
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
