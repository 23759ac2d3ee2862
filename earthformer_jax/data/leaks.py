"""Keeps the splits of a data set apart: no target that is scored has been trained on.

A data set says when and where its windows are (`Spans`). `Data` refuses splits whose
targets share a frame with a window of an earlier split (`check_apart`), whatever made
them. The inputs of a validation or test window may reach into an earlier period, as
they do in a forecast.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from earthformer_jax.data.readers.frames import ArrayFrames

if TYPE_CHECKING:
    from earthformer_jax.data.readers.series import Cube

ORDER = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Spans:
    """When and where the windows of a split are.

    Windows share a frame if they share a moment and a place.

    Attributes:
        first: int64 `[n]`, time of the first frame of each window, in any unit: minutes
            since 1970, or the number of the frame in its series.
        target: int64 `[n]`, time of the first target frame.
        last: int64 `[n]`, time of the last frame.
        place: int64 `[n]`; windows with different numbers are at different places. None
            if all windows may be at the same place.
        boxes: `[n, 4]` degrees, latitude and longitude of the lower left, then of the
            upper right corner. Boxes that do not overlap are different places; NaN:
            could be anywhere. None if there are none.
    """

    first: np.ndarray
    target: np.ndarray
    last: np.ndarray
    place: np.ndarray | None = None
    boxes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.first)

    def take(self, which: np.ndarray) -> "Spans":
        """The windows of a mask or of positions."""
        return Spans(
            self.first[which],
            self.target[which],
            self.last[which],
            place=None if self.place is None else self.place[which],
            boxes=None if self.boxes is None else self.boxes[which],
        )


def of_starts(starts: np.ndarray, in_len: int, out_len: int) -> Spans:
    """The spans of windows of one series, by the numbers of its frames.

    Args:
        starts: `[n]` first frames of the windows.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.
    """
    first = np.asarray(starts, np.int64)
    return Spans(first, first + in_len, first + in_len + out_len - 1)


def of_keys(keys: np.ndarray) -> Spans:
    """The spans of frames or sequences without times: those with the same key are one.

    Args:
        keys: int64 `[n, ...]` of `key`; 0 marks what need not be told apart.
    """
    place = keys[keys != 0]
    zeros = np.zeros(len(place), np.int64)
    return Spans(zeros, zeros, zeros, place=place)


def key(content: bytes) -> int:
    """A number of 63 bits that differs for different contents; never 0."""
    digest = hashlib.blake2b(content, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 or 1


def unrepeated(keys: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Which sequences of each split have no frame in common with an earlier split.

    Args:
        keys: int64 `[n, t]` of the frames of each split's sequences (`key`); 0 marks
            frames that do not count.

    Returns:
        bool `[n]` by split; all True in the first.
    """
    kept, seen = {}, np.zeros(0, np.int64)
    for split in ORDER:
        mine = keys[split]
        kept[split] = ~np.any(np.isin(mine, seen) & (mine != 0), axis=1)
        seen = np.union1d(seen, mine[kept[split]])
    return kept


def shared(later: Spans, earlier: Spans, *, inputs: bool = False) -> np.ndarray:
    """Which windows have a frame that is also in one of the earlier windows.

    Args:
        later: the windows that are looked at.
        earlier: the windows that must not be met.
        inputs: whether the inputs of the later windows count, or only their targets.

    Returns:
        bool `[n]`.
    """
    begin = later.first if inputs else later.target
    found = np.zeros(len(later), bool)
    if not len(earlier):
        return found
    for mine, others in _by_place(later, earlier):
        order = others[np.argsort(earlier.first[others], kind="stable")]
        starts, latest = (
            earlier.first[order],
            np.maximum.accumulate(earlier.last[order]),
        )
        # Earlier windows that begin before this one ends; does one of them reach it?
        count = np.searchsorted(starts, later.last[mine], side="right")
        met = (count > 0) & (latest[np.maximum(count - 1, 0)] >= begin[mine])
        if later.boxes is not None and earlier.boxes is not None:
            longest = int(np.max(earlier.last[order] - starts))
            low = np.searchsorted(starts, begin[mine] - longest)
            for i in np.flatnonzero(met):
                near = order[low[i] : count[i]]
                near = near[earlier.last[near] >= begin[mine[i]]]
                boxes = earlier.boxes[near]
                met[i] = boxes_meet(later.boxes[mine[i]], boxes).any()
        found[mine] = met
    return found


def boxes_meet(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether a box `[4]` overlaps each of some boxes `[n, 4]`; unknown ones may.

    Corners are degrees north and east; longitudes count around the globe.
    """
    box, boxes = np.asarray(box, np.float64), np.asarray(boxes, np.float64)
    unknown = np.isnan(box).any() | np.isnan(boxes).any(axis=-1)
    south, west, north, east = box
    low, left, high, right = boxes.T
    rows = (south < high) & (low < north)
    # Eastwards from one western edge, the other begins before the first one ends.
    columns = (left - west) % 360 < (east - west) % 360
    columns |= (west - left) % 360 < (right - left) % 360
    return unknown | (rows & columns)


def kept_apart(spans: Mapping[str, Spans]) -> dict[str, np.ndarray]:
    """Which windows of each split share no frame, inputs included, with earlier splits.

    Args:
        spans: of all windows, by split.

    Returns:
        bool `[n]` by split; all True in the first.
    """
    kept = {}
    for number, split in enumerate(ORDER):
        free = np.ones(len(spans[split]), bool)
        for before in ORDER[:number]:
            there = spans[before].take(kept[before])
            free &= ~shared(spans[split], there, inputs=True)
        kept[split] = free
    return kept


def check_apart(name: str, spans: Mapping[str, Spans]) -> None:
    """Refuses splits that are scored on frames of an earlier split.

    Args:
        name: of the data set, for the message.
        spans: of the windows of each split.

    Raises:
        ValueError: if a target frame is also in a window of an earlier split.
    """
    for number, split in enumerate(ORDER):
        for before in ORDER[:number]:
            count = int(np.sum(shared(spans[split], spans[before])))
            if count:
                raise ValueError(
                    f"data {name!r}: {count} of {len(spans[split])} windows of the "
                    f"{split} split have target frames that are also in windows of the "
                    f"{before} split, so their scores would mean nothing; divide the "
                    "data by time or by place"
                )


def without_repeats(
    cube: "Cube", starts: Mapping[str, np.ndarray], in_len: int, out_len: int
) -> tuple[dict[str, np.ndarray], str]:
    """Windows whose targets are in no window of an earlier split.

    Several sequences may overlap, as events cut from one record do, or come twice.
    Their frames are then equal, to the last bit; frames of one value do not count.

    Args:
        cube: the series. One whose dates increase throughout has every frame once, and
            is not examined; nor is one that is not in memory.
        starts: first frames of the windows of each split.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.

    Returns:
        the windows to use, and what was left out, "" if nothing was.

    Raises:
        ValueError: if a split is then empty.
    """
    dated = cube.minutes is not None and bool(np.all(np.diff(cube.minutes) >= 0))
    if dated or len(cube.segments) < 2:
        return dict(starts), ""
    if not isinstance(cube.frames, ArrayFrames):
        return dict(starts), "too large to look for frames that occur twice"
    keys = _frame_keys(cube.frames.values)
    seen, kept, dropped = np.zeros(0, np.int64), {}, 0
    for split in ORDER:
        windows = keys[starts[split][:, None] + np.arange(in_len + out_len)]
        targets = windows[:, in_len:]
        new = ~np.any(np.isin(targets, seen) & (targets != 0), axis=1)
        if len(new) and not new.any():
            raise ValueError(
                f"{cube.label}: the targets of all {len(new)} {split} windows are "
                "in an earlier split as well: sequences overlap or come twice. Leave "
                "the repeated ones out of the file, or give the frames dates"
            )
        kept[split] = starts[split][new]
        dropped += int(np.sum(~new))
        seen = np.union1d(seen, windows[new])
    text = f"{dropped} windows left out whose targets are also in an earlier split"
    return kept, text if dropped else ""


def _frame_keys(frames: np.ndarray) -> np.ndarray:
    """int64 `[t]`, equal for equal frames; 0 for frames of one value."""
    flat = frames.reshape(len(frames), -1)
    keys = np.zeros(len(flat), np.int64)
    for i, frame in enumerate(flat):
        known = frame[np.isfinite(frame)]
        if known.size and known.min() < known.max():
            keys[i] = key(frame.tobytes())
    return keys


def _by_place(later: Spans, earlier: Spans):
    """(positions in `later`, positions in `earlier`) of every place that both have."""
    if later.place is None or earlier.place is None:
        yield np.arange(len(later)), np.arange(len(earlier))
        return
    shared_places = np.intersect1d(later.place, earlier.place)
    for place in shared_places:
        yield (
            np.flatnonzero(later.place == place),
            np.flatnonzero(earlier.place == place),
        )
