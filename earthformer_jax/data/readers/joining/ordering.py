"""The frames of several files with the same variables, in the order of time."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.frames import Cut, FileFrames
from earthformer_jax.data.readers.joining import names
from earthformer_jax.data.readers.layout import FieldFile
from earthformer_jax.data.readers.times import Times

SAME_MOMENT = 0.5  # seconds


@dataclasses.dataclass(frozen=True)
class Ordered:
    """Frames of several files.

    Attributes:
        files: with the same variables and grid.
        table: int `[t, 3]`: file, sequence and step of each frame.
        times: of the frames, increasing; None if unknown.
        notes: what was left out.
    """

    files: Sequence[FieldFile]
    table: np.ndarray
    times: Times | None
    notes: tuple[str, ...] = ()

    def segments(self) -> np.ndarray:
        """int `[s, 2]`, first frame and end of stretches without gaps."""
        if self.times is not None:
            starts = times_lib.interruptions(self.times)
        elif all(_is_single(file) for file in self.files):
            starts = np.zeros(0, int)
        else:
            changes = np.any(np.diff(self.table[:, :2], axis=0), axis=1)
            starts = np.flatnonzero(changes) + 1
        edges = np.concatenate([[0], starts, [len(self.table)]]).astype(np.int64)
        return np.stack([edges[:-1], edges[1:]], axis=1)


def ordered(files: Sequence[FieldFile]) -> Ordered:
    """Frames sorted by time if the files have times, else in the order of the files.

    A frame that several files have is used once if its values are the same in all.

    Raises:
        ValueError: if only some files have times, their calendars differ, times do not
            increase within a file, or files contradict each other.
    """
    layouts = [file.layout for file in files]
    parts = []
    for number, layout in enumerate(layouts):
        lengths = layout.lengths or (layout.steps,) * layout.sequences
        sequence = np.repeat(np.arange(len(lengths)), lengths)
        step = np.concatenate([np.arange(length) for length in lengths])
        parts.append(np.stack([np.full_like(step, number), sequence, step], axis=1))
    table = np.concatenate(parts)
    times, notes = _all_times(files), ()
    if times is None and len(files) > 1 and all(map(_is_single, files)):
        times = names.times_of([file.layout.path.name for file in files])
        notes = (
            "files have no times: they are in the order of their names, at equal steps"
            if times is None
            else "files have no times: frames are dated by the names of the files",
        )
    if times is None:
        return Ordered(files, table, None, notes)
    order = np.argsort(times.seconds, kind="stable")
    table, times = table[order], times[order]
    again = np.concatenate([[False], np.diff(times.seconds) <= SAME_MOMENT])
    if not again.any():
        return Ordered(_in_use(files, table), _renumbered(table), times, notes)
    _check_repeated(files, table, times, again)
    count = int(again.sum())
    notes += (
        f"{count} frame{'s' if count > 1 else ''} that two files have with the same "
        f"values, from {times_lib.text(times.minutes[np.argmax(again)])}, "
        f"{'are' if count > 1 else 'is'} used once",
    )
    table, times = table[~again], times[~again]
    return Ordered(_in_use(files, table), _renumbered(table), times, notes)


def _all_times(files: Sequence[FieldFile]) -> Times | None:
    """Times of all frames, file by file; None if there are none."""
    timed = [file.layout for file in files if file.layout.times is not None]
    if not timed:
        return None
    without = [file.layout for file in files if file.layout.times is None]
    if without:
        raise ValueError(
            f"{without[0].path} has no times, but {timed[0].path} does; use only files "
            "with times or only files without"
        )
    parts = []
    for layout in timed:
        assert layout.times is not None
        check_calendars(timed[0].times, layout.times, timed[0].path, layout.path)
        try:
            times_lib.check_order(layout.times)
        except ValueError as error:
            raise ValueError(f"{layout.path}: {error}") from None
        parts.append(layout.times)
    return times_lib.join(parts)


def check_calendars(first: Times | None, other: Times | None, a, b) -> None:
    """Rejects times in calendars that have different days.

    Args:
        first: times of a file.
        other: times of another file.
        a: path of the first file, for the message.
        b: path of the other file.
    """
    if first is None or other is None or first.calendar == other.calendar:
        return
    raise ValueError(
        f"{a} has the calendar {first.calendar!r}, {b} {other.calendar!r}, and they "
        "have different days; convert one of them, for example with xarray's "
        "Dataset.convert_calendar, or use only files of one calendar"
    )


def _is_single(file: FieldFile) -> bool:
    """Whether a file is one field; the order of such files is the order in time."""
    layout = file.layout
    return layout.single or layout.sequences * layout.steps == 1


def _in_use(files: Sequence[FieldFile], table: np.ndarray) -> list[FieldFile]:
    """The files of which frames are used, in the order of their first frame."""
    return [files[i] for i in _first_seen(table)]


def _renumbered(table: np.ndarray) -> np.ndarray:
    """The table with the numbers that files have in `_in_use`."""
    seen = _first_seen(table)
    numbers = np.zeros(max(seen) + 1, np.int64)
    numbers[seen] = np.arange(len(seen))
    return np.column_stack([numbers[table[:, 0]], table[:, 1:]])


def _first_seen(table: np.ndarray) -> list[int]:
    return list(dict.fromkeys(table[:, 0].tolist()))


def _check_repeated(
    files: Sequence[FieldFile], table: np.ndarray, times: Times, again: np.ndarray
) -> None:
    """Rejects frames of the same time with different values."""
    height, width = files[0].layout.size
    whole = Cut(slice(0, height), (slice(0, width),))
    frames = FileFrames(files, table, whole)
    kept = np.maximum.accumulate(np.where(again, 0, np.arange(len(again))))
    try:
        for second in np.flatnonzero(again).tolist():
            first = int(kept[second])
            values = frames.read(first, first + 1), frames.read(second, second + 1)
            if np.array_equal(*values, equal_nan=True):
                continue
            a, b = (files[table[i, 0]].layout.path for i in (first, second))
            raise ValueError(_contradiction(a, b, files, times, again, second, values))
    finally:
        frames.close()


def _contradiction(a, b, files, times, again, frame: int, values) -> str:
    """The message for two files with different values at the same time."""
    one, other = (np.nan_to_num(x, nan=np.inf) for x in values)
    place = np.unravel_index(np.argmax(one != other), one.shape)
    name = files[0].layout.names[place[-1]]
    shown = [f"{x[place]:g}" if np.isfinite(x[place]) else "missing" for x in values]
    return (
        f"{a} and {b} both have {times_lib.text(times.minutes[frame])} "
        f"({int(again.sum())} times are in more than one file), and {name!r} differs: "
        f"{shown[0]} in one and {shown[1]} in the other. If they are versions, levels "
        "or members of one variable, use a pattern that matches only one of them; "
        "otherwise leave out the file that is wrong"
    )
