"""What the models of several workdirs are called when they are compared."""

from collections.abc import Collection
from pathlib import Path


def of_files(files: Collection[Path], taken: Collection[str]) -> dict[Path, str]:
    """A name for the model of each file, after as few folders as tell them apart.

    Args:
        files: in the workdirs; all are different.
        taken: names of references.
    """
    parts = {file: file.absolute().parent.parts for file in files}
    if len({file.absolute().parent for file in files}) < len(files):  # several labels
        parts = {file: (*x, file.stem) for file, x in parts.items()}
    for length in range(1, max(map(len, parts.values())) + 1):
        names = {file: "/".join(x[-length:]) for file, x in parts.items()}
        unique = len(set(names.values())) == len(names)
        if unique and not set(names.values()) & set(taken):
            return names
    return {file: f"model in {file}" for file in files}
