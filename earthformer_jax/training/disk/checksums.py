"""Sizes and checksums of the files of a folder, so that damage is noticed.

They are kept in the folder itself, as `checksums.json`:
{"state/manifest.ocdbt": {"bytes": 114, "sha256": "9f86..."}, ...}.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Collection

FILE = "checksums.json"


def write(folder: pathlib.Path) -> None:
    """Describes every file of a folder that will not change any more.

    Raises:
        OSError: if a file cannot be read, or the description cannot be written.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    described = {str(p.relative_to(folder)): _describe(p) for p in paths}
    with (folder / FILE).open("w") as file:
        json.dump(described, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def verify(folder: pathlib.Path, only: Collection[str] | None = None) -> None:
    """Compares the files of a folder with their description.

    Files that were added later are not looked at.

    Args:
        folder: that `write` has described.
        only: names of files, relative to the folder; None: all files.

    Raises:
        ValueError: naming the first file that differs, or the description if it does
            not list the files of `only`.
        OSError: if a file cannot be read.
    """
    described = json.loads((folder / FILE).read_text())
    for name in described if only is None else only:
        if name not in described:
            raise ValueError(f"{FILE} does not list {name}")
        expected, path = described[name], folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise ValueError(f"{name} has {size} bytes, expected {expected['bytes']}")
        if _describe(path) != expected:
            raise ValueError(f"{name} differs from its checksum")


def _describe(path: pathlib.Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}
