"""What a training minimises, by name.

A loss is a pure function `loss(forecast, targets, weights, observed)` with a scalar as
result, weighted and masked over cells in one way (`losses.cells`). `create_loss` makes
one from its name and plain options, as a config holds them.
"""

import dataclasses
import importlib
from typing import Any

from earthformer_jax.checks import check_fields
from earthformer_jax.losses.contract import Loss
from earthformer_jax.settings import Checked, ConfigError, nearest

# The module and class of each loss.
_LOSSES = {
    "mse": (f"{__name__}.pointwise", "SquaredError"),
    "mae": (f"{__name__}.pointwise", "AbsoluteError"),
    "huber": (f"{__name__}.pointwise", "Huber"),
    "pinball": (f"{__name__}.pointwise", "Pinball"),
    "b_mse": (f"{__name__}.exceedance", "BalancedError"),
    "facl": (f"{__name__}.fourier", "FourierAmplitudeCorrelation"),
    "afcrps": (f"{__name__}.crps", "AlmostFairCrps"),
    "none": (f"{__name__}.own", "OwnTerms"),
}


def names() -> tuple[str, ...]:
    """Names that `create_loss` knows."""
    return tuple(_LOSSES)


def loss_class(name: str) -> type[Any]:
    """The class of a loss, a dataclass whose fields are its options.

    Raises:
        ValueError: for an unknown loss; the known ones are named.
    """
    if not isinstance(name, str) or name not in _LOSSES:
        raise ValueError(f"loss={name!r}: expected one of {', '.join(_LOSSES)}")
    module, attribute = _LOSSES[name]
    return getattr(importlib.import_module(module), attribute)


def create_loss(name: str, **options: Any) -> Loss:
    """A loss.

    Args:
        name: one of `names()`.
        **options: fields of its class; lists become tuples.

    Raises:
        ValueError: for an unknown name or option (the nearest one is named), or a value
            that an option does not accept.
    """
    made = loss_class(name)
    known = [field.name for field in dataclasses.fields(made)]
    for option in options:
        if option not in known:
            has = f"its options are {', '.join(known)}" if known else "it has none"
            raise ValueError(
                f"loss {name!r} has no option {option!r}{nearest(option, known)} "
                f"({has})"
            )
    loss: Loss = made(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    )
    check_fields(loss)
    if isinstance(loss, Checked):
        loss.check()
    return loss


def choose(name: str, *, own_loss: bool, takes_members: bool) -> str:
    """The loss that a model is trained with.

    Args:
        name: that is asked for; empty: the one that suits the model.
        own_loss: whether all that the model learns from are terms of its own.
        takes_members: whether the model forecasts several members in training.

    Returns:
        one of `names()`.

    Raises:
        ConfigError: for an unknown name, or a loss that the model cannot be trained
            with.
    """
    if not name:
        return "none" if own_loss else "afcrps" if takes_members else "mse"
    if name not in _LOSSES:
        raise ConfigError(f"loss={name!r}: expected one of {', '.join(_LOSSES)}")
    if own_loss != (name == "none"):
        why = "learns from loss terms of its own alone" if own_loss else "has none"
        raise ConfigError(
            f"loss={name!r}: the model {why}; expected "
            + ("'none', or to be left empty" if own_loss else "another loss")
        )
    if loss_class(name).takes_members != takes_members and not own_loss:
        why = (
            "several members" if takes_members else "one forecast, not several members"
        )
        suits = [x for x in _LOSSES if loss_class(x).takes_members == takes_members]
        raise ConfigError(
            f"loss={name!r}: the model is trained with {why}; expected "
            f"{', '.join(x for x in suits if x != 'none')}"
        )
    return name
