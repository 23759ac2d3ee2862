"""Paths given by the user."""

from pathlib import Path

from earthformer_jax.data.readers.layout import nearest


def existing(path: str, field: str) -> Path:
    """The path, with ~ expanded.

    Args:
        path: the path as given.
        field: name of the setting, for the message: "path".

    Raises:
        FileNotFoundError: if it does not exist; the message suggests a similar name.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    if not found.parent.is_dir():
        hint = f" (nor does its directory {found.parent})"
    else:
        hint = nearest(found.name, (entry.name for entry in found.parent.iterdir()))
    raise FileNotFoundError(f"{field}={path} does not exist{hint}")
