"""The meaning of the axes of an array: given, named in the file, or guessed.

Axes have letters: n independent sequences, t time, h rows (north to south, as in an
image), w columns, c channels. "hw" is one field.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.data.readers.layout import Undecided

LETTERS = "nthwc"
MOST_CHANNELS = 8  # an axis of at most this length, among longer ones, is channels
IMAGE_CHANNELS = 3  # the same, of one frame without an axis of time
# What people write, by the number of axes, the most common first.
READINGS = {
    2: ("hw",),
    3: ("thw", "hwc", "chw"),
    4: ("nthw", "thwc", "tchw", "cthw"),
    5: ("nthwc", "ntchw", "ncthw"),
}


def guess_axes(shape: Sequence[int], what: str = "an array") -> str:
    """The only likely meaning of axes of these lengths.

    Channels are an axis of at most 8, shorter than rows and columns. Time is the last
    axis ("hwt") if only the two before it are equal.

    Args:
        shape: lengths of the axes.
        what: the array, for messages.

    Raises:
        Undecided: if two readings fit equally well; the message lists them.
        ValueError: if there are too few or too many axes.
    """
    shape = tuple(shape)
    if len(shape) not in READINGS:
        raise ValueError(
            f"{what} has shape {shape}; expected time, rows and columns, and "
            "optionally sequences or channels"
        )
    known = _distinct(_readings(shape), shape)
    likely = _likely(known, shape) or known
    if len(likely) > 1 and 0 not in shape:
        listed = known if len(shape) > 3 else likely
        choice = " or ".join(f"{a!r} ({axes_text(a, shape)})" for a in listed)
        raise Undecided(
            f"{what} has shape {shape}, which can be read as {choice}; choose with "
            f"axes={likely[0]} or axes={likely[1]}",
            [{"axes": axes} for axes in likely],
        )
    return likely[0]


def from_lengths(shape: Sequence[int], known: Mapping[str, set[int]]) -> str:
    """The only order of t, h and w with known lengths; "" if there are none or many.

    Args:
        shape: lengths of three axes.
        known: possible lengths of some of the axes, by letter.
    """
    if len(shape) != 3 or len(known) < 2:
        return ""
    orders = [
        "".join(order)
        for order in itertools.permutations("thw")
        if all(n in known.get(axis, (n,)) for axis, n in zip(order, shape, strict=True))
    ]
    return orders[0] if len(orders) == 1 else ""


def check_axes(axes: str, shape: Sequence[int], what: str) -> None:
    """Rejects letters that do not match an array.

    Raises:
        ValueError: if they do not; the message lists the expected letters.
    """
    known = set(axes) <= set(LETTERS) and len(set(axes)) == len(axes)
    frame = set(axes) <= set("hwc")  # one file or data set per frame
    if not known or not set("hw") <= set(axes) or ("t" not in axes and not frame):
        raise ValueError(
            f"axes={axes!r}: expected the letters t, h and w, each once, "
            "and n for sequences or c for channels if there are any, such as 'thw' "
            "or 'nhwt'"
        )
    if len(axes) != len(shape):
        raise ValueError(
            f"axes={axes!r} names {len(axes)} axes; {what} has "
            f"{len(shape)}: {tuple(shape)}"
        )


def axes_text(axes: str, shape: Sequence[int]) -> str:
    """ "t=40, h=1226, w=760" """
    return ", ".join(f"{a}={n}" for a, n in zip(axes, shape, strict=True))


def axes_note(axes: str, shape: Sequence[int]) -> str:
    """What was guessed, what else it could be, and the setting that decides it."""
    shape = tuple(shape)
    others = [a for a in _distinct(_readings(shape), shape) if "t" in a]
    others += [axes.replace("hw", "wh"), axes.replace("thw", "hwt")]
    others = [a for a in dict.fromkeys(others) if a != axes]
    return (
        f"axes assumed to be {axes!r} ({axes_text(axes, shape)}); if they are not, "
        f"set `axes`, for example axes={' or axes='.join(others[:2])}"
    )


def read_array(array, axes: str, sequence: int, steps, rows, columns) -> np.ndarray:
    """Stored values `[t, h, w, c]` of slices of an array-like with named axes.

    An axis with the letter "." has length 1 and is dropped.
    """
    cut = {"n": sequence, "t": steps, "h": rows, "w": columns, "c": slice(None)}
    values = np.asarray(array[tuple(cut.get(axis, 0) for axis in axes)])
    left = axes.replace("n", "").replace(".", "")
    for axis in "thwc":
        if axis not in left:
            values, left = values[..., None], left + axis
    return values.transpose([left.index(axis) for axis in "thwc"])


def _readings(shape: tuple[int, ...]) -> list[str]:
    """The readings of a shape, "hwt" in place of "thw" where lengths suggest it."""
    found = []
    for axes in READINGS[len(shape)]:
        at = axes.find("thw")
        if at < 0:
            found.append(axes)
            continue
        first, second, third = shape[at : at + 3]
        last = axes.replace("thw", "hwt")
        if first == second != third:
            found += [last] * ("c" not in axes[:at])  # channels first, time last: no
        elif third > max(first, second) and (
            _slimness(first, second) < _slimness(second, third)
        ):
            found += [axes, last]
        else:
            found.append(axes)
    return found


def _likely(known: Sequence[str], shape: tuple[int, ...]) -> list[str]:
    """Readings in which channels are the short axis of several frames."""
    likely = []
    for axes in known:
        sizes = dict(zip(axes, shape, strict=True))
        channels, small = sizes.get("c", 0), min(sizes["h"], sizes["w"])
        most = MOST_CHANNELS if "t" in axes else min(IMAGE_CHANNELS, small // 2)
        frames = sizes.get("t", 2)
        if 0 < channels < small and channels <= most and frames > 1:
            likely.append(axes)
    if len(shape) == 3:
        return [axes for axes in known if "c" not in axes] + likely
    if len(shape) == 4 and all(axes.startswith("c") for axes in likely):
        # No axis but the first can be channels, which can as well be sequences.
        likely = [axes for axes in known if "c" not in axes] + likely
    return likely


def _distinct(readings: Sequence[str], shape: tuple[int, ...]) -> list[str]:
    """Readings with a possible number of channels that do not give the same values."""
    found: dict[str, str] = {}
    for axes in readings:
        sizes = dict(zip(axes, shape, strict=True))
        if sizes.get("c", 0) <= MOST_CHANNELS:
            key = "".join(a for a in axes if sizes[a] != 1)
            found.setdefault(key, axes)
    return list(found.values()) or list(readings)


def _slimness(a: int, b: int) -> float:
    return max(a, b) / max(1, min(a, b))
