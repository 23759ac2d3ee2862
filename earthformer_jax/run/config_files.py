"""Config files: finding them, and loading a complete config.

A config file has a function `get_config(variant)` that returns what differs from the
defaults; `load` adds everything else. Files are in the current folder, or installed
with the package.
"""

import dataclasses
import pathlib
import runpy
import traceback
from collections.abc import Container, Sequence

import ml_collections

from earthformer_jax import data, models
from earthformer_jax.interop import official_yaml
from earthformer_jax.run import recipes
from earthformer_jax.run.config import completed, defaults
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.workdir import CONFIG_FILE, read_config

FOLDER = "configs"


def load(name: str) -> ml_collections.ConfigDict:
    """The complete, locked config of a file.

    Args:
        name: as for `locate`, with an optional variant, "enso:quick". After the
            variant it may name another model, "enso:quick,unet", which gets its size
            for that variant and data set, or another data set, which takes over the
            values of all fields that it also has. The config.json of a workdir is the
            config it was started with. A yaml file of the reference implementation
            gives model and data (`interop.official_yaml`).

    Raises:
        ConfigError: if there is no such file or variant.
    """
    if pathlib.Path(name).name == CONFIG_FILE and pathlib.Path(name).is_file():
        return completed(read_config(pathlib.Path(name).parent))
    file, _, variant = name.partition(":")
    if pathlib.Path(file).suffix in official_yaml.SUFFIXES:
        return _official(file, variant)
    parts = variant.split(",")
    model = _last(parts, models.names())
    data_set = _last(parts, data.MODULES)
    variant = ",".join(part for part in parts if part not in (model, data_set))
    path = locate(file)
    try:
        space = runpy.run_path(path)
        if "get_config" not in space:
            raise ConfigError(f"{path} has no function get_config")
        config = space["get_config"](*filter(None, [variant]))
    except (Exception, SystemExit) as error:  # a config file is any program
        hint = ""
        if "," in variant:
            hint = f"; unknown model {parts[-1]!r}; the models are "
            hint += ", ".join(models.names())
        reason = _reason(error, path)
        raise ConfigError(f"config {name!r}: {reason}{hint}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"config {name!r}: get_config of {path} returns {type(config).__name__}, "
            "not an ml_collections.ConfigDict"
        )
    config = ml_collections.ConfigDict(config)  # a frozen one cannot be changed
    try:
        data_set = data_set or config.data.name
    except AttributeError:
        return completed(config)  # checking reports what is missing
    with config.unlocked():
        if config.data.name != data_set:
            known = defaults("data", data_set)
            shared = {field: x for field, x in config.data.items() if field in known}
            config.data = shared | {"name": data_set}
        if model and config.model.name != model:
            common = dataclasses.fields(models.CommonOptions)
            kept = {
                f.name: config.model[f.name] for f in common if f.name in config.model
            }
            config.model = recipes.model_options(model, variant, data_set) | kept
    return completed(config)


def _official(file: str, variant: str) -> ml_collections.ConfigDict:
    """The complete config that a yaml file of the reference describes.

    Raises:
        ConfigError: if it cannot be used.
    """
    if variant:
        raise ConfigError(f"{file} has no variants; got {variant!r}")
    try:
        fields = official_yaml.read(locate(file))
    except (ValueError, OSError) as error:
        raise ConfigError(f"config {file!r}: {error}") from error
    return completed(ml_collections.ConfigDict(fields))


def with_names(name: str, data_set: str | None, model: str | None) -> str:
    """A name for `load` that also chooses a data set and a model.

    Args:
        name: as for `load`; returned unchanged if it already chooses either.
        data_set: one of `data.MODULES`; anything else is ignored.
        model: one of `models.names()`; anything else is ignored.
    """
    file, _, variant = name.partition(":")
    chosen = [x for x in (data_set,) if x in data.MODULES]
    chosen += [x for x in (model,) if x in models.names()]
    if not chosen or "," in variant:
        return name
    return f"{file}:{','.join([variant, *chosen])}"


def _last(parts: Sequence[str], known: Container[str]) -> str | None:
    """The last part that is a known name, or None."""
    return next((part for part in reversed(parts) if part in known), None)


def _reason(error: BaseException, path: str) -> str:
    """What is wrong with a config file, on one line, with the line of the file."""
    text = " ".join(str(error).split())[:300]
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}, line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == path]
    known = isinstance(error, ValueError | TypeError | OSError)
    if known and (not lines or frames[-1].filename != path):
        return text
    where = f"{path}, line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}" + (f": {text}" if text else "")


def installed() -> pathlib.Path:
    """The folder of the configs that come with the package."""
    package = pathlib.Path(__file__).parents[1]
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER  # in a checkout


def names() -> list[str]:
    """The installed configs: ["configs/climate.py", ...]."""
    return sorted(f"{FOLDER}/{file.name}" for file in installed().glob("*.py"))


def locate(name: str) -> str:
    """The path of a config file.

    The current folder is searched first, then its subfolder configs/, then the configs
    installed with the package.

    Args:
        name: a path, or the name of an installed config: "configs/enso.py", "enso".

    Returns:
        a path that exists: `name` itself, or one of the others.

    Raises:
        ConfigError: if there is no such file; the message lists the installed ones.
    """
    path = pathlib.Path(name)
    candidates = [path]
    if str(path.parent) in (".", FOLDER) and path.suffix in ("", ".py"):
        file = f"{path.stem}.py"
        candidates += [pathlib.Path(FOLDER, file), installed() / file]
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    problem = "is a folder" if path.is_dir() else "does not exist"
    raise ConfigError(
        f"the config file {name} {problem}; the installed ones are {', '.join(names())}"
    )
