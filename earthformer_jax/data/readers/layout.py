"""A description of the contents of a file, common to all formats."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.readers.values.missing import Coding

NUMBERS = "fiub"  # kinds of data types that are read
MIN_DIMENSIONS = 3  # of a variable that changes in time


@dataclasses.dataclass(frozen=True)
class Quantity:
    """What a variable measures, to find the variable if its name is not given.

    Attributes:
        name: for messages, such as "sea surface temperature".
        standard_names: its standard names in the CF conventions.
        names: common names of the variable, in lower case.
        has_unit: whether the text of a unit is one of it; None: units do not tell.
    """

    name: str
    standard_names: tuple[str, ...]
    names: tuple[str, ...]
    has_unit: Callable[[str], bool] | None = None

    def find(self, variables: Mapping[str, Mapping[str, Any]], path: Path) -> str:
        """The only variable that measures it, by standard name, common name or units.

        Args:
            variables: attributes of the variables of three or more dimensions.
            path: of the file, for messages.

        Raises:
            Undecided: if there are several.
            ValueError: if there is none.
        """
        standard = [
            name
            for name, attributes in variables.items()
            if attributes.get("standard_name") in self.standard_names
        ]
        named = [n for n in variables if n.rpartition("/")[2].lower() in self.names]
        by_units = [
            name
            for name, attributes in variables.items()
            if self.has_unit is not None and self.has_unit(_unit(attributes))
        ]
        for found in filter(None, (standard, named, by_units)):
            if len(found) == 1:
                return found[0]
            raise Undecided(
                f"{path}: each of {', '.join(found)} could be the {self.name}; give "
                "its name as `variable`",
                [{"variable": name} for name in found],
            )
        raise ValueError(
            f"{path} has no variable that is a {self.name} by standard_name, name "
            f"({', '.join(self.names)}) or units; its variables of three or more "
            f"dimensions are: {', '.join(variables) or 'none'}. Give its name "
            "as `variable`"
        )


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The data that the user requests from a file.

    Attributes:
        variables: their names; () for all that share a grid.
        level: "500", or "level=500", for every further dimension.
        axes: axes of arrays without names, "thw" or any order of n (sequences), t, h, w
            and c (channels); "" to guess.
        missing: values that mark missing data.
        quantity: if no names are given, the one variable that measures this.
        alike: standard names of `variables`, "" where unknown. A variable that is not
            in the file is then one whose name differs only in case and punctuation, or
            the only one with its standard name. None: names are taken literally.
    """

    variables: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    axes: str = ""
    missing: tuple[float, ...] = ()
    quantity: Quantity | None = None
    alike: Mapping[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
    """Contents of a file: `sequences` times `steps` fields of equal size.

    Attributes:
        path: the file.
        format: "NetCDF", "Zarr", "HDF5" or ".npy".
        names: of the channels.
        units: of the channels; "" where unknown.
        sequences: independent pieces of time.
        steps: number of time steps in each, or in the longest.
        size: rows and columns.
        times: of the steps, if known (and there is one sequence).
        latitude: `[h]` or `[h, w]` degrees north, if known.
        longitude: `[w]` or `[h, w]` degrees east, if known.
        codings: of the channels: how numbers are stored; () if unknown.
        notes: assumptions, and what was left out.
        single: each file is one field; the order of the files is the order in time.
        lengths: number of steps of each sequence; () if all have `steps`.
        splits: number of sequences of each split, in their order, if the file says.
        standard_names: of the channels in the CF conventions; () if unknown.
        long_names: of the channels, human-readable; () if unknown.
    """

    path: Path
    format: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    sequences: int
    steps: int
    size: tuple[int, int]
    times: Times | None = None
    latitude: np.ndarray | None = None
    longitude: np.ndarray | None = None
    codings: tuple[Coding, ...] = ()
    notes: tuple[str, ...] = ()
    single: bool = False
    lengths: tuple[int, ...] = ()
    splits: Mapping[str, int] = dataclasses.field(default_factory=dict)
    standard_names: tuple[str, ...] = ()
    long_names: tuple[str, ...] = ()

    def standard_name(self, channel: int) -> str:
        """Standard name of a channel; "" if unknown."""
        return self.standard_names[channel] if self.standard_names else ""


class FieldFile(Protocol):
    """A file of fields, opened and closed by those who read it."""

    layout: Layout

    def open(self) -> Any:
        """The open file, which the caller closes."""
        ...

    def read(self, handle, sequence: int, steps, rows, columns) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        ...


class NoVariable(ValueError):
    """A requested variable is not in a file.

    Attributes:
        name: of the variable.
        there: the variables of the file.
    """

    def __init__(self, message: str, name: str, there: Sequence[str]):
        super().__init__(message)
        self.name, self.there = name, tuple(there)


class UnusedLevel(ValueError):
    """`level` is given, but no variable has a further dimension."""


class Undecided(ValueError):
    """Data that can be read in more than one way, or that need a choice of the user.

    Attributes:
        choices: settings that decide, the most likely first: ({"axes": "nthw"},
            {"axes": "thwc"}). `inspect` tries each of them.
    """

    def __init__(self, message: str, choices: Sequence[Mapping[str, str]]):
        super().__init__(message)
        self.choices = tuple(choices)


def _unit(attributes: Mapping[str, Any]) -> str:
    return str(attributes.get("units", "")).strip()


def check_numbers(name: str, dtype, path: Path) -> None:
    """Rejects values that are not numbers.

    Raises:
        ValueError: if they are not; the message names the type.
    """
    dtype = np.dtype(dtype)
    if dtype.kind in NUMBERS:
        return
    kinds = {
        "c": "take the real part, or amplitude and phase as two variables",
        "O": "write plain arrays; objects are not opened because they can run code",
        "m": "divide them by a unit to get numbers",
        "M": "dates are not a field",
    }
    remedy = kinds.get(dtype.kind, "store them as numbers")
    raise ValueError(f"{path}: {name!r} has type {dtype}; expected numbers: {remedy}")


def check_no_level(wanted: Wanted, path: Path) -> None:
    """Rejects a level for arrays whose dimensions have no coordinates.

    Raises:
        ValueError: if there is one.
    """
    if wanted.level:
        raise ValueError(
            f"level={','.join(wanted.level)} has no effect on {path}: its arrays have "
            "no named dimensions. Leave it empty, and choose with `variables`"
        )


def no_variable(path: Path, name: str, there: Iterable[str]) -> NoVariable:
    """The error for a requested variable that is not in the file."""
    there = list(map(str, there))
    return NoVariable(
        f"{path} has no variable {name!r}{nearest(name, there)} (of three or more "
        f"dimensions there are: {', '.join(there) or 'none'})",
        name,
        there,
    )


def words(value) -> tuple[str, ...]:
    """("T", "P") of "T,P", ("T", "P") or ("T,P",)."""
    items = [value] if isinstance(value, str | int | float) else list(value)
    found = [word.strip() for item in items for word in str(item).split(",")]
    return tuple(word for word in found if word)


def numbers(value, name: str) -> tuple[float, ...]:
    """(1.0, 2.0) of "1,2" or (1, 2).

    Raises:
        ValueError: if a word is not a number; the message names the setting.
    """
    found = words(value)
    try:
        return tuple(float(word) for word in found)
    except ValueError:
        raise ValueError(
            f"{name}={','.join(found)}: expected numbers, separated by commas"
        ) from None


def region_problem(region: Sequence[float]) -> str:
    """The problem with (south, north, west, east); "" if it is valid or ()."""
    if not region or (
        len(region) == 4 and region[0] < region[1] and region[2] != region[3]
    ):
        return ""
    return (
        f"region={','.join(f'{x:g}' for x in region)}: expected south, north, west, "
        "east in degrees, such as 35,60,-10,30"
    )


def nearest(name: str, names: Iterable[str]) -> str:
    """ "; did you mean 'T'?", or "" if no name is similar."""
    names = list(map(str, names))
    lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""
