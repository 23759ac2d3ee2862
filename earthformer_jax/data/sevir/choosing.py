"""Chooses the windows of radar events that forecasts begin from."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.forecasting import choosing
from earthformer_jax.data.forecasting.beginnings import Starts
from earthformer_jax.data.readers import times


@dataclasses.dataclass(frozen=True)
class Frames:
    """The frames of events, one event after the other.

    Attributes:
        event: `[n]`, number of the event of every frame.
        number: `[n]`, number of the frame in its event.
        minute: int64 `[n]` since 1970-01-01 UTC.
        length: `[n]`, number of frames without a gap that end with this one.
    """

    event: np.ndarray
    number: np.ndarray
    minute: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.event)

    def take(self, which: np.ndarray) -> "Frames":
        """Some of the frames, by mask or position."""
        fields = dataclasses.fields(self)
        return Frames(*(getattr(self, field.name)[which] for field in fields))


def join(moments: Sequence[np.ndarray]) -> Frames:
    """The frames of all events.

    Args:
        moments: minutes `[t]` of the frames of each event.
    """
    counts = [len(x) for x in moments]
    return Frames(
        np.repeat(np.arange(len(counts)), counts),
        np.concatenate([np.arange(n) for n in counts]),
        np.concatenate(moments).astype(np.int64),
        np.concatenate([_lengths(np.asarray(x, np.int64)) for x in moments]),
    )


def step(moments: np.ndarray) -> int:
    """Median minutes from frame to frame of an event; 0 if it has a single one."""
    return int(np.median(np.diff(moments))) if len(moments) > 1 else 0


def choose(
    frames: Frames,
    needed: int,
    starts: Starts,
    names: Sequence[str],
    label: str,
    notes: Sequence[str] = (),
) -> Frames:
    """The last input frames of the windows that were asked for, in order of time.

    Args:
        frames: of the events that can be used.
        needed: frames without a gap that a window extends over.
        starts: which windows; `every` counts within each event.
        names: of all events, for messages.
        label: of the files, for messages.
        notes: what was left out, for messages.

    Raises:
        ValueError: if there are none; the message says what is missing.
    """
    period = choosing.period(starts)
    there = f"{label} has {times.period_text(np.sort(frames.minute))}"
    there = "; ".join([there, *notes])
    if period is not None:
        begin, end = period
        frames = frames.take((begin <= frames.minute) & (frames.minute < end))
        if not len(frames):
            raise ValueError(
                f"start={starts.first}"
                + (f", stop={starts.stop}" if starts.stop else "")
                + f": {there}; use one of these, last or all"
            )
    several = starts.first == "all" or starts.stop
    if starts.first == "last":
        begins = frames.minute[frames.number == 0]
        newest = frames.event[frames.number == 0][begins == begins.max()]
        frames = frames.take(np.isin(frames.event, newest))
    if not several:
        frames = frames.take(frames.minute == frames.minute.max())
    able = frames.take(frames.length >= needed)
    if not len(able):
        best = int(np.argmax(frames.length))
        raise ValueError(
            f"{needed} frames without a gap are needed, and event "
            f"{names[frames.event[best]]} has {frames.length[best]} up to "
            f"{times.text(int(frames.minute[best]))} (see `in_len` and `time_step`; "
            f"{there})"
        )
    if several:
        able = able.take(_within_event(able.event) % starts.every == 0)
    return able.take(np.lexsort([able.event, able.minute]))


def _within_event(event: np.ndarray) -> np.ndarray:
    """Numbers 0, 1, 2, ... of the frames of each event, which are together."""
    _, first, count = np.unique(event, return_index=True, return_counts=True)
    return np.arange(len(event)) - np.repeat(first, count)


def _lengths(moments: np.ndarray) -> np.ndarray:
    """Number of frames of an event without a gap that end with each frame."""
    after_gap = times.interruptions(times.of_minutes(moments))
    number = np.arange(len(moments))
    first = np.zeros(len(moments), np.int64)
    first[after_gap] = after_gap
    return number - np.maximum.accumulate(first) + 1
