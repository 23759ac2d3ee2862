"""Simple forecasts that a network corrects, by name (`models.hybrid`).

A base is a small Flax module `inputs -> forecast` on arrays `(B, T, H, W, C)`, without
parameters. What it has learned from the training period are constant arrays in the
collection `batch_stats`, which is saved with the parameters and never trained; training
begins with those that the data set gives (`data.dataset.Data.bases`).
"""

import importlib
from typing import Any

from earthformer_jax.checks import shown
from earthformer_jax.settings import nearest

_LINEAR = "models.bases.linear"
# The module, the class and the options of each base.
_BASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "persistence": ("models.persistence", "Persistence", {}),
    "damped_persistence": ("models.bases.damped", "DampedPersistence", {}),
    "lim": (_LINEAR, "LinearBase", {}),
    "lim_field_memory": (_LINEAR, "LinearBase", {"systems": 4, "uses_memory": True}),
    "lim_hidden": (_LINEAR, "HiddenStateBase", {"systems": 2}),
    "advection": ("models.bases.advection", "Advection", {}),
    "s_prog": ("models.bases.s_prog", "SProg", {}),
}
LEARNS_NOTHING = ("persistence", "advection", "s_prog")


def names() -> tuple[str, ...]:
    """Names that `create_base` knows."""
    return tuple(_BASES)


def create_base(
    name: str, input_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> Any:
    """A base for inputs (T, H, W, C_in) and targets (K, H, W, C_out).

    Raises:
        ValueError: for an unknown name (the nearest one is named), or shapes that the
            base cannot have.
    """
    if not isinstance(name, str) or name not in _BASES:
        hint = nearest(name, _BASES).replace("`", "") if isinstance(name, str) else ""
        raise ValueError(
            f"base={shown(name)}: expected an empty text or one of "
            f"{', '.join(_BASES)}{hint}"
        )
    module, attribute, options = _BASES[name]
    found = importlib.import_module(f"earthformer_jax.{module}")
    base = getattr(found, attribute)(input_shape, target_shape, **options)
    try:
        base.check()
    except ValueError as error:
        raise ValueError(f"base={name!r}: {error}") from error
    return base
