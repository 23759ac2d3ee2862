"""Numbers that mark missing data although no attribute says so.

A fill value is taken exactly, many times, and is far from everything else. Which number
it is matters little: known ones need less evidence. Real extremes are not far (codes
that saturate, 100 %), taken once (the largest of all rain), or one of a few values (0
and 1).
"""

import itertools
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.readers.layout import Undecided
from earthformer_jax.data.readers.values.missing import TOLERANCE, Coding, number_text

# Numbers commonly used for "missing", also by formats (NetCDF, CMIP).
CODES = (-99.0, -99.9, -99.99, -999.0, -999.9, -999.99, -9999.0, -9999.9, -99999.0)
CODES += (-32767.0, -32768.0, -8888.0, -9e9, 999.0, 9999.0, 99999.0, 999999.0)
CODES += (-1e9, 1e9, 1e20, -1e20, 1e30, -1e30, 1e35, 9.96921e36, -9.96921e36)
# Least distance to the nearest other value, as a share of the range of the others: of a
# known code, of any number, and of one that occurs less than `OFTEN`, as the heaviest
# rain may.
FAR_CODE, FAR, FAR_IF_RARE = 0.5, 3.0, 10.0
OFTEN = 5
# A number this large is a fill value, even once, if the others are this much smaller.
HUGE, SMALLER = 9.9e14, 1e-3
FEWEST = 10  # different other values; fewer could be classes
MOST = 5  # fill values on each side that are looked for at once
ROUNDS = 4
SAMPLE = 100_000  # values whose repetitions are counted


def fill_values(values: np.ndarray, coding: Coding | None = None) -> tuple[float, ...]:
    """The numbers that seem to mean "missing", in increasing order.

    Without them the rest has none.

    Args:
        values: of one variable, time first; NaN where known to be missing.
        coding: how they are stored, if known: the ends of its type need less evidence.
    """
    ends = () if coding is None else coding.codes()
    if coding is not None and coding.known:
        known = np.isin(values, np.array(coding.known, np.float32))
        values = np.where(known, np.nan, values)
    found: list[float] = []
    for _ in range(ROUNDS):
        more = _isolated(values, ends)
        if not more:
            break
        found += more
        values = np.where(np.isin(values, np.array(more, np.float32)), np.nan, values)
    return tuple(sorted(float(number_text(value)) for value in found))


def check_undeclared(
    values: np.ndarray, names: Sequence[str], codings: Sequence[Coding]
) -> None:
    """Rejects values that look like undeclared fill values.

    Args:
        values: `[n, h, w, c]`, NaN where known to be missing.
        names: of the channels.
        codings: of the channels; () if unknown.

    Raises:
        Undecided: if there are any; the message names the variable and the values.
    """
    for c, name in enumerate(names):
        coding = codings[c] if codings else None
        found = fill_values(values[..., c], coding)
        if found:
            ends = () if coding is None else coding.codes()
            equal = all(_is_one_of(number, ends) for number in found)
            share = 100 * np.mean(np.any([occurs(values[..., c], x) for x in found], 0))
            text = ",".join(map(number_text, found))
            raise Undecided(
                f"{share:.2g} % of {name!r} are {text}, far from all other values; if "
                f"they mark missing values, set missing={text}; if they are "
                "measurements, missing=nan",
                [{"missing": text}] + [{"missing": "nan"}] * equal,
            )


def unseen(
    values: np.ndarray,
    names: Sequence[str],
    codings: Sequence[Coding],
    missing: Sequence[float],
) -> list[float]:
    """Those of the user's missing values that occur nowhere.

    Args:
        values: `[n, h, w, c]`, in which only declared values are missing.
        names: of the channels.
        codings: of the channels; () if unknown.
        missing: the values that the user gives.

    Raises:
        Undecided: if one is how a value is stored, but no value.
    """
    numbers = [x for x in missing if not (np.isnan(x) or occurs(values, x).any())]
    for number in numbers:
        for c, coding in enumerate(codings):
            value = coding.value(number)
            found = occurs(values[..., c], value)
            if coding.packed and found.any():
                text = number_text(value)
                raise Undecided(
                    f"missing={number:g}: no value of {names[c]!r} is that; it is how "
                    f"{text} is stored, which {100 * found.mean():.2g} % of the values "
                    f"are; set missing={text}",
                    [{"missing": text}],
                )
    return numbers


def occurs(values: np.ndarray, number: float) -> np.ndarray:
    """Where a number is found, as exactly as a user writes it."""
    number = np.float64(number)  # the tolerance of 1e46 has no float32
    return np.isclose(values, number, rtol=TOLERANCE, atol=0)


def _isolated(values: np.ndarray, ends: Sequence[float]) -> list[float]:
    """The fewest extremes that are far from all values between them."""
    finite = values[np.isfinite(values)]
    low, high = _extremes(finite, np.min), _extremes(finite, np.max)
    sizes = itertools.product(range(len(low)), range(len(high)))
    for i, j in sorted(sizes, key=sum):
        core = low[i][0], high[j][0]
        if i + j and core[0] <= core[1]:
            pairs = [(x, low[i]) for x in low[:i]] + [(x, high[j]) for x in high[:j]]
            if all(_seems_missing(*x, core, values, ends) for x in pairs):
                return [value for value, _ in low[:i] + high[:j]]
    return []


def _extremes(finite: np.ndarray, extreme) -> list[tuple[float, int]]:
    """The outermost values on one side, the farthest first, with their counts."""
    found: list[tuple[float, int]] = []
    while len(found) <= MOST and finite.size:
        value = extreme(finite)
        others = finite[finite != value]
        found.append((float(value), finite.size - others.size))
        finite = others
    return found


def _seems_missing(
    extreme: tuple[float, int],
    nearest: tuple[float, int],
    core: tuple[float, float],
    values: np.ndarray,
    ends: Sequence[float],
) -> bool:
    """Whether one extreme is far enough from the core.

    Args:
        extreme: its value, and how often it occurs.
        nearest: the same of the value of the core next to it.
        core: least and largest of the values that are none of the extremes.
        values: all values.
        ends: values of the ends of the stored type.
    """
    value, count = extreme
    low, high = core
    distance, spread = abs(value - nearest[0]), high - low
    largest = max(abs(low), abs(high))
    if abs(value) >= HUGE and largest <= SMALLER * abs(value):
        return True
    if count < 2 or not spread:
        return False
    if _is_one_of(value, CODES):
        return distance > FAR_CODE * spread
    inside = values[(values >= low) & (values <= high)]
    different, counts = np.unique(
        inside[:: 1 + inside.size // SAMPLE], return_counts=True
    )
    far = distance > (FAR if count >= OFTEN else FAR_IF_RARE) * spread
    classes = len(different) < FEWEST
    if _is_one_of(value, ends):
        return far or (distance > FAR_CODE * spread and not classes)
    if not far or classes or (value == 0 and not _stays(values == 0)):
        return False
    return bool(count >= 2 * min(nearest[1], np.median(counts)))


def _is_one_of(value: float, codes: Sequence[float]) -> bool:
    return bool(np.any(np.isclose(value, codes, rtol=1e-6, atol=0)))


def _stays(where: np.ndarray) -> bool:
    """Whether cells are so at all times or never: 0 on land, not 0 after rain."""
    return bool(np.all(where.any(axis=0) == where.all(axis=0)))
