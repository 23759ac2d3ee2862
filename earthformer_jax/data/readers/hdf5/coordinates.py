"""Axes, times, latitudes and longitudes of the data sets of an HDF5 file."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from earthformer_jax.data.readers import decoding, time_axis
from earthformer_jax.data.readers.axes import MOST_CHANNELS
from earthformer_jax.data.readers.hdf5.contents import (
    Contents,
    dimensions,
    nearby,
    text,
)
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.readers.values.missing import coding

# Names of data sets with coordinates, and the range of their values.
COORDINATES = {
    "latitude": (("latitude", "lat", "lats", "xlat"), (-90.0, 90.0)),
    "longitude": (("longitude", "lon", "lons", "xlon", "xlong"), (-360.0, 720.0)),
}
LETTERS = {"latitude": "h", "longitude": "w"}
TIME_NAMES = ("time", "t", "date")


def named_axes(array: h5py.Dataset, what: str) -> str:
    """Letters of the axes of a data set whose dimensions have names.

    An axis that is neither time nor grid has the letter "." if its length is 1, and is
    the channels if it is short.

    Args:
        array: the data set.
        what: its name, for messages.

    Returns:
        the letters; "" if no name says anything.

    Raises:
        ValueError: if there is a further axis.
    """
    named = dimensions(array)
    letters = [dimension.letter for dimension in named]
    if not set(letters) & set("thw"):
        return ""
    plane = [letter for letter in "hw" if letter not in letters]
    free = [i for i, letter in enumerate(letters) if not letter]
    for place, letter in zip(free[-len(plane) :] if plane else [], plane, strict=False):
        letters[place] = letter
    free = [i for i, letter in enumerate(letters) if not letter]
    if "t" not in letters and len(free) == 1 and array.ndim > 2:
        letters[free[0]] = "t"
    free = [i for i, letter in enumerate(letters) if not letter]
    for place in free:
        length = array.shape[place]
        if length == 1:
            letters[place] = "."
        elif length <= MOST_CHANNELS and "c" not in letters:
            letters[place] = "c"
        else:
            sizes = ", ".join(
                f"{d.name}: {n}" for d, n in zip(named, array.shape, strict=True)
            )
            raise ValueError(
                f"{what} has the dimensions ({sizes}), of which {named[place].name!r} "
                "is neither time nor grid. Write a file with one of its positions, for "
                f"example with ncks -d {named[place].name},0"
            )
    return "".join(letters)


def known_lengths(contents: Contents, name: str) -> dict[str, set[int]]:
    """Lengths of axes, by letter, that data sets with coordinates tell."""
    shape = contents.arrays[name].shape
    found: dict[str, set[int]] = {}
    for short, array in nearby(contents, name):
        length = math.prod(array.shape)
        if max(array.shape, default=0) != length or length not in shape:
            continue
        for axis, (names, _) in COORDINATES.items():
            if short in names:
                found.setdefault(LETTERS[axis], {length})
        if _is_time(short):
            found.setdefault("t", {length})
    return found


def find_times(
    contents: Contents, name: str, steps: int, path: Path
) -> tuple[Times | None, str]:
    """Times of a data set: of its dimension, or of the nearest with a name like time.

    Args:
        contents: of the file.
        name: of the data set.
        steps: its length in time.
        path: of the file.

    Returns:
        the times, and a note if there are some that are not understood.

    Raises:
        ValueError: if times have units and cannot be decoded.
    """
    own = [
        (d.name, d.scale)
        for d in dimensions(contents.arrays[name])
        if d.letter == "t" and d.scale is not None
    ]
    named = (pair for pair in nearby(contents, name) if _is_time(pair[0]))
    note = ""
    for short, array in itertools.chain(own, named):
        if array.size != steps or max(array.shape, default=1) != steps:
            continue
        values, units = array[()].ravel(), text(array.attrs.get("units", ""))
        try:
            calendar = text(array.attrs.get("calendar", ""))
            times = decoding.decode(values, units, calendar)
        except ValueError as error:
            raise ValueError(f"{path}: the times in {short!r}: {error}") from None
        if times is not None:
            return _in_the_middle(contents, name, short, array, times)
        note = note or decoding.not_understood(short, values, units)
    return None, note


def _in_the_middle(
    contents: Contents, name: str, short: str, array: h5py.Dataset, times: Times
) -> tuple[Times, str]:
    """Times in the middle of the intervals that an attribute names, and a note."""
    edges = text(array.attrs.get("bounds", ""))
    named = (a for n, a in nearby(contents, name) if n == edges.lower())
    bounds = next(named, None) if edges else None
    methods = text(contents.arrays[name].attrs.get("cell_methods", ""))
    if bounds is None or time_axis.is_point(methods, short):
        return times, ""
    units, calendar = (
        text(bounds.attrs.get(key, array.attrs.get(key, "")))
        for key in ("units", "calendar")
    )
    found = decoding.middle(times, bounds[()], units, calendar)
    if found is None or not found[1]:
        return times, ""
    return found[0], time_axis.middle_note(short, found[1], edges)


def find_coordinate(
    contents: Contents, name: str, axis: str, sizes: dict[str, int]
) -> np.ndarray | None:
    """Degrees of the rows or columns `[h]` or `[w]`, or of all cells `[h, w]`.

    Args:
        contents: of the file.
        name: of the data set with the fields.
        axis: "latitude" or "longitude".
        sizes: lengths of its axes, by letter.

    Returns:
        the coordinate; None if there is none.
    """
    names, limits = COORDINATES[axis]
    length = sizes[LETTERS[axis]]
    candidates = [
        d.scale
        for d in dimensions(contents.arrays[name])
        if d.letter == LETTERS[axis] and d.scale is not None
    ]
    candidates += [a for short, a in nearby(contents, name) if short in names]
    shapes: Sequence[tuple[int, ...]] = (
        (length,),
        (1, length),  # a vector of MATLAB
        (length, 1),
        (sizes["h"], sizes["w"]),
    )
    for array in candidates:
        if array.shape not in shapes or array.dtype.kind not in "fiu":
            continue
        rule = coding(array.attrs, array.dtype)  # but a coordinate is never missing
        values = array[()].astype(np.float64) * rule.scale + rule.offset
        inside = (values >= limits[0]) & (values <= limits[1])
        if inside.all():  # otherwise metres, or numbers of rows
            return values.ravel() if length == array.size else values
    return None


def _is_time(name: str) -> bool:
    return name in TIME_NAMES or name.startswith(("time", "date"))
