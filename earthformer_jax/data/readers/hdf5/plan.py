"""Which data sets of an HDF5 file hold the fields, and how they belong together."""

import dataclasses
import fnmatch
import math
import re
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from earthformer_jax.data.readers import decoding
from earthformer_jax.data.readers.hdf5 import stacks
from earthformer_jax.data.readers.hdf5.contents import Contents, text
from earthformer_jax.data.readers.layout import (
    MIN_DIMENSIONS,
    NUMBERS,
    Undecided,
    Wanted,
    check_numbers,
    no_variable,
)
from earthformer_jax.data.readers.times import Times

FRAME_DIMENSIONS = 2
MIN_FRAMES = 3  # numbered data sets of two dimensions
MATLAB_CLASSES = ("char", "cell", "struct", "function_handle")  # not numbers
SHORTEST_DATE = 8  # digits
# Names of arrays that continue each other, rather than variables at the same times.
INPUTS_AND_TARGETS = (
    {"x", "y"},
    {"input", "target"},
    {"inputs", "targets"},
    {"input", "output"},
    {"inputs", "outputs"},
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which data sets hold the fields.

    Attributes:
        variables: names of the variables.
        rows: data sets of each sequence or frame, one for each variable.
        splits: of the rows, "" where the file does not say.
        notes: assumptions.
        frames: whether every row is a frame of one series.
        times: of the frames, if their names say.
    """

    variables: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    frames: bool = False
    times: Times | None = None


def make_plan(contents: Contents, wanted: Wanted, path: Path) -> Plan:
    """Chooses the data sets that hold the fields.

    Args:
        contents: of the file.
        wanted: `variables` are data sets, or one group, or a pattern such as "event_*"
            whose matches are sequences; () for all of the shape of the largest, or the
            numbered data sets that hold most of the values.
        path: of the file.

    Raises:
        Undecided: if numbered data sets may be variables or sequences.
        ValueError: if there are no such fields.
    """
    arrays = contents.arrays
    variables = tuple(name.strip("/") for name in wanted.variables)
    variables = tuple(contents.aliases.get(name, name) for name in variables)
    if variables and all(name in arrays for name in variables):
        first = arrays[variables[0]].shape
        for name in variables:
            check_numbers(name, arrays[name].dtype, path)
            if arrays[name].shape != first:
                raise ValueError(
                    f"{path}: {variables[0]!r} has shape {first} "
                    f"and {name!r} {arrays[name].shape}; variables must share axes"
                )
        return Plan(wanted.variables, (variables,))
    inside = arrays
    if len(variables) == 1:
        inside = {
            name: array
            for name, array in arrays.items()
            if fnmatch.fnmatchcase(name, variables[0])
            or name.startswith(f"{variables[0]}/")
        }
    fields = {n: a for n, a in inside.items() if a.ndim >= MIN_DIMENSIONS}
    numeric = {n: a for n, a in fields.items() if _is_numeric(a)}
    flat = {
        n: a
        for n, a in inside.items()
        if a.ndim == FRAME_DIMENSIONS and _is_numeric(a) and min(a.shape) > 1
    }
    if variables and (len(variables) > 1 or not (numeric or flat)):
        for name in variables:
            if name in contents.unusable:
                raise ValueError(f"{path}: {name!r} {contents.unusable[name]}")
        name = next(name for name in variables if name not in arrays)
        there = [n for n, a in arrays.items() if a.ndim >= MIN_DIMENSIONS]
        raise no_variable(path, name, there)
    if not numeric:
        plan = _frames(flat) if flat else None
        if plan is None:
            raise _no_fields(contents, fields, path)
        return plan
    if wanted.quantity is not None:
        attributes = {
            name: {key: text(value) for key, value in array.attrs.items()}
            for name, array in numeric.items()
        }
        found = wanted.quantity.find(attributes, path)
        return Plan((found,), ((found,),))
    pattern = bool(variables) and any(x in variables[0] for x in "*?[")
    return _stacked(numeric, pattern, path)


def _stacked(numeric: dict[str, h5py.Dataset], asked: bool, path: Path) -> Plan:
    """Numbered data sets as sequences, or all of the shape of the largest.

    Args:
        numeric: the fields.
        asked: whether the user asked for sequences.
        path: of the file.
    """
    stack = stacks.find_stack({name: array.shape for name, array in numeric.items()})
    if stack is None or not (asked or stack.certain or not stacks.are_levels(stack)):
        largest = max(numeric, key=lambda name: math.prod(numeric[name].shape))
        shape = numeric[largest].shape
        names = tuple(name for name in numeric if numeric[name].shape == shape)
        return Plan(names, (names,))
    rows = stack.rows
    first = rows[0].names[0]
    if not (asked or stack.certain):
        names = ",".join(row.names[0] for row in rows)
        pattern = re.sub(r"\d+", "*", first)
        raise Undecided(
            f"{path} has {len(rows)} data sets like {first!r}, which may be variables "
            f"of one series or independent sequences of one variable; choose with "
            f"variables={names} or variables={pattern}",
            [{"variables": names}, {"variables": pattern}],
        )
    if {name.lower() for name in stack.companions} in INPUTS_AND_TARGETS:
        pair = " and ".join(sorted(stack.companions))
        raise ValueError(
            f"{path}: {pair} (such as {first!r}) seem to be the first and the "
            "following frames of the same sequences; join them along time, for "
            "example with np.concatenate([x, y], axis=1), and write one array "
            "(sequence, time, row, column). If they are variables, name them in "
            "`variables`"
        )
    notes = [
        f"{len(rows)} data sets, {first!r} to {rows[-1].names[0]!r}, are sequences of "
        f"{', '.join(stack.variables)}; if they are variables, name them in `variables`"
    ]
    return Plan(
        variables=stack.variables,
        rows=tuple(row.names for row in rows),
        splits=tuple(row.split for row in rows),
        notes=tuple(notes),
    )


def _frames(flat: dict[str, h5py.Dataset]) -> Plan | None:
    """Numbered data sets of two dimensions as the frames of a series."""
    stack = stacks.find_stack({name: array.shape for name, array in flat.items()})
    if stack is None or len(stack.rows) < MIN_FRAMES:
        return None
    rows = [row for row in stack.rows if not row.split]
    digits = ["".join(row.numbers) for row in rows]
    times = None
    if min(map(len, digits), default=0) >= SHORTEST_DATE:
        times = decoding.decode(np.array(digits))
    varying = sum(len(set(x)) > 1 for x in zip(*(r.numbers for r in rows), strict=True))
    if len(rows) < len(stack.rows) or (times is None and varying > 1):
        return None
    first, last = rows[0].names[0], rows[-1].names[0]
    return Plan(
        variables=stack.variables,
        rows=tuple(row.names for row in rows),
        notes=(f"{len(rows)} data sets, {first!r} to {last!r}, are frames in time",),
        frames=True,
        times=times,
    )


def _no_fields(contents: Contents, fields: Iterable[str], path: Path) -> ValueError:
    for name in list(fields)[:1]:
        check_numbers(name, contents.arrays[name].dtype, path)
    there = [f"{name} {array.shape}" for name, array in contents.arrays.items()]
    gone = [f"{name!r} {reason}" for name, reason in contents.unusable.items()]
    return ValueError(
        f"{path} has no data set of three or more dimensions; there are: "
        f"{', '.join(there[:12] + gone[:12]) or 'none'}. Write one array (time, row, "
        "column) or (sequence, time, row, column), or give the name of a data set of "
        "two dimensions, one field per file, as `variables`"
    )


def _is_numeric(array: h5py.Dataset) -> bool:
    kind = text(array.attrs.get("MATLAB_class", ""))
    return array.dtype.kind in NUMBERS and kind not in MATLAB_CLASSES
