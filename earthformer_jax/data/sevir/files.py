"""Events of SEVIR in HDF5 files, read a few frames at a time.

A file contains the data sets `vil`, uint8 (event, row, column, frame), codes 0 to 254
and 255 for missing pixels, row 0 in the south; and `id`, the names of the events, which
files derived from SEVIR may lack.
"""

import collections
import dataclasses
import difflib
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import h5py
import numpy as np

from earthformer_jax.data.readers import unchanged
from earthformer_jax.data.reading import memory
from earthformer_jax.data.sevir.events import Events

DATASET = "vil"
LAYOUT = "(event, row, column, frame), uint8, with as many rows as columns"
MINUTES = 5  # between frames, if the catalog has no offsets
MAX_OPEN = 32  # files per process
KEPT = 2  # events per process that stay in memory, 7 MB each
BLOCK = 1024  # pixels whose axes are exchanged at a time


class VilFiles:
    """Reads frames from any of the files in a folder.

    Files are opened on first use, and at most `max_open` stay open. Only one thread
    reads at a time, because HDF5 does not support concurrent reads. Copies in other
    processes open their own files. A file that was replaced or cut since this object
    was made is an error.
    """

    def __init__(self, root: Path, names: Iterable[str], max_open: int = MAX_OPEN):
        """Remembers the files.

        Args:
            root: the folder.
            names: of the files in it.
            max_open: number of files that stay open.
        """
        self._root = root
        self._stamps = {name: unchanged.stamp(root / name) for name in names}
        self._max_open = max_open
        self._forget()

    def read(self, name: str, index: int, frames: slice) -> np.ndarray:
        """Some frames of event `index` of a file: uint8 `[t, h, w]`.

        Raises:
            OSError: if the file does not exist, is damaged or has changed.
        """
        path = self._root / name
        with self._lock:
            unchanged.check(path, self._stamps[name])
            if self._process != os.getpid():  # handles cannot be shared after a fork
                self._open = collections.OrderedDict()
                self._process = os.getpid()
            try:
                values = self._frames(name, index, frames)
            except OSError as error:
                unchanged.check(path, self._stamps[name])
                raise OSError(
                    f"{path}: event {index} cannot be read ({error}); if "
                    "the file is damaged, download it again"
                ) from error
            unchanged.check(path, self._stamps[name])
            return values

    def close(self) -> None:
        """Closes all files; the next read opens them again."""
        with self._lock:
            for file in self._open.values():
                file.close()
            self._open.clear()
            self._kept.clear()

    def _frames(self, name: str, index: int, frames: slice) -> np.ndarray:
        """`vil[index, :, :, frames]` with time as the first axis.

        An event that is stored as a whole is read as a whole, which is faster than to
        pick frames from it, and kept for the windows that follow.
        """
        vil = self._dataset(name)
        numbers = range(*frames.indices(vil.shape[3]))
        if vil.chunks and vil.chunks[3] == 1:
            return np.stack([vil[index, :, :, t] for t in numbers])
        event = self._kept.pop((name, index), None)
        if event is None:
            if len(self._kept) >= KEPT:
                self._kept.popitem(last=False)
            event = memory.empty(vil.shape[1:], np.uint8)
            vil.read_direct(event, np.s_[index])
        self._kept[name, index] = event
        return _time_first(event, numbers)

    def _dataset(self, name: str) -> h5py.Dataset:
        if name in self._open:
            self._open.move_to_end(name)
        else:
            while len(self._open) >= self._max_open:
                self._open.popitem(last=False)[1].close()
            self._open[name] = h5py.File(self._root / name, "r")
        return cast(h5py.Dataset, self._open[name][DATASET])

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._open: collections.OrderedDict[str, h5py.File] = collections.OrderedDict()
        self._kept: collections.OrderedDict[tuple[str, int], np.ndarray]
        self._kept = collections.OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> tuple[Path, dict[str, unchanged.Stamp], int]:
        return self._root, self._stamps, self._max_open

    def __setstate__(self, state: tuple[Path, dict[str, unchanged.Stamp], int]) -> None:
        self._root, self._stamps, self._max_open = state
        self._forget()


def _time_first(event: np.ndarray, frames: range) -> np.ndarray:
    """Frames of an event `[h, w, t]` as `[t, h, w]`, a few pixels at a time.

    In blocks that fit into the cache it takes a third of the time of a plain copy.
    """
    height, width, _ = event.shape
    pixels = event.reshape(height * width, -1)
    picked = slice(frames.start, frames.stop, frames.step)
    values = np.empty((len(frames), height * width), np.uint8)
    for first in range(0, height * width, BLOCK):
        part = slice(first, first + BLOCK)
        values[:, part] = pixels[part, picked].T
    return values.reshape(-1, height, width)


class EventFiles:
    """Events of the catalog with their images; `events[i]` is one whole event.

    Items are {"vil": uint8 `[t, h, w, 1]`, "time": int32 `[t]` minutes since 1970-01-01
    UTC, "corners": float32 `[4]`, "event": int32, the row of the catalog}.

    Attributes:
        frames: `[n]`, number of frames of every event.
        size: rows and columns.
        minutes: all intervals between frames that occur.
    """

    def __init__(self, files: VilFiles, events: Events, layouts: Mapping):
        """Makes a source of events whose files passed `check`.

        Args:
            files: the files with the images.
            events: the events.
            layouts: of every file, by name.
        """
        self._files = files
        self._events = events
        self.frames = np.array([layouts[name].frames for name in events.file_name])
        self.size = next(iter(layouts.values())).size
        kinds = {
            (id(offsets), frames): (offsets, frames)
            for offsets, frames in zip(events.offsets, self.frames, strict=True)
        }
        offsets = (frame_offsets(*kind) for kind in kinds.values())
        self.minutes = {
            int(np.median(np.diff(o))) for o in offsets if o is not None and len(o) > 1
        }

    @property
    def corners(self) -> np.ndarray:
        """float32 `[n, 4]` degrees of every event (`events.Events`)."""
        return self._events.corners

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"event {index} of {len(self)}")
        event = self.read(index, slice(None))
        return event | {"vil": event["vil"][..., None]}

    def read(self, index: int, frames: slice) -> dict[str, np.ndarray]:
        """Some frames of an event; `vil` without a channel axis."""
        events = self._events
        name, number = events.file_name[index], int(events.file_index[index])
        return {
            "vil": self._files.read(name, number, frames),
            "time": self.times(index)[frames],
            "corners": events.corners[index],
            "event": events.row[index],
        }

    def times(self, index: int) -> np.ndarray:
        """Minutes since 1970-01-01 UTC of all frames of an event, int32."""
        start = self._events.time[index].astype("datetime64[m]").astype(np.int64)
        offsets = frame_offsets(self._events.offsets[index], int(self.frames[index]))
        return (start + offsets).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Contents of one file.

    Attributes:
        events: number of events.
        size: rows and columns of the images.
        frames: number of frames per event.
        ids: names of the events, or None.
    """

    events: int
    size: tuple[int, int]
    frames: int
    ids: list[str] | None


def frame_offsets(offsets: np.ndarray, frames: int) -> np.ndarray | None:
    """Offsets of `frames` frames in minutes; None if those of the catalog do not fit.

    SEVIR-LR has every second frame of SEVIR but the same catalog, so every second
    offset is used. Without offsets, frames are 5 minutes apart and centred on the time
    of the event.
    """
    if not len(offsets):
        return MINUTES * (np.arange(frames) - frames // 2)
    step = max(1, round(len(offsets) / frames))
    thinned = offsets[::step]
    return thinned if len(thinned) == frames else None


def check(
    root: Path, events: Events, span: int, skip_missing: bool
) -> tuple[Events, dict[str, Layout], list[str]]:
    """Opens every file of some events once and compares it with the catalog.

    Args:
        root: the folder that file names are relative to.
        events: of the catalog.
        span: frames that an event must have.
        skip_missing: leave out events whose files are missing.

    Returns:
        the events whose files exist, the layout of every file by name, and descriptions
        of what was left out.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: if a file cannot be read or does not fit the catalog.
    """
    names = sorted(set(events.file_name))
    missing = {name for name in names if not (root / name).is_file()}
    there = np.array([name not in missing for name in events.file_name])
    left_out = []
    if missing:
        count = int(np.sum(~there))
        listed = ", ".join(sorted(missing)[:3]) + (", ..." if len(missing) > 3 else "")
        if not (skip_missing and there.any()):
            hint = (
                ", or set skip_missing_files=True to leave out their "
                f"{count} of {len(events)} events"
            )
            raise FileNotFoundError(
                f"{len(missing)} of {len(names)} files of the catalog are not in "
                f"{root}: {listed}; download them{hint if there.any() else ''}"
            )
        left_out.append(f"{count} events of {len(missing)} missing files")
    events = events.take(there)
    layouts = {n: read_layout(root / n) for n in names if n not in missing}
    sizes = {layout.size: name for name, layout in layouts.items()}
    if len(sizes) > 1:
        (a, in_a), (b, in_b) = list(sizes.items())[:2]
        raise ValueError(
            f"{root}: images of {a[0]} x {a[1]} in {in_a} and of {b[0]} x {b[1]} in "
            f"{in_b} cannot be used together; use a separate catalog for each"
        )
    for i in range(len(events)):
        _check_event(root, events, i, layouts[events.file_name[i]], span)
    return events, layouts, left_out


def read_layout(path: Path) -> Layout:
    """The contents of a file.

    Raises:
        ValueError: if it cannot be read, or has a different layout.
    """
    try:
        with h5py.File(path, "r") as file:
            return _layout(path, file)
    except OSError as error:
        size = path.stat().st_size
        with path.open("rb") as raw:
            start = raw.read(8)
        if start[1:4] == b"HDF":
            raise ValueError(
                f"{path} ({size} bytes) cannot be read: it is truncated or damaged "
                f"({error}). Download it again"
            ) from error
        raise ValueError(
            f"{path} is not an HDF5 file ({size} bytes starting with {start!r})"
        ) from error


def _layout(path: Path, file: h5py.File) -> Layout:
    vil = file.get(DATASET)
    if not isinstance(vil, h5py.Dataset):
        names = list(file)
        near = difflib.get_close_matches(DATASET, names, n=1)
        hint = f"; is it {near[0]!r}?" if near else ""
        raise ValueError(
            f"{path} has no data set {DATASET!r}{hint} (it has: {', '.join(names)}); "
            f"expected {LAYOUT}"
        )
    found = f"{path}: {DATASET!r} is {vil.dtype} of shape {vil.shape}"
    if vil.dtype != np.uint8:
        raise ValueError(
            f"{found}; expected {LAYOUT}: codes 0 to 254, and 255 for missing pixels"
        )
    ids = None
    if isinstance(named := file.get("id"), h5py.Dataset):
        ids = [x.decode() if isinstance(x, bytes) else str(x) for x in named[:]]
    if vil.ndim != 4 or vil.shape[1] != vil.shape[2]:
        raise ValueError(f"{found}; expected {LAYOUT}. Are the axes in another order?")
    if ids is not None and len(ids) != vil.shape[0]:
        raise ValueError(
            f"{found}, but 'id' lists {len(ids)} events; expected {LAYOUT}. Are the "
            "axes in another order?"
        )
    return Layout(vil.shape[0], (vil.shape[1], vil.shape[2]), vil.shape[3], ids)


def _check_event(root: Path, events: Events, i: int, layout: Layout, span: int) -> None:
    """Rejects a row of the catalog that does not match its file."""
    name, index, event = events.file_name[i], events.file_index[i], events.id[i]
    if index >= layout.events:
        raise ValueError(
            f"event {event!r} has file_index={index} in the catalog, but {root / name} "
            f"contains {layout.events} events"
        )
    if layout.ids is not None and layout.ids[index] != event:
        raise ValueError(
            f"event {event!r} of the catalog is {layout.ids[index]!r} in {root / name} "
            f"(file_index={index}); catalog and file do not belong together"
        )
    if layout.frames < span:
        raise ValueError(
            f"{root / name} has {layout.frames} frames per event, but one example "
            f"needs {span}; shorten `in_len` or `out_len`, lower "
            "`time_step`, or remove its rows from the catalog"
        )
    if frame_offsets(events.offsets[i], layout.frames) is None:
        raise ValueError(
            f"event {event!r} has {len(events.offsets[i])} minute_offsets in the "
            f"catalog, but {layout.frames} frames in {root / name}; list those of "
            "these frames only"
        )
