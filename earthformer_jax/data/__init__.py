"""Data sets by name.

Names are imported when they are first used (from `by_name`), so that a process that
only reads examples imports nothing but the module of its source.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earthformer_jax.data.by_name import (
        MODULES,
        beginnings,
        encoding,
        load,
        settings,
    )

__all__ = ["MODULES", "beginnings", "encoding", "load", "settings"]


def __getattr__(name: str) -> Any:
    """Imports a name of `__all__` when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.by_name")
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
