"""From `config.data` to the settings of a data set."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def fill(settings: type[T], config: Mapping[str, Any], what: str) -> T:
    """Settings with the values of a config, and defaults for what it leaves out.

    Args:
        settings: a dataclass.
        config: `config.data`.
        what: the data, for messages: "the ENSO data".

    Raises:
        ValueError: on an unknown field.
    """
    names = [field.name for field in dataclasses.fields(settings)]
    for name in config:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean config.data.{near[0]}?" if near else ""
            raise ValueError(
                f"config.data.{name} is no setting of {what}{hint} "
                f"(there are: {', '.join(names)})"
            )
    return settings(**config)


def check_at_least(settings: Any, least: int, names: Iterable[str], unit: str) -> None:
    """Refuses whole numbers that are too small.

    Raises:
        ValueError: naming the first of them.
    """
    for name in names:
        value = getattr(settings, name)
        if value < least:
            raise ValueError(
                f"config.data.{name}={value}: expected {least} or more {unit}"
            )


def check_choice(settings: Any, name: str, known: Iterable[str]) -> None:
    """Refuses a value that is not one of those known.

    Raises:
        ValueError: naming it, and the nearest that is known.
    """
    value, known = getattr(settings, name), list(known)
    if value not in known:
        near = difflib.get_close_matches(str(value), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"config.data.{name}={value!r} is unknown{hint} "
            f"(there are: {', '.join(map(repr, known))})"
        )
