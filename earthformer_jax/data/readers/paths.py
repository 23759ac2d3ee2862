"""Paths that a user gives."""

import difflib
from pathlib import Path


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
        names = [entry.name for entry in found.parent.iterdir()]
        near = difflib.get_close_matches(found.name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
    raise FileNotFoundError(f"{field}={path} does not exist{hint}")
