"""A whole config: completed with defaults, checked, and described field by field.

A config has the fields `seed`, `data`, `model`, `optim`, `train` and `eval`. It states
what differs from the defaults, which are those of the settings of its data set
(`data.settings`), of the fields of its model (`models.fields`) and of
`training.settings`.
"""

import copy
import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any, cast

import ml_collections

from earthformer_jax import data, models
from earthformer_jax.data.protocols.registry import PROTOCOLS
from earthformer_jax.models import remat
from earthformer_jax.settings import ConfigError, flatten, meanings, nearest
from earthformer_jax.training import settings as settings_lib
from earthformer_jax.training.precision import policy
from earthformer_jax.training.settings import Settings
from earthformer_jax.training.setup.monitor import default_monitor

SECTIONS = ("data", "model", *settings_lib.SECTIONS)


def completed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A locked copy of a config that has every field that can be set.

    Fields the config already has are kept. So are unknown sections and names, which
    `check`, the data set and the model reject later.

    Args:
        config: any part of a config; `data.name` and `model.name` determine the fields
            of these sections. Types in the section of the model, where configs had
            them earlier, are moved to the section `precision`.

    Raises:
        ConfigError: if they contradict that section.
    """
    config = copy.deepcopy(config)
    with config.unlocked():
        policy.move_from_model(config)
        if "seed" not in config:
            config.seed = Settings.seed
        for section in settings_lib.SECTIONS:
            if section not in config:
                config[section] = {}
        for section in SECTIONS:
            if isinstance(config.get(section), ml_collections.ConfigDict):
                name = config[section].get("name")
                _complete(config[section], defaults(section, name))
        _name_remat(config)
    return config.lock()


def explicit(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """A copy in which what an empty field stands for is written out, to compare.

    So are the settings that a protocol sets. Older values have their new names.

    Args:
        config: any part of a config.
    """
    config = copy.deepcopy(config)
    with config.unlocked():
        _name_remat(config)
    protocol = PROTOCOLS.get(config.get("data", {}).get("protocol"))
    if protocol is not None and protocol.data == config.data.get("name"):
        with config.unlocked():
            config.data.update(protocol.settings)
    if config.get("train", {}).get("monitor") == "":
        model = config.get("model", {})
        name = model.get("name")
        kind = models.model_class(name) if name in models.names() else None
        with config.unlocked():
            config.train.monitor = default_monitor(
                of_members=bool(model.get("noise")),
                own_loss=hasattr(kind, "validation_loss"),
            )
    return config


def defaults(section: str, name: str | None = None) -> dict[str, Any]:
    """The default of every field of a section, as a config holds it.

    Args:
        section: one of `SECTIONS`.
        name: of the data set or the model; an unknown one has no fields.
    """
    source = described(section, name)
    if source is None:
        return {}
    if section == "model" and name is not None:
        fields = models.fields(name).values()
        # Types of numbers are those of the section `precision`.
        known = [field for field in fields if field.name not in models.DTYPES]
        return {field.name: _config_value(field) for field in known}
    return {field.name: field.default for field in dataclasses.fields(source)}


def check(config: ml_collections.ConfigDict) -> Settings:
    """Rejects a config with missing, unknown or invalid fields.

    The fields of `data` and `model` are checked where they are used.

    Args:
        config: the whole config.

    Returns:
        its settings apart from data and model.

    Raises:
        ConfigError: naming every invalid field, its value and what is expected.
    """
    problems = [
        unknown_field(name, SECTIONS)
        for name in config
        if name not in ("seed", *SECTIONS)
    ]
    for section in SECTIONS:
        if section not in config and section in settings_lib.SECTIONS:
            continue
        if section not in config:
            problems.append(f"config.{section} is missing")
        elif not isinstance(config[section], ml_collections.ConfigDict):
            problems.append(f"config.{section}={config[section]!r}: expected fields")
        elif section in ("data", "model") and "name" not in config[section]:
            problems.append(f"config.{section}.name is missing")
    if problems:
        raise ConfigError(*problems)
    return settings_lib.from_config(config)


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Says that a field is unknown, and suggests the nearest known one."""
    if after := policy.successor(name):
        return f"config.{name} is config.{after} now"
    hint = nearest(name, known).replace("`", "config.", 1).replace("`", "")
    return f"config.{name} is unknown{hint}"


def list_fields(config: ml_collections.ConfigDict) -> str:
    """A line for every field of a config: its flag with its value, and its meaning."""
    lines = []
    for name, value in flatten(completed(config)).items():
        section, _, field = name.rpartition(".")
        meaning = meanings_of(section, config.get(section, {}).get("name")).get(field)
        lines.append(f"--config.{name}={value}" + (f"  {meaning}" if meaning else ""))
    return "\n".join(lines)


def meanings_of(section: str, name: str | None = None) -> dict[str, str]:
    """What each field of a section means.

    Args:
        section: one of `SECTIONS`, or "" for the fields outside them.
        name: of the data set or the model; an unknown one has no fields.
    """
    source = described(section, name)
    if source is None:
        return {}
    shared = meanings(models.CommonOptions) if section == "model" else {}
    return shared | meanings(source)


def model_label(config: ml_collections.ConfigDict) -> str:
    """The model of a config for readers: "unet", or "unet + lim" with a base.

    An ensemble is "unet + lim (mean of 3 members)".
    """
    base, size = config.model.get("base"), config.model.get("ensemble", 1)
    label = f"{config.model.name} + {base}" if base else config.model.name
    return f"{label} (mean of {size} members)" if size > 1 else label


def described(section: str, name: str | None = None) -> type | None:
    """The class whose fields and docstring describe a section.

    Args:
        section: one of `SECTIONS`, or "" for the fields outside them.
        name: of the data set or the model.

    Returns:
        a dataclass or a Flax module; None if the section or the name is unknown.
    """
    if section == "":
        return Settings
    if section == "data":
        return data.settings(name) if name in data.MODULES else None
    if section == "model":
        return models.model_class(name) if name in models.names() else None
    return settings_lib.SECTIONS.get(section)


def _complete(section: ml_collections.ConfigDict, fields: Mapping[str, Any]) -> None:
    """Adds missing fields to a section, and types that its values do not reveal."""
    for name, default in fields.items():
        value = section.get(name)
        is_open = value is None and isinstance(default, ml_collections.FieldReference)
        if name not in section or is_open:
            section[name] = default
        elif isinstance(default, float) and type(value) is int:
            del section[name]
            section[name] = float(value)


def _name_remat(config: ml_collections.ConfigDict) -> None:
    """Writes a number or a truth value of `model.remat`, as older configs, by name."""
    model = config.get("model")
    if isinstance(model, ml_collections.ConfigDict) and "remat" in model:
        if remat.ACCEPTED.test(model.remat):
            name = remat.name_of(model.remat)
            del model["remat"]  # whose type may be another one
            model.remat = name


def _config_value(field: dataclasses.Field) -> Any:
    """The default of an option, as a type that --config.model.OPTION can change."""
    default = cast(Any, field.default)
    if isinstance(default, Mapping):
        return dict(default)
    if default is None:
        (kind,) = (t for t in typing.get_args(field.type) if t is not type(None))
        is_plain = typing.get_origin(kind) is None  # else Sequence[int] or similar
        return ml_collections.config_dict.placeholder(kind if is_plain else tuple)
    return default
