"""A file or folder that appears complete or not at all, whenever the process ends."""

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux
_BEFORE = "before"  # name of what was replaced, where two names cannot be exchanged


@contextlib.contextmanager
def completed(path: Path) -> Iterator[Path]:
    """Gives a path to write to, and moves what was written to `path` in the end.

    It lies in the folder `.NAME.part` next to `path`, which belongs to one process at a
    time. Whatever a killed process left in it is removed by the next one.

    Args:
        path: of a file or folder, which may exist.

    Raises:
        BlockingIOError: if another process writes to the same path.
        OSError: if it cannot be written.
    """
    path = Path(os.path.realpath(path))  # what a link points to is replaced, not it
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.part")
    with _owned(folder, path):
        _recover(path, folder / _BEFORE)
        for left in folder.iterdir():
            _remove(left)
        try:
            yield folder / path.name
            _replace(folder / path.name, path, folder / _BEFORE)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _owned(folder: Path, path: Path) -> Iterator[None]:
    """Creates a folder and locks it; the lock ends with the process."""
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(
                errno.EWOULDBLOCK, "another process is writing it now", str(path)
            ) from None
        except OSError:
            pass  # a file system without locks
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(folder), os.fstat(descriptor)):
                break
        os.close(descriptor)  # its owner has just removed it
    try:
        yield
    finally:
        os.close(descriptor)


def _replace(new: Path, path: Path, before: Path) -> None:
    """Moves a new file or folder to where an old one may be."""
    if not (new.is_dir() and path.exists()):
        os.replace(new, path)
    elif not _exchange(new, path):
        os.rename(path, before)
        os.rename(new, path)


def _recover(path: Path, before: Path) -> None:
    """Puts back what a process had moved away when it was killed."""
    if before.exists() and not path.exists():
        os.rename(before, path)


def _exchange(a: Path, b: Path) -> bool:
    """Exchanges two names at once; False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(a), os.fsencode(b)
    return not rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
