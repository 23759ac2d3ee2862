"""Notices that a file was replaced or cut after it was opened.

Reading such a file would give the values of two files in one training, zeros, or, if it
is mapped to memory, no more than a signal that ends the process.
"""

import os
from collections.abc import Iterable
from pathlib import Path

# Of Zarr, formats 2 and 3.
METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
MOST_FOLDERS = 256  # with chunks only; more would take longer than reading

Stamp = tuple[tuple[str, int, int], ...]


class ChangedError(OSError):
    """A file is not the one that was opened."""


def stamp(path: str | Path) -> Stamp:
    """Name, size and modification time of a file, or of parts of a Zarr store.

    Of a store, the metadata and the folders of the chunks: adding, removing or renaming
    a chunk changes the modification time of its folder. Of a store with very many
    folders only those with metadata are looked at.

    Raises:
        OSError: if it does not exist.
    """
    return tuple(_stamp_one(place) for place in _places(path))


def check(path: str | Path, before: Stamp) -> None:
    """Rejects a file that is no longer the same.

    Args:
        path: the file.
        before: its stamp when it was opened.

    Raises:
        ChangedError: if it was removed, replaced, cut or written to.
    """
    for name, size, modified in before:
        try:
            _, size_now, modified_now = _stamp_one(name)
        except OSError as error:
            raise ChangedError(
                f"{path} cannot be read any more ({error.strerror}); it was there when "
                "training began. Put it back, or start again with other data"
            ) from None
        if (size_now, modified_now) == (size, modified):
            continue
        how = "was written to"
        if size_now != size and not os.path.isdir(name):
            how = f"has {size_now} bytes where it had {size}"
        raise ChangedError(
            f"{path} has changed since training began: it {how}. Restore it, or start "
            "again in a new workdir"
        )


def _places(path: str | Path) -> Iterable[str]:
    if not os.path.isdir(path):
        return (str(path),)
    metadata, folders = [], []
    for folder, _, files in os.walk(path):
        described = [os.path.join(folder, name) for name in files if name in METADATA]
        metadata += [folder, *described] if described else []
        folders += [] if described else [folder]
    return metadata + (folders if len(folders) <= MOST_FOLDERS else [])


def _stamp_one(name: str) -> tuple[str, int, int]:
    status = os.stat(name)
    size = 0 if os.path.isdir(name) else status.st_size
    return name, size, status.st_mtime_ns
