"""Whether two files have the same variables and grid, by meaning rather than spelling.

Variables may stand in another order, or be spelt in another way if their standard names
agree; units may be written in another way; rows may run from south to north or from
north to south, and longitudes begin anywhere on the circle.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.data.readers.layout import FieldFile, Layout
from earthformer_jax.data.readers.values.units import same_units

GRID_TOLERANCE = 1e-4  # degrees
CELL_TOLERANCE = 0.005  # of the distance between cells, for rounded coordinates


class Arranged:
    """A file whose fields are read in the order of variables and cells of another.

    Attributes:
        layout: with the names, units and coordinates of the other file.
    """

    def __init__(
        self,
        file: FieldFile,
        like: Layout,
        places: tuple[int, ...],
        flip: bool = False,
        columns: np.ndarray | None = None,
    ):
        """Keeps the file.

        Args:
            file: the file.
            like: layout of the other file.
            places: channel of the file for every channel of the other.
            flip: whether rows run the other way.
            columns: column of the file for every column of the other; None: the same.
        """
        self._file, self._places = file, places
        self._flip, self._columns = flip, columns
        old = file.layout
        self.layout = dataclasses.replace(
            old,
            names=like.names,
            units=like.units,
            latitude=like.latitude,
            longitude=like.longitude,
            codings=tuple(old.codings[i] for i in places) if old.codings else (),
            standard_names=like.standard_names,
            long_names=like.long_names,
        )

    def open(self):
        """The open file, which the caller closes."""
        return self._file.open()

    def read(self, handle, sequence: int, steps, rows, columns) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        height, width = self.layout.size
        if self._flip:
            rows = slice(height - rows.stop, height - rows.start)
        stored = columns if self._columns is None else slice(0, width)
        values = self._file.read(handle, sequence, steps, rows, stored)
        values = values[:, ::-1] if self._flip else values
        if self._columns is not None:
            values = values[:, :, self._columns[columns]]
        return values[..., self._places]


def places(first: Layout, other: Layout) -> tuple[int, ...] | None:
    """Channels of a file in the order of another; None if their variables differ."""
    found = []
    for number, name in enumerate(first.names):
        if name in other.names:
            found.append(other.names.index(name))
            continue
        like = [
            i
            for i, spelt in enumerate(other.names)
            if plain(spelt) == plain(name)
            and other.standard_name(i) == first.standard_name(number) != ""
        ]
        if len(like) != 1:
            return None
        found += like
    whole = sorted(found) == list(range(len(other.names)))
    return tuple(found) if whole else None


def arranged(file: FieldFile, first: Layout) -> FieldFile:
    """A file with the same variables, read in the order of the first.

    Raises:
        ValueError: if variables, units or grids differ; the message names both files.
    """
    channels = places(first, file.layout)
    where = f"{first.path} and {file.layout.path} do not match: "
    if channels is None:
        raise ValueError(
            f"{where}variables {', '.join(first.names)} and "
            f"{', '.join(file.layout.names)}; choose those they share with `variables`"
        )
    for number, channel in enumerate(channels):
        a, b = first.units[number], file.layout.units[channel]
        if not same_units(a, b):
            raise ValueError(
                f"{where}{first.names[number]!r} has the units {a!r} in one and {b!r} "
                "in the other; convert one of them"
            )
    return on_grid(file, first, channels)


def on_grid(
    file: FieldFile, first: Layout, channels: tuple[int, ...] | None = None
) -> FieldFile:
    """A file read on the grid of another.

    Args:
        file: the file.
        first: layout of the other file.
        channels: of the file, in the order of the other file; None: its own variables.

    Raises:
        ValueError: if the grids differ; the message names both files.
    """
    layout = file.layout
    where = f"{first.path} and {layout.path} do not match: "
    if first.size != layout.size:
        raise ValueError(f"{where}grids of {first.size} and {layout.size} cells")
    for axis in ("latitude", "longitude"):
        known = [x for x in (first, layout) if getattr(x, axis) is not None]
        if len(known) == 1:
            raise ValueError(f"{where}only {known[0].path} has {axis}s")
    flip, columns = _orientation(first, layout, where)
    like = first
    if channels is None:
        channels = tuple(range(len(layout.names)))
        like = dataclasses.replace(
            first,
            names=layout.names,
            units=layout.units,
            standard_names=layout.standard_names,
            long_names=layout.long_names,
        )
    same = channels == tuple(range(len(layout.names))) and like.names == layout.names
    if same and not flip and columns is None:
        return file
    return Arranged(file, like, channels, flip, columns)


def plain(name: str) -> str:
    """A name without what may differ in its spelling: "t2m" of "T_2M"."""
    return re.sub(r"[\W_]", "", name).lower()


def find_alike(
    name: str, standard_name: str, variables: Mapping[str, str]
) -> str | None:
    """The variable that is meant by a name, perhaps spelt in another way.

    Args:
        name: that is wanted.
        standard_name: of the wanted variable; "" if unknown.
        variables: standard names of the variables that there are, by name.

    Returns:
        the one of this name; or the only one whose name differs in nothing but case and
        punctuation; or the only one with the standard name; None if there is none.
    """
    if name in variables:
        return name
    spelt = [n for n in variables if plain(n) == plain(name)]
    standard = [n for n, s in variables.items() if standard_name and s == standard_name]
    for found in (spelt, standard):
        if len(found) == 1:
            return found[0]
    return None


def all_alike(
    names: Sequence[str], standard_names: Mapping[str, str], there: Mapping[str, str]
) -> tuple[list[str], tuple[str, ...]]:
    """The variables that are meant by names (`find_alike`), and notes on spelling.

    Args:
        names: that are wanted; one that nothing is like is kept.
        standard_names: of the wanted variables, by name.
        there: standard names of the variables that there are, by name.
    """
    free = {n: s for n, s in there.items() if n not in names}
    found = [
        name
        if name in there
        else find_alike(name, standard_names.get(name, ""), free) or name
        for name in names
    ]
    if len(set(found)) < len(found):  # one variable cannot be two
        return list(names), ()
    pairs = zip(names, found, strict=True)
    return found, tuple(renamed_note(a, b) for a, b in pairs if a != b)


def renamed_note(name: str, found: str) -> str:
    """A note that a variable has another name in the file."""
    return f"{name!r} is the variable {found!r} of the file"


def _orientation(
    first: Layout, other: Layout, where: str
) -> tuple[bool, np.ndarray | None]:
    """Whether the rows of a file run the other way, and the order of its columns."""
    latitude, longitude = other.latitude, other.longitude
    if first.latitude is None or first.longitude is None:
        return False, None
    assert latitude is not None and longitude is not None  # as the caller checks
    flip = not _close(first.latitude, latitude)
    if flip and not _close(first.latitude, latitude[::-1]):
        raise ValueError(f"{where}they have different latitudes")
    if longitude.ndim == 2 and flip:
        longitude = longitude[::-1]
    if _close(first.longitude, longitude, period=360.0):
        return flip, None
    if longitude.ndim == 1:
        sorted_first, sorted_other = (
            np.argsort((x + _tolerance(x)) % 360) for x in (first.longitude, longitude)
        )
        columns = np.empty(len(longitude), np.int64)
        columns[sorted_first] = sorted_other
        if _close(first.longitude, longitude[columns], period=360.0):
            return flip, columns
    raise ValueError(f"{where}they have different longitudes")


def _close(a: np.ndarray, b: np.ndarray, period: float = 0.0) -> bool:
    if a.shape != b.shape:
        return False
    apart = np.abs(a - b)
    if period:
        apart = np.minimum(apart % period, -apart % period)
    return bool(np.all(apart <= _tolerance(a)))


def _tolerance(degrees: np.ndarray) -> float:
    """How far apart the coordinates of one cell may be in two files."""
    steps = np.abs(np.diff(degrees, axis=-1)) if degrees.ndim == 1 else np.zeros(0)
    least = float(np.min(steps[steps > 0], initial=np.inf))
    return max(GRID_TOLERANCE, CELL_TOLERANCE * least if np.isfinite(least) else 0.0)
