"""Frames of a series by number, from files or memory."""

import collections
import dataclasses
import os
import threading
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.readers import unchanged
from earthformer_jax.data.readers.layout import FieldFile

MAX_OPEN = 32  # files at a time
BLOCK_BYTES = 2**27  # at full resolution, read at once when reading everything


@dataclasses.dataclass(frozen=True)
class Cut:
    """The part of every stored field that is used, and how it is coarsened.

    Attributes:
        rows: slice of the stored rows.
        columns: one or two slices of the stored columns, joined in this order.
        flip: reverse the rows.
        space_step: n × n cells are averaged into one; a remainder at the end is left
            out. A mean is known if at least half of its values are.
        mirror: reverse the columns.
        pick: take the first of n × n cells rather than their mean.
    """

    rows: slice
    columns: tuple[slice, ...]
    flip: bool = False
    space_step: int = 1
    mirror: bool = False
    pick: bool = False

    @property
    def stored(self) -> tuple[int, int]:
        """Rows and columns that are read."""
        width = sum(columns.stop - columns.start for columns in self.columns)
        return self.rows.stop - self.rows.start, width

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a frame."""
        height, width = self.stored
        rest = self.space_step - 1 if self.pick else 0
        return (height + rest) // self.space_step, (width + rest) // self.space_step

    def of(self, values: np.ndarray) -> np.ndarray:
        """Fields whose rows and columns have been read, `[t, h, w, c]`, as wanted."""
        values = values[:, ::-1] if self.flip else values
        values = values[:, :, ::-1] if self.mirror else values
        if self.pick:
            step = self.space_step
            return np.ascontiguousarray(values[:, ::step, ::step])
        return block_mean(values, self.space_step)

    def then(self, cut: "Cut") -> "Cut":
        """This cut, and another of the fields that it makes, in one.

        Args:
            cut: in rows and columns of this cut, which must average no cells.
        """
        assert self.space_step == 1  # a mean of means would weight cells unequally
        rows, columns = cut.rows, cut.columns
        if self.flip:
            rows = slice(self.rows.stop - rows.stop, self.rows.stop - rows.start)
        else:
            rows = slice(self.rows.start + rows.start, self.rows.start + rows.stop)
        stored = np.concatenate([np.arange(x.start, x.stop) for x in self.columns])
        stored = stored[::-1] if self.mirror else stored
        index = np.concatenate([stored[part] for part in columns])
        columns, mirror = runs(index)
        return dataclasses.replace(
            cut,
            rows=rows,
            columns=columns,
            flip=self.flip != cut.flip,
            mirror=mirror != cut.mirror,
        )


class ArrayFrames:
    """Frames in memory."""

    def __init__(self, values: np.ndarray):
        """Keeps float32 `[t, h, w, c]`, NaN where missing."""
        self.values = values

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(t, h, w, c)."""
        return self.values.shape

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop - 1, `[n, h, w, c]`, which must not be modified."""
        return self.values[start:stop]

    def channels(self, places: Sequence[int]) -> "ArrayFrames":
        """The same frames with these channels, in this order."""
        return ArrayFrames(np.ascontiguousarray(self.values[..., list(places)]))

    def cut(self, cut: Cut) -> "ArrayFrames":
        """The same frames, of which a part is used."""
        parts = [self.values[:, cut.rows, columns] for columns in cut.columns]
        return ArrayFrames(np.ascontiguousarray(cut.of(np.concatenate(parts, axis=2))))


class FileFrames:
    """Frames read from files on demand.

    Files are opened on first use in each process, a limited number at a time. Reading
    is thread-safe. A file that was replaced or cut since this object was made is an
    error (`readers.unchanged`).
    """

    def __init__(
        self,
        files: Sequence[FieldFile],
        table: np.ndarray,
        cut: Cut,
        step: int = 1,
        places: Sequence[int] = (),
        stamps: Sequence[unchanged.Stamp] = (),
    ):
        """Makes a reader.

        Args:
            files: the files.
            table: int `[t, 3]`: file, sequence and step of each frame.
            cut: the part of every field that is used.
            step: stored steps from one frame to the next, within a sequence.
            places: channels of the files, in the desired order; () for all.
            stamps: of the files when they were opened; () to take them now.
        """
        self._files, self._table, self._cut = list(files), table, cut
        self._step, self._places = step, tuple(places)
        self._stamps = tuple(stamps) or tuple(
            unchanged.stamp(file.layout.path) for file in files
        )
        self._forget()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(t, h, w, c)."""
        channels = len(self._places or self._files[0].layout.names)
        height, width = self._cut.size
        return len(self._table), height, width, channels

    def channels(self, places: Sequence[int]) -> "FileFrames":
        """The same frames with these channels, in this order."""
        old = self._places or range(self.shape[3])
        places = [old[i] for i in places]
        return self._changed(places=places)

    def cut(self, cut: Cut) -> "FileFrames":
        """The same frames, of which a part is read; cells must not be averaged yet."""
        return self._changed(cut=self._cut.then(cut))

    def unthinned(self) -> "FileFrames":
        """The same frames without averaging of cells."""
        if self._cut.space_step == 1:  # the open files are used again
            return self
        return self._changed(
            cut=dataclasses.replace(self._cut, space_step=1, pick=False)
        )

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop - 1, float32 `[n, h, w, c]`; NaN where missing."""
        table = self._table[start:stop]
        if not len(table):
            return np.empty((0, *self.shape[1:]), np.float32)
        follows = np.all(np.diff(table, axis=0) == (0, 0, self._step), axis=1)
        breaks = np.flatnonzero(~follows) + 1
        parts = [self._piece(piece) for piece in np.split(table, breaks)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def in_memory(self) -> ArrayFrames:
        """All frames, read once."""
        values = np.empty(self.shape, np.float32)
        height, width = self._cut.stored
        block = max(1, BLOCK_BYTES // (4 * height * width * values.shape[3]))
        for start in range(0, len(values), block):
            values[start : start + block] = self.read(start, start + block)
        return ArrayFrames(values)

    def close(self) -> None:
        """Closes all files; reading opens them again."""
        with self._lock:
            for handle in self._open.values():
                handle.close()
            self._open.clear()

    def _piece(self, table: np.ndarray) -> np.ndarray:
        """Frames of one sequence of one file, at equal steps."""
        number, sequence, first = map(int, table[0])
        steps = slice(first, int(table[-1, 2]) + 1, self._step)
        cut = self._cut
        if os.getpid() != self._process:  # handles cannot be shared after a fork
            self._forget()
        with self._lock:  # a file must not be closed while another thread reads it
            file, stamp = self._files[number], self._stamps[number]
            unchanged.check(file.layout.path, stamp)
            handle = self._handle(number)
            try:
                parts = [
                    file.read(handle, sequence, steps, cut.rows, columns)
                    for columns in cut.columns
                ]
            finally:  # a change explains both wrong values and an error
                unchanged.check(file.layout.path, stamp)
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
        return cut.of(values[..., self._places] if self._places else values)

    def _handle(self, number: int):
        if number in self._open:
            self._open.move_to_end(number)
        else:
            while len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[number] = self._files[number].open()
        return self._open[number]

    def _changed(
        self, cut: Cut | None = None, places: Sequence[int] = ()
    ) -> "FileFrames":
        return FileFrames(
            self._files,
            self._table,
            cut or self._cut,
            self._step,
            places or self._places,
            self._stamps,
        )

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._open: collections.OrderedDict = collections.OrderedDict()
        self._process = os.getpid()

    def __getstate__(self):
        own = {"_lock", "_open", "_process"}
        return {k: value for k, value in self.__dict__.items() if k not in own}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self._forget()


class FramesBeside:
    """Frames whose channels come from different files."""

    def __init__(self, parts: Sequence[FileFrames], places: Sequence[int]):
        """Makes a reader.

        Args:
            parts: frames of the same times and cells.
            places: channels of all parts, one part after the other, in the desired
                order.
        """
        self._parts, self._places = tuple(parts), tuple(places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(t, h, w, c)."""
        return *self._parts[0].shape[:3], len(self._places)

    def channels(self, places: Sequence[int]) -> "FramesBeside":
        """The same frames with these channels, in this order."""
        return FramesBeside(self._parts, [self._places[i] for i in places])

    def cut(self, cut: Cut) -> "FramesBeside":
        """The same frames, of which a part is read."""
        return FramesBeside([part.cut(cut) for part in self._parts], self._places)

    def unthinned(self) -> "FramesBeside":
        """The same frames without averaging of cells."""
        return FramesBeside([part.unthinned() for part in self._parts], self._places)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop - 1, float32 `[n, h, w, c]`; NaN where missing."""
        values = [part.read(start, stop) for part in self._parts]
        return np.concatenate(values, axis=-1)[..., self._places]

    def in_memory(self) -> ArrayFrames:
        """All frames, read once."""
        values = [part.in_memory().values for part in self._parts]
        return ArrayFrames(np.concatenate(values, axis=-1)[..., self._places])

    def close(self) -> None:
        """Closes all files; reading opens them again."""
        for part in self._parts:
            part.close()


class ConvertedFrames:
    """Frames in other units: value * factor + offset of every channel."""

    def __init__(
        self,
        frames: "Frames",
        factors: Sequence[float] | np.ndarray,
        offsets: Sequence[float] | np.ndarray,
    ):
        """Keeps frames, and float64 factors and offsets of their channels."""
        self._frames = frames
        self._factors = np.asarray(factors, np.float64)
        self._offsets = np.asarray(offsets, np.float64)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(t, h, w, c)."""
        return self._frames.shape

    def channels(self, places: Sequence[int]) -> "ConvertedFrames":
        """The same frames with these channels, in this order."""
        places = list(places)
        return ConvertedFrames(
            self._frames.channels(places), self._factors[places], self._offsets[places]
        )

    def cut(self, cut: Cut) -> "ConvertedFrames":
        """The same frames, of which a part is read."""
        return ConvertedFrames(self._frames.cut(cut), self._factors, self._offsets)

    def unthinned(self) -> "ConvertedFrames":
        """The same frames without averaging of cells."""
        if isinstance(self._frames, ArrayFrames):
            return self
        return ConvertedFrames(self._frames.unthinned(), self._factors, self._offsets)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames start..stop - 1, float32 `[n, h, w, c]`; NaN where missing."""
        return self._converted(self._frames.read(start, stop))

    def in_memory(self) -> ArrayFrames:
        """All frames, read once."""
        if isinstance(self._frames, ArrayFrames):
            return ArrayFrames(self._converted(self._frames.values))
        values = self._frames.in_memory().values
        for start in range(len(values)):  # float64 of one frame at a time
            values[start] = self._converted(values[start])
        return ArrayFrames(values)

    def close(self) -> None:
        """Closes all files; reading opens them again."""
        if not isinstance(self._frames, ArrayFrames):
            self._frames.close()

    def _converted(self, values: np.ndarray) -> np.ndarray:
        return (values * self._factors + self._offsets).astype(np.float32)


Frames = ArrayFrames | FileFrames | FramesBeside | ConvertedFrames


def runs(index: np.ndarray) -> tuple[tuple[slice, ...], bool]:
    """Slices that give the numbers of an index, and whether they must be reversed."""
    reverse = len(index) > 1 and bool(np.mean(np.diff(index) < 0) > 0.5)
    index = index[::-1] if reverse else index
    pieces = np.split(index, np.flatnonzero(np.diff(index) != 1) + 1)
    return tuple(slice(int(x[0]), int(x[-1]) + 1) for x in pieces), reverse


def block_mean(values: np.ndarray, step: int) -> np.ndarray:
    """Means of the observed values in blocks of step x step cells of `[t, h, w, c]`.

    A remainder of rows or columns at the end is left out. NaN where less than half of a
    block is observed.
    """
    if step == 1:
        return np.ascontiguousarray(values)
    t, h, w, c = values.shape
    h, w = h // step, w // step
    blocks = values[:, : h * step, : w * step].reshape(t, h, step, w, step, c)
    known = np.isfinite(blocks)
    count = known.sum(axis=(2, 4))
    total = np.where(known, blocks, 0).sum(axis=(2, 4), dtype=np.float64)
    enough = 2 * count >= step**2
    mean = np.full(total.shape, np.nan, np.float32)
    mean[enough] = total[enough] / count[enough]
    return mean
