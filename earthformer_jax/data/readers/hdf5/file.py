"""Fields in the data sets of an HDF5 file."""

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from earthformer_jax.data.readers import axes as axes_lib
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.hdf5 import radar
from earthformer_jax.data.readers.hdf5.contents import (
    Contents,
    dimensions,
    find_contents,
    text,
    unwritten,
)
from earthformer_jax.data.readers.hdf5.coordinates import (
    find_coordinate,
    find_times,
    known_lengths,
    named_axes,
)
from earthformer_jax.data.readers.hdf5.plan import make_plan
from earthformer_jax.data.readers.layout import (
    MIN_DIMENSIONS,
    Layout,
    Wanted,
    check_no_level,
)
from earthformer_jax.data.readers.values.missing import Coding, coding

MATLAB = b"MATLAB 7.3"


@dataclasses.dataclass(frozen=True)
class Span:
    """Consecutive steps in one data set per variable.

    Attributes:
        names: of the data sets, one for each variable.
        steps: number of steps.
        place: along the axis n, if there is one.
    """

    names: tuple[str, ...]
    steps: int
    place: int = 0


class Hdf5File:
    """Data sets of an HDF5 file; `layout` describes its contents."""

    def __init__(self, path: Path, wanted: Wanted):
        """Reads everything but the fields.

        Raises:
            Undecided: if the data sets or axes can be read in several ways.
            ValueError: if the file is damaged or lacks the requested data sets.
        """
        check_no_level(wanted, path)
        self._path, self._missing = path, wanted.missing
        self._codings: dict[str, Coding | radar.RadarField] = {}
        try:
            with contextlib.closing(self.open()) as file:
                contents = find_contents(file, path)
                fields = radar.find_fields(file, contents.arrays, path)
                if fields:
                    self.layout = self._radar(contents, fields, wanted)
                else:
                    self.layout = self._series(contents, wanted)
        except (OSError, RuntimeError) as error:
            raise ValueError(self._unreadable(error)) from None

    def open(self) -> h5py.File:
        """The open file, which the caller closes."""
        try:
            return h5py.File(self._path, "r")
        except OSError as error:
            raise ValueError(self._unreadable(error)) from None

    def read(self, handle, sequence: int, steps, rows, columns) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        spans = self._sequences[sequence]
        chosen = range(sum(span.steps for span in spans))[steps]
        parts, first = [], 0
        for span in spans:
            ends = [
                max(0, math.ceil((edge - chosen.start) / chosen.step))
                for edge in (first, first + span.steps)
            ]
            inside = chosen[slice(*ends)]
            if inside:
                local = slice(inside[0] - first, inside[-1] - first + 1, chosen.step)
                parts.append(self._read_span(handle, span, local, rows, columns))
            first += span.steps
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_span(self, handle, span: Span, steps, rows, columns) -> np.ndarray:
        channels = []
        for name in span.names:
            try:
                stored = axes_lib.read_array(
                    handle[name], self._axes, span.place, steps, rows, columns
                )
            except (OSError, KeyError) as error:
                raise ValueError(self._unreadable(error)) from None
            channels.append(self._codings[name].decode(stored, self._missing))
        return np.concatenate(channels, axis=-1)

    def _radar(
        self, contents: Contents, fields: Sequence[radar.RadarField], wanted: Wanted
    ) -> Layout:
        names, rows = radar.chosen(fields, wanted.variables, self._path)
        self._axes = wanted.axes or "hw"
        first = contents.arrays[rows[0][0].dataset]
        axes_lib.check_axes(self._axes, first.shape, f"{rows[0][0].dataset!r}")
        for field in (field for row in rows for field in row):
            self._codings[field.dataset] = field
            shape = contents.arrays[field.dataset].shape
            if shape != first.shape:
                raise self._shapes_differ(rows[0][0].dataset, field.dataset, contents)
        spans = tuple(Span(tuple(f.dataset for f in row), 1) for row in rows)
        self._sequences = (spans,)
        sizes = dict(zip(self._axes, first.shape, strict=True))
        left = [f.dataset for f in fields if f.dataset not in self._codings]
        times = radar.times_of(rows)
        notes = list(dict.fromkeys(field.note for field in rows[0]))
        if times is None:
            notes.append("no date and time in the file: steps are assumed to be equal")
        return Layout(
            path=self._path,
            format="HDF5",
            names=names,
            units=tuple(field.units for field in rows[0]),
            sequences=1,
            steps=len(spans),
            size=(sizes["h"], sizes["w"]),
            times=times,
            codings=tuple(field.coding for field in rows[0]),
            notes=(*notes, *_left_out(left)),
            single=len(spans) == 1,
        )

    def _series(self, contents: Contents, wanted: Wanted) -> Layout:
        arrays, path = contents.arrays, self._path
        plan = make_plan(contents, wanted, path)
        names = [name for row in plan.rows for name in row]
        first = arrays[names[0]]
        self._axes, notes = self._choose_axes(contents, plan.rows[0][0], wanted.axes)
        sizes = dict(zip(self._axes, first.shape, strict=True))
        for name in names:
            self._codings[name] = coding(arrays[name].attrs, arrays[name].dtype)
            other = dict(zip(self._axes, arrays[name].shape, strict=False))
            same = arrays[name].ndim == first.ndim and all(
                other[a] == sizes[a] for a in "hwc" if a in sizes
            )
            if not same:
                raise self._shapes_differ(names[0], name, contents)
        rows = [
            (row, dict(zip(self._axes, arrays[row[0]].shape, strict=True)))
            for row in plan.rows
        ]
        times, note = None, ""
        if plan.frames:
            times = plan.times
            self._sequences = (tuple(Span(row, 1) for row, _ in rows),)
        else:
            self._sequences = tuple(
                (Span(row, n.get("t", 1), place),)
                for row, n in rows
                for place in range(n.get("n", 1))
            )
            if not any(plan.splits):
                times, note = self._joined(contents)
        lengths = [sum(span.steps for span in spans) for spans in self._sequences]
        count = sizes.get("c")
        per_row = [n.get("n", 1) for _, n in rows]
        splits: dict[str, int] = {}
        for split, n in zip(plan.splits, per_row, strict=bool(plan.splits)):
            if split:
                splits[split] = splits.get(split, 0) + n
        left = [
            name
            for name, array in arrays.items()
            if array.ndim >= MIN_DIMENSIONS and name not in names
        ]
        gone = list(filter(None, (unwritten(arrays[name]) for name in names)))[:4]
        gone += [f"{name!r} {reason}" for name, reason in contents.unusable.items()]
        return Layout(
            path=path,
            format="HDF5",
            names=_with_channels(plan.variables, count),
            units=tuple(
                text(arrays[name].attrs.get("units", ""))
                for name in plan.rows[0]
                for _ in range(count or 1)
            ),
            sequences=len(self._sequences),
            steps=max(lengths, default=0),
            lengths=tuple(lengths) if len(set(lengths)) > 1 else (),
            splits=splits,
            size=(sizes["h"], sizes["w"]),
            times=times,
            latitude=find_coordinate(contents, names[0], "latitude", sizes),
            longitude=find_coordinate(contents, names[0], "longitude", sizes),
            codings=tuple(
                coding(arrays[name].attrs, arrays[name].dtype)
                for name in plan.rows[0]
                for _ in range(count or 1)
            ),
            notes=(*plan.notes, *notes, *filter(None, [note]), *_left_out(left), *gone),
            single="t" not in self._axes,
        )

    def _choose_axes(
        self, contents: Contents, name: str, axes: str
    ) -> tuple[str, tuple[str, ...]]:
        """Axes that are given, named, told by the lengths of coordinates, or likely."""
        array, what = contents.arrays[name], f"{name!r} of {self._path}"
        if axes:
            axes_lib.check_axes(axes, array.shape, what)
            return axes, ()
        letters = named_axes(array, what)
        if "c" in letters:
            dimension = dimensions(array)[letters.index("c")].name
            return letters, (f"{dimension!r} of {name!r} are variables",)
        if letters:
            return letters, ()
        if self._is_matlab() and array.ndim == MIN_DIMENSIONS:
            # MATLAB's (row, column, time) is stored in the reverse order.
            return "twh", (axes_lib.axes_note("twh", array.shape),)
        known = known_lengths(contents, name)
        letters = axes_lib.from_lengths(array.shape, known)
        if letters:
            return letters, ()
        letters = axes_lib.guess_axes(array.shape, what)
        return letters, (axes_lib.axes_note(letters, array.shape),)

    def _joined(self, contents: Contents) -> tuple[times_lib.Times | None, str]:
        """Times of the only sequence, or of sequences that follow each other; a note.

        Sequences that all have times and do not overlap become one series.
        """
        every = {spans[0].names for spans in self._sequences}
        if len(every) < len(self._sequences):
            return None, ""  # sequences in one data set
        found, note = [], ""
        for spans in self._sequences:
            name, steps = spans[0].names[0], spans[0].steps
            times, note = find_times(contents, name, steps, self._path)
            if times is None:
                return None, note
            found.append(times)
        if len(found) == 1:
            return found[0], note
        order = sorted(range(len(found)), key=lambda i: found[i].seconds[0])
        times = times_lib.join([found[i] for i in order])
        if np.any(np.diff(times.seconds) <= 0):
            return None, ""
        self._sequences = (tuple(self._sequences[i][0] for i in order),)
        return times, note

    def _is_matlab(self) -> bool:
        with self._path.open("rb") as file:
            return file.read(len(MATLAB)) == MATLAB

    def _shapes_differ(self, a: str, b: str, contents: Contents) -> ValueError:
        shapes = [contents.arrays[name].shape for name in (a, b)]
        return ValueError(
            f"{self._path}: {a!r} has shape {shapes[0]} and {b!r} {shapes[1]}; "
            "variables must share axes"
        )

    def _unreadable(self, error: Exception) -> str:
        size = self._path.stat().st_size
        return (
            f"path={self._path} is an HDF5 file that cannot be read: it is "
            f"truncated or damaged ({size} bytes; {error}). Download or write it again"
        )


def _with_channels(names: Sequence[str], channels: int | None) -> tuple[str, ...]:
    if channels is None:
        return tuple(names)
    return tuple(f"{name}_{i}" for name in names for i in range(channels))


def _left_out(names: Sequence[str]) -> tuple[str, ...]:
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return (f"left out: {shown}",) if names else ()
