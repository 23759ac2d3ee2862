"""Paths that a user gives."""

from pathlib import Path

from earthformer_jax.data.readers.layout import nearest


def existing(path: str, field: str) -> Path:
    """The path, with ~ expanded.

    Args:
        path: what the user wrote.
        field: where, for the message: "path".

    Raises:
        FileNotFoundError: if there is nothing, naming what is near.
    """
    found = Path(path).expanduser()
    if found.exists():
        return found
    if not found.parent.is_dir():
        hint = f" (nor does its directory {found.parent})"
    else:
        hint = nearest(found.name, (entry.name for entry in found.parent.iterdir()))
    raise FileNotFoundError(f"{field}={path} does not exist{hint}")
