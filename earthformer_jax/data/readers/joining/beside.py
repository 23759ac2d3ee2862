"""Files that have different variables of the same times and grid."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earthformer_jax.data.readers import formats
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.joining import matching, ordering
from earthformer_jax.data.readers.joining.ordering import Ordered
from earthformer_jax.data.readers.layout import (
    FieldFile,
    Layout,
    NoVariable,
    UnusedLevel,
    Wanted,
)
from earthformer_jax.data.readers.times import Times

TOLERANCE = 30.0  # seconds between times that are the same


def opened(
    paths: Sequence[Path], wanted: Wanted
) -> tuple[list[FieldFile], tuple[str, ...]]:
    """The files, each with those of the requested variables that it has, and notes.

    Raises:
        ValueError: if a file cannot be read, or a variable is in none of them.
    """
    if len(paths) == 1:
        return [formats.open_file(paths[0], wanted)], ()
    files: list[FieldFile] = []
    respelt: list[FieldFile] = []  # last, so that names are those that are requested
    without: list[Path] = []
    absent: dict[str, list[NoVariable]] = {}
    unused: list[UnusedLevel] = []
    for path in paths:
        file, exact = _open(path, wanted, absent, unused)
        if file is None:
            without.append(path)
        else:
            (files if exact else respelt).append(file)
    files += respelt
    for errors in absent.values():
        if len(errors) == len(paths):
            raise errors[0]
    if unused and len(unused) == len(files):
        raise unused[0]
    if not without:
        return files, ()
    return files, (
        f"left out {len(without)} file{'s' if len(without) > 1 else ''} without "
        f"{' and '.join(wanted.variables)}: {without[0].name}"
        + (", ..." if len(without) > 1 else ""),
    )


def parts(files: Sequence[FieldFile]) -> list[Ordered]:
    """The frames of each group of files that have the same variables.

    Raises:
        ValueError: if files of one group do not match, a variable is in several groups,
            or the groups differ in times or grid.
    """
    groups: list[list[FieldFile]] = []
    for file in files:
        like = (
            g for g in groups if matching.places(g[0].layout, file.layout) is not None
        )
        group = next(like, None)
        if group is None:
            groups.append([file])
        else:
            group.append(file)
    first = groups[0][0].layout
    for group in groups[1:]:
        layout = group[0].layout
        for other in groups[: groups.index(group)]:
            if set(layout.names) & set(other[0].layout.names):
                matching.arranged(group[0], other[0].layout)  # says how they differ
    found = []
    for group in groups:
        same = [group[0], *(matching.arranged(f, group[0].layout) for f in group[1:])]
        found.append(ordering.ordered([matching.on_grid(f, first) for f in same]))
    for part in found[1:]:
        _check_times(found[0], part)
    return found


def order_of_channels(parts: Sequence[Ordered], wanted: Wanted) -> list[int]:
    """Places of the channels of all parts in the order in which they were requested.

    Channels of a variable that become several keep their order.
    """
    names = [name for part in parts for name in part.files[0].layout.names]
    if len(parts) == 1 or not wanted.variables:
        return list(range(len(names)))

    def requested(place: int) -> int:
        owners = [
            i
            for i, variable in enumerate(wanted.variables)
            if names[place] == variable or names[place].startswith(f"{variable}_")
        ]
        return max(owners, key=lambda i: len(wanted.variables[i]), default=0)

    return sorted(range(len(names)), key=requested)


def _open(
    path: Path,
    wanted: Wanted,
    absent: dict[str, list[NoVariable]],
    unused: list[UnusedLevel],
) -> tuple[FieldFile | None, bool]:
    """A file with the requested variables that it has, and whether all are spelt so.

    Args:
        path: the file.
        wanted: the request.
        absent: errors of variables that a file lacks are added here.
        unused: the error of a file to which `level` does not apply is added here.

    Returns:
        the file, None if it has no such variable; False if a variable is spelt in
        another way ("T2M" for "t2m").
    """
    names, level, exact = list(wanted.variables), wanted.level, True
    while names or not wanted.variables:
        reduced = dataclasses.replace(wanted, variables=tuple(names), level=level)
        try:
            return formats.open_file(path, reduced), exact
        except NoVariable as error:
            if error.name not in names:
                raise
            absent.setdefault(error.name, []).append(error)
            meant = matching.plain(error.name)
            alike = [name for name in error.there if matching.plain(name) == meant]
            alike = [name for name in alike if name not in names]
            place = names.index(error.name)
            names[place : place + 1] = alike if len(alike) == 1 else []
            exact = exact and len(alike) != 1
        except UnusedLevel as error:
            level = ()
            unused.append(error)
    return None, exact


def _check_times(first: Ordered, other: Ordered) -> None:
    """Rejects variables of different files that do not have the same times."""
    a, b = (_span(part) for part in (first, other))
    what = f"{a} and {b} have different variables"
    if first.times is None or other.times is None:
        raise ValueError(
            f"{what}, and are used side by side only if both have times; merge them, "
            "for example with `cdo merge` or xarray.merge, or choose one with "
            "`variables`"
        )
    paths = (part.files[0].layout.path for part in (first, other))
    ordering.check_calendars(first.times, other.times, *paths)
    if len(first.times) == len(other.times) and np.all(
        np.abs(first.times.seconds - other.times.seconds) <= TOLERANCE
    ):
        return
    raise ValueError(
        f"{what}, but not at the same times; cut them to the same times, for example "
        "with `cdo seldate` or xarray's sel, choose one with `variables`, or rename "
        "the variables if they are the same"
    )


def _span(part: Ordered) -> str:
    """ "a.nc (tas, 60 times 2000-01-01..2000-02-29)" """
    layout: Layout = part.files[0].layout
    frames = "without times" if part.times is None else _times_text(part.times)
    return f"{layout.path} ({', '.join(layout.names)}, {frames})"


def _times_text(times: Times) -> str:
    return f"{len(times)} times {times_lib.period_text(times.minutes)}"
