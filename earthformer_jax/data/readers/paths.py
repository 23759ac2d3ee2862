"""Paths given by the user."""

import stat
from pathlib import Path

from earthformer_jax.data.readers.layout import nearest


def existing(path: str, field: str) -> Path:
    """The path, with ~ expanded.

    Args:
        path: the path as given.
        field: name of the setting, for the message: "path".

    Raises:
        FileNotFoundError: if it does not exist; the message suggests a similar name.
        ValueError: if it is neither a file nor a folder.
    """
    found = Path(path).expanduser()
    if found.exists():
        if not found.is_file() and not found.is_dir():
            raise ValueError(special_file(found, field))
        return found
    if found.is_symlink():
        hint = f": it is a link to {found.readlink()}, which is not there"
    elif not found.parent.is_dir():
        hint = f" (nor does its directory {found.parent})"
    else:
        hint = nearest(found.name, (entry.name for entry in found.parent.iterdir()))
    raise FileNotFoundError(f"{field}={path} does not exist{hint}")


def special_file(path: Path, field: str = "path") -> str:
    """The message for what is neither a file nor a folder; opening it may hang."""
    mode = path.stat().st_mode
    kinds = {
        "a named pipe (FIFO)": stat.S_ISFIFO,
        "a socket": stat.S_ISSOCK,
        "a device": lambda m: stat.S_ISCHR(m) or stat.S_ISBLK(m),
    }
    kind = next((k for k, test in kinds.items() if test(mode)), "not a regular file")
    return f"{field}={path} is {kind}; expected a file that can be read more than once"
