"""Data sets that differ only in a number: sequences or frames, not variables."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from earthformer_jax.data.readers.axes import MOST_CHANNELS

SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
# Words before a number that count independent pieces of time.
PIECES = re.compile(
    r"(event|seq|sequence|sample|case|storm|episode|clip|video|example|traj|trajectory"
    r"|sim|simulation|run|movie|scene|patch|tile|member)s?[_\-]?#",
    re.IGNORECASE,
)
DATE_DIGITS = 6  # a number this long is a date, not a level


@dataclasses.dataclass(frozen=True)
class Row:
    """Data sets of one number: the variables of a sequence or a frame.

    Attributes:
        names: of the data sets, one for each variable.
        numbers: in the names.
        split: "train", "validation", "test", or "" if the names do not say.
    """

    names: tuple[str, ...]
    numbers: tuple[str, ...]
    split: str = ""


@dataclasses.dataclass(frozen=True)
class Stack:
    """Rows in the order of their splits and numbers.

    Attributes:
        variables: the names without numbers and splits, one for each variable.
        rows: the data sets.
        certain: whether the names cannot be those of variables.
        companions: names, as `variables`, of all arrays with the same numbers, whatever
            their shape.
    """

    variables: tuple[str, ...]
    rows: tuple[Row, ...]
    certain: bool
    companions: frozenset[str] = frozenset()


def find_stack(shapes: Mapping[str, Sequence[int]]) -> Stack | None:
    """The stack that most of the values of a file belong to.

    Args:
        shapes: of the data sets, by name.

    Returns:
        the stack; None if the largest data set has no companions.
    """
    parts = {name: _parts(name) for name in shapes}
    splits = {split for _, split, _ in parts.values() if split}
    if len(splits) < 2:  # one group of that name divides nothing
        parts = {name: (_pattern(name), "", numbers(name)) for name in shapes}
    members: dict[str, dict[tuple, str]] = {}
    for name, (pattern, split, digits) in parts.items():
        members.setdefault(pattern, {})[split, digits] = name
    sizes = {
        pattern: sum(_count(shapes[name]) for name in found.values())
        for pattern, found in members.items()
    }
    main = max(sizes, key=lambda pattern: sizes[pattern])
    keys = sorted(members[main], key=_order)
    if len(keys) < 2:
        return None
    companions = [p for p, found in members.items() if set(keys) <= set(found)]
    variables = [
        pattern
        for pattern in companions
        if all(
            tuple(shapes[members[pattern][key]]) == tuple(shapes[members[main][key]])
            for key in keys
        )
    ]
    rows = tuple(
        Row(tuple(members[v][key] for v in variables), key[1], key[0]) for key in keys
    )
    places = [
        i
        for i, x in enumerate(zip(*(k[1] for k in keys), strict=True))
        if len(set(x)) > 1
    ]
    varying = [[key[1][place] for key in keys] for place in places]
    return Stack(
        variables=tuple(_label(v, keys[0][1], places) for v in variables),
        rows=rows,
        certain=bool(keys[0][0]) or _is_certain(main, varying),
        companions=frozenset(_label(p, keys[0][1], places) for p in companions),
    )


def numbers(name: str) -> tuple[str, ...]:
    """The runs of digits in a name."""
    return tuple(re.findall(r"\d+", name))


def are_levels(stack: Stack) -> bool:
    """Whether the numbers look like levels: few, and not counted one by one."""
    values = sorted(int(row.numbers[-1]) for row in stack.rows)
    counted = values == list(range(values[0], values[0] + len(values)))
    return len(values) <= MOST_CHANNELS and not counted


def _is_certain(pattern: str, varying: Sequence[Sequence[str]]) -> bool:
    """Whether a pattern of names counts pieces of time."""
    whole = any(part == "#" for part in pattern.split("/"))
    dated = any(len(x) >= DATE_DIGITS for digits in varying for x in digits)
    counted = False
    for digits in varying:
        values = sorted(set(map(int, digits)))
        counted |= len(values) > MOST_CHANNELS and values[-1] - values[0] < 2 * len(
            values
        )
    return whole or dated or counted or PIECES.search(pattern) is not None


def _parts(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Pattern, split and numbers of a name."""
    words = re.split(r"([/_\-.])", name)
    for place, word in enumerate(words):
        for split, known in SPLITS.items():
            if word.lower() in known:
                words[place] = "@"
                joined = "".join(words)
                return _pattern(joined), split, numbers(joined)
    return _pattern(name), "", numbers(name)


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _order(key: tuple[str, tuple[str, ...]]) -> tuple:
    split, digits = key
    return list(SPLITS).index(split) if split else -1, [int(x) for x in digits]


def _label(pattern: str, digits: Sequence[str], varying: Sequence[int]) -> str:
    """A name for a variable: the last word of a pattern, without what is counted."""
    for place, number in enumerate(digits):
        pattern = pattern.replace("#", "?" if place in varying else number, 1)
    words = [w for w in re.split(r"[/_\-. ]", pattern) if w.strip("?@")]
    return words[-1].replace("?", "") if words else "value"


def _count(shape: Sequence[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
