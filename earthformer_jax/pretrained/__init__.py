"""Small trained models that come with the package, one `.efx` file each.

`experiments/shipped_models.py` makes them; docs/pretrained.md describes them.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
SUFFIX = ".efx"


def names() -> list[str]:
    """The names of the models, sorted."""
    return sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}"))


def path(name: str) -> Path:
    """The file of a model, whether or not there is one."""
    return FOLDER / f"{name}{SUFFIX}"
