"""Settings are dataclasses: each field has one default, a meaning, and accepted values.

    @dataclasses.dataclass(frozen=True)
    class TrainSettings:
        '''...

        Attributes:
            batch_size: examples per optimiser step.
        '''

        batch_size: int = setting(64, at_least(1))

    settings_from(TrainSettings, {"batch_size": 0}, "training")
    # ConfigError: batch_size=0: expected a whole number of at least 1 (examples per
    # optimiser step)

Messages name a field as `batch_size=0`, or in backquotes where they give no value. That
is what `qualified` needs to name the flag of the command line instead.
"""

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

T = TypeVar("T")


class ConfigError(ValueError):
    """Settings that cannot be used; the message says which, and why.

    Attributes:
        problems: what is wrong, one line each.
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclasses.dataclass(frozen=True)
class Accepted:
    """Values that a field accepts.

    Attributes:
        expected: follows "expected" in messages.
        test: whether a value is accepted.
        limits: added to `expected` for numbers of an extreme size.
    """

    expected: str
    test: Callable[[Any], bool]
    limits: str = ""


# Computing is in float32, and counts are int32.
FLOAT32_LEAST, FLOAT32_MOST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
INT32_MOST = 2**31 - 1
UINT32_MOST = 2**32 - 1


def at_least(least: int, most: int = INT32_MOST) -> Accepted:
    """Whole numbers from `least` to `most`."""
    bounds = f"of at least {least}"
    if most != INT32_MOST:
        bounds = f"from {least} to {most}"
    return Accepted(
        f"a whole number {bounds}",
        lambda value: (
            isinstance(value, int)
            and not isinstance(value, bool)
            and least <= value <= most
        ),
        limits=f" and at most {INT32_MOST}" if most == INT32_MOST else "",
    )


def number(which: str, test: Callable[[float], bool]) -> Accepted:
    """Numbers that float32 can hold and that pass a test.

    Args:
        which: describes them after "a number".
        test: of a finite number.
    """
    return Accepted(
        f"a number {which}",
        lambda value: (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and is_float32(value)
            and test(value)
        ),
        limits=f" in float32 (from {FLOAT32_LEAST:.2g} to {FLOAT32_MOST:.2g})",
    )


def is_float32(value: float) -> bool:
    """Whether a number is neither infinite nor, unless it is 0, zero in float32."""
    return value == 0 or FLOAT32_LEAST <= abs(value) <= FLOAT32_MOST


def choice(*choices: str) -> Accepted:
    """One of several texts."""
    return Accepted(
        " or ".join(map(repr, choices)),
        lambda value: isinstance(value, str) and value in choices,
    )


POSITIVE = number("greater than 0", lambda value: value > 0)
NOT_NEGATIVE = number("of at least 0", lambda value: value >= 0)
FRACTION = number("between 0 and 1", lambda value: 0 <= value <= 1)
DECAY = number("of at least 0 and less than 1", lambda value: 0 <= value < 1)
FINITE = number("that is finite", lambda value: True)
PATH = Accepted("a path, or an empty text", lambda value: isinstance(value, str))
TEXT = Accepted("a text", lambda value: isinstance(value, str))


def setting(default: Any, accepted: Accepted, **metadata: Any) -> Any:
    """A field of a dataclass, with its default and the values it accepts.

    Args:
        default: the value of the field where none is given.
        accepted: tested by `settings_from`.
        **metadata: further entries of the field's metadata.
    """
    metadata["accepted"] = accepted
    return dataclasses.field(default=default, metadata=metadata)


@runtime_checkable
class Checked(Protocol):
    """Settings that know which of their values are inconsistent."""

    def check(self) -> None:
        """Raises ConfigError for inconsistent values."""


def settings_from(settings: type[T], values: Mapping[str, Any], what: str) -> T:
    """Settings with the given values, and defaults for those that are left out.

    Args:
        settings: a dataclass. If it has a method `check`, that is called as well.
        values: any of its fields.
        what: what is set, for messages: "the ENSO data".

    Raises:
        ConfigError: for an unknown field (the message suggests the nearest known one)
            or for values that are not accepted (the message names all of them).
    """
    fields = dataclasses.fields(cast(Any, settings))
    names = [field.name for field in fields]
    for name in values:
        if name not in names:
            raise ConfigError(
                f"`{name}` is not a setting of {what}{nearest(name, names)} "
                f"(the settings are: {', '.join(names)})"
            )
    made = settings(**values)
    problems = [
        not_accepted(made, field.name)
        for field in fields
        if "accepted" in field.metadata
        and not field.metadata["accepted"].test(getattr(made, field.name))
    ]
    if problems:
        raise ConfigError(*problems)
    if isinstance(made, Checked):
        made.check()
    return made


def not_accepted(settings: Any, name: str) -> str:
    """What to say about a value that a field does not accept."""
    value = getattr(settings, name)
    (field,) = (f for f in dataclasses.fields(settings) if f.name == name)
    meaning = meanings(type(settings)).get(name)
    expected = expectation(field.metadata["accepted"], value)
    return f"{name}={value!r}: expected {expected}{f' ({meaning})' if meaning else ''}"


def expectation(accepted: Accepted, value: Any) -> str:
    """What follows "expected", with the limits if the value is extreme."""
    extreme = accepted.limits and _is_extreme(value)
    return accepted.expected + (accepted.limits if extreme else "")


def _is_extreme(value: Any) -> bool:
    """Whether a value is a number that is too large or too small to compute with."""
    if not isinstance(value, int | float) or value != value:
        return False
    return not is_float32(value) or (isinstance(value, int) and abs(value) > INT32_MOST)


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean `path`?" for "pat", or nothing if no known name is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def meanings(settings: type) -> dict[str, str]:
    """What each field means, by name, from the "Attributes" section of the docstring.

    Args:
        settings: a class; fields missing from its docstring are looked up in its bases,
            and in the class that they were taken from (`checks.inherited`).
    """
    found = {}
    for base in reversed(settings.__mro__):
        doc = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        section = re.search(r"^Attributes:\n((?: .*\n?|\n)*)", doc, re.MULTILINE)
        entries = re.findall(
            r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.M
        )
        for name, text in entries:
            found[name] = " ".join(text.split()).removesuffix(".")
    if not dataclasses.is_dataclass(settings):
        return found
    for field in dataclasses.fields(settings):
        if source := field.metadata.get("described_in"):
            group, name = source
            found.setdefault(field.name, meanings(group).get(name, ""))
    return found


def qualified(message: str, prefix: str, names: Iterable[str]) -> str:
    """A message in which fields are given their full names: "config.data.in_len=0".

    Args:
        message: names fields as `in_len=0`, or in backquotes.
        prefix: what comes before them: "config.data.".
        names: the fields.
    """
    known = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    if not known:
        return message
    pattern = rf"`({known})`|(?<![\w./-])({known})(?==)"
    return re.sub(pattern, lambda m: prefix + (m[1] or m[2]), message)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim.lr": 1e-3, ...} from nested mappings; an empty mapping is a value."""
    fields = {}
    for key, value in tree.items():
        if hasattr(value, "items") and len(value):
            fields |= flatten(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields
