"""Where config files are: in the current folder, or installed with the package."""

import pathlib

from earthformer_jax.run import config as config_lib

FOLDER = "configs"


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
    raise config_lib.ConfigError(
        f"the config file {name} does not exist; the installed ones are "
        f"{', '.join(names())}"
    )
