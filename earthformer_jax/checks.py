"""Checked arguments: what functions and models refuse, and the words for it.

Every message names an argument, gives its value (the shape of an array) and says what
is expected:

    features=4: expected a sequence, each entry a whole number (channels of each level)
    key has shape (2, 3): expected [b, n, s, a, d]

Shapes are known while JAX traces a program, so the checks cost nothing when it runs.
"""

import dataclasses
import reprlib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from earthformer_jax.settings import (
    FINITE,
    Accepted,
    at_least,
    expectation,
    meanings,
)

WHOLE = Accepted(
    "a whole number",
    lambda value: isinstance(value, int) and not isinstance(value, bool),
)
BOOLEAN = Accepted("True or False", lambda value: isinstance(value, bool))
TEXT = Accepted("a text", lambda value: isinstance(value, str))
NONE = Accepted("None", lambda value: value is None)
FLOATING = Accepted(
    "a floating-point type, such as float32 or 'bfloat16'",
    lambda value: _is_dtype(value, jnp.floating),
)
DTYPES = ("dtype", "param_dtype")
_PLAIN = {bool: BOOLEAN, int: WHOLE, float: FINITE, str: TEXT, type(None): NONE}
_OF_FLAX = ("parent", "name")


def either(*parts: Accepted) -> Accepted:
    """Values that one of several accepts."""
    return Accepted(
        " or ".join(part.expected for part in parts),
        lambda value: any(part.test(value) for part in parts),
        "".join(part.limits for part in parts[:1]),
    )


def each(entry: Accepted, length: int | None = None) -> Accepted:
    """Lists or tuples of such entries, of any length or of one."""
    kind = "a sequence" if length is None else f"a sequence of length {length}"
    return Accepted(
        f"{kind}, each entry {entry.expected}",
        lambda value: (
            isinstance(value, list | tuple)
            and length in (None, len(value))
            and all(accepts(entry, v) for v in value)
        ),
    )


SIZES = Accepted(
    "a sequence of whole numbers of at least 1",
    lambda value: each(at_least(1)).test(value) and len(value) > 0,
)


ODD = Accepted(
    "an odd whole number of at least 1",
    lambda value: WHOLE.test(value) and value > 0 and value % 2 == 1,
)


def grid(least: int = 1) -> Accepted:
    """Three whole numbers, for time, height and width."""
    entries = each(at_least(least), 3)
    return Accepted(
        f"three whole numbers of at least {least} (time, height, width)", entries.test
    )


def accepts(accepted: Accepted, value: Any) -> bool:
    """Whether a value is accepted; numbers of NumPy count as those of Python."""
    return accepted.test(value.item() if isinstance(value, np.generic) else value)


def inherited(group: type, name: str) -> Any:
    """A field with the default and the accepted values of one in another dataclass."""
    (field,) = (f for f in dataclasses.fields(group) if f.name == name)
    metadata = {**field.metadata, "described_in": (group, name)}
    return dataclasses.field(default=field.default, metadata=metadata)


def accepted_by(annotation: Any) -> Accepted | None:
    """The values that a type annotation allows; None if it does not say."""
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        known = [accepted_by(part) for part in parts]
        complete = [a for a in known if a is not None]
        return either(*complete) if len(complete) == len(known) else None
    if origin in (tuple, Sequence):
        entry = accepted_by(parts[0])
        fixed = origin is tuple and parts[-1] is not Ellipsis
        length = len(parts) if fixed else None
        return each(entry or Accepted("of its kind", lambda value: True), length)
    if origin is Mapping:
        return Accepted("a mapping", lambda value: isinstance(value, Mapping))
    if origin is Callable or annotation is Callable:
        return Accepted("a function", callable)
    return None


def check_value(name: str, value: Any, accepted: Accepted, meaning: str = "") -> None:
    """Refuses a value that is not accepted.

    Raises:
        ValueError: naming the argument, its value and what is expected.
    """
    if not accepts(accepted, value):
        raise ValueError(_refusal(name, value, accepted, meaning))


def _refusal(name, value, accepted, meaning):
    note = f" ({meaning})" if meaning else ""
    return f"{name}={shown(value)}: expected {expectation(accepted, value)}{note}"


def check_fields(options: Any) -> None:
    """Refuses the values of a dataclass or a Flax module that a field does not accept.

    A field accepts what `settings.setting` says, or else what its type allows: `int`
    whole numbers, without True and False, `float` finite numbers.

    Raises:
        ValueError: naming every such field, its value, and what it means.
    """
    problems = []
    for field in dataclasses.fields(options):
        if field.name in _OF_FLAX:
            continue
        accepted = field.metadata.get("accepted")
        if accepted is None and field.name in DTYPES:
            accepted = FLOATING if "param" in field.name else either(FLOATING, NONE)
        accepted = accepted or accepted_by(field.type)
        value = getattr(options, field.name)
        if accepted is not None and not accepts(accepted, value):
            meaning = meanings(type(options)).get(field.name, "")
            problems.append(_refusal(field.name, value, accepted, meaning))
    if problems:
        raise ValueError("\n".join(problems))


def check_array(
    name: str,
    array: Any,
    axes: str,
    known: Mapping[str, int] = types.MappingProxyType({}),
    *,
    kind: Any = None,
) -> dict[str, int]:
    """Refuses what is not an array with these axes, and returns their sizes.

    Args:
        name: of the argument.
        array: of NumPy or JAX, perhaps traced.
        axes: a letter or a name for each axis, "b t h w c"; "..." at the start stands
            for any number of axes. A "1" is an axis of size 1.
        known: sizes that axes must have, as returned for other arrays.
        kind: a dtype or a kind such as `jnp.floating`; None: any.

    Returns:
        `known`, with the size of every axis.

    Raises:
        ValueError: naming the argument, its shape or type, and what is expected.
    """
    if not (hasattr(array, "shape") and hasattr(array, "dtype")):
        raise ValueError(f"{name}={shown(array)}: expected an array {_axes(axes, {})}")
    names, shape = axes.split(), tuple(array.shape)
    if names[0] == "...":
        names = names[1:]
        shape = shape[len(shape) - len(names) :] if len(shape) >= len(names) else ()
    sizes = dict(known)
    fits = len(shape) == len(names)
    for axis, size in zip(names, shape, strict=False):
        fits &= sizes.setdefault(axis, 1 if axis == "1" else size) == size
    if not fits:
        raise ValueError(
            f"{name} has shape {tuple(array.shape)}: expected {_axes(axes, known)}"
        )
    if kind is not None and not _is_dtype(array.dtype, kind):
        wanted = getattr(kind, "__name__", str(kind))
        raise ValueError(f"{name} is of type {array.dtype}: expected {wanted}")
    return sizes


def shown(value: Any) -> str:
    """A short text for a value: the shape of an array, else its beginning."""
    if hasattr(value, "shape") and hasattr(value, "dtype") and value.shape:
        return f"<array of shape {tuple(value.shape)}>"
    return " ".join(reprlib.repr(value).split())


def _axes(axes: str, known: Mapping[str, int]) -> str:
    """ "[b, t, h]", or "[b, t, h] = [2, t, 8]" if some sizes are known."""
    names = axes.split()
    text = f"[{', '.join(names)}]"
    if not any(name in known for name in names):
        return text
    return f"{text} = [{', '.join(str(known.get(name, name)) for name in names)}]"


def _is_dtype(value: Any, kind: Any) -> bool:
    if value is None or isinstance(value, int | float | tuple | list):
        return False
    try:
        return bool(jnp.issubdtype(jnp.dtype(value), kind))
    except TypeError:
        return False
