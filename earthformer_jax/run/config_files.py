"""Config files: where they are, and the complete config of one.

A config file has a function `get_config(variant)` that returns what differs from the
defaults; `load` adds everything else. Files are in the current folder, or installed
with the package.
"""

import pathlib
import runpy

import ml_collections

from earthformer_jax import models
from earthformer_jax.run import recipes
from earthformer_jax.run.config import completed
from earthformer_jax.settings import ConfigError

FOLDER = "configs"


def load(name: str) -> ml_collections.ConfigDict:
    """The complete, locked config of a file.

    Args:
        name: as for `locate`; with a variant, "enso:quick", and with another model,
            "enso:quick,unet", in its size for that variant and the data.

    Raises:
        ConfigError: if there is no such file or variant.
    """
    file, _, variant = name.partition(":")
    rest, comma, model = variant.rpartition(",")
    is_known = model in models.names()
    if is_known:
        variant = rest
    path = locate(file)
    try:
        space = runpy.run_path(path)
        if "get_config" not in space:
            raise ConfigError(f"{path} has no function get_config")
        config = space["get_config"](*filter(None, [variant]))
    except (ValueError, TypeError, KeyError, OSError) as error:
        hint = ""
        if comma and not is_known:
            hint = f"; unknown model {model!r}; the models are "
            hint += ", ".join(models.names())
        raise ConfigError(f"config {name!r}: {error}{hint}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(f"config {name!r}: get_config does not return a ConfigDict")
    if is_known and config.model.name != model:
        with config.unlocked():
            config.model = recipes.model_options(model, variant, config.data.name)
    return completed(config)


def installed() -> pathlib.Path:
    """The folder of the configs that come with the package."""
    package = pathlib.Path(__file__).parents[1]
    inside = package / FOLDER
    return inside if inside.is_dir() else package.parent / FOLDER  # of a checkout


def names() -> list[str]:
    """The installed configs: ["configs/climate.py", ...]."""
    return sorted(f"{FOLDER}/{file.name}" for file in installed().glob("*.py"))


def locate(name: str) -> str:
    """The path of a config file.

    A file in the current folder comes first, then one in its folder configs/, then one
    that was installed with the package.

    Args:
        name: a path, or the name of an installed config: "configs/enso.py", "enso".

    Returns:
        a path that exists: `name` itself, or one of the others.

    Raises:
        ConfigError: if there is none; the message lists the installed ones.
    """
    path = pathlib.Path(name)
    candidates = [path]
    if str(path.parent) in (".", FOLDER) and path.suffix in ("", ".py"):
        file = f"{path.stem}.py"
        candidates += [pathlib.Path(FOLDER, file), installed() / file]
    for candidate in candidates:
        if candidate.is_file():
            return str(candidate)
    raise ConfigError(
        f"the config file {name} does not exist; the installed ones are "
        f"{', '.join(names())}"
    )
