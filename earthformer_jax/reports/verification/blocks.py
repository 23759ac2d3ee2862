"""Which test examples belong together when samples of them are drawn.

Examples of one event, and windows of a series that begin within the same stretch of
time, are not independent of each other; the blocks that they form are.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.source import Batch

LEAST_NATURAL = 10  # blocks that years, months, days or hours are used for
MANY = 30  # of more, several are one block: longer ones are less alike
UNDATED = 20  # blocks of a series without dates, unless windows are longer
HOUR, DAY = 60, 24 * 60  # minutes
# From long to short: name, minutes.
UNITS = (("year", 365.25 * DAY), ("month", 365.25 * DAY / 12), ("day", DAY))
UNITS += (("hour", HOUR),)


@dataclasses.dataclass(frozen=True, eq=False)
class Blocks:
    """How test examples are divided into blocks.

    Attributes:
        text: what a block is: "an event", "3 years", "an example".
        keys: from a batch and the position of its first example to int64 `[b]`;
            successive examples with the same number are one block.
    """

    text: str
    keys: Callable[[Batch, int], np.ndarray]


def blocks_of(data: Data) -> Blocks:
    """How the test examples of a data set are divided.

    Events are blocks. Windows of a series with dates form the longest of years, months,
    days and hours of which the test period has at least `LEAST_NATURAL`; a block is as
    many of these as a window is long, or as leave about `MANY` blocks. If there is
    none, and without dates, it is a number of frames. All other examples are
    independent, each a block of its own.

    Args:
        data: with at least one test example.
    """
    first, spans = data.test[0], data.spans.get("test")
    if "event" in first:
        return Blocks("an event", lambda batch, _: np.asarray(batch["event"], np.int64))
    if (
        spans is None
        or spans.place is not None
        or len(spans) != len(data.test)
        or len(spans) < 2
    ):
        return Blocks(
            "an example", lambda batch, at: at + np.arange(len(batch["valid"]))
        )
    if "time" in first:
        begin, end = (_begin(x["time"], x["targets"]) for x in (first, data.test[-1]))
        dated = _of_time(begin, end, int(first["time"][-1] - first["time"][0]))
        if dated is not None:
            return dated
    frames = spans.target - spans.target.min()
    length = int(max(1, (spans.last - spans.first).max() + 1, frames.max() // UNDATED))
    number = _whole(frames, length, int(frames.max()))
    text = f"{length} frames" if length > 1 else "a frame"

    def of_frames(batch: Batch, at: int) -> np.ndarray:
        size = len(batch["valid"])
        return number[np.minimum(at + np.arange(size), len(number) - 1)]

    return Blocks(text, of_frames)


def _begin(time: np.ndarray, targets: np.ndarray) -> int:
    """Minutes of the first target frame."""
    return int(time[len(time) - len(targets)])


def _of_time(first: int, last: int, window: int) -> Blocks | None:
    """Blocks of a stretch of time; None if the test period has too few of any.

    Args:
        first, last: minutes at which the targets of the first and the last begin.
        window: minutes from the first to the last frame of an example.
    """
    for unit, minutes in UNITS:
        total = int(_units(np.asarray([last]), unit, first)[0]) + 1
        count = max(1, int(np.ceil(round(window / minutes, 2))), total // MANY)
        if total // count < LEAST_NATURAL:
            continue

        text = f"{count} {unit}s" if count > 1 else f"a{'n' * (unit == 'hour')} {unit}"
        return Blocks(text, _OfTime(unit, first, count, total - 1))
    return None


@dataclasses.dataclass(frozen=True)
class _OfTime:
    """The block of the first target frame: of `count` units from `first` minutes."""

    unit: str
    first: int
    count: int
    last: int

    def __call__(self, batch: Batch, _: int) -> np.ndarray:
        time = np.asarray(batch["time"])
        begin = time[:, time.shape[1] - np.shape(batch["targets"])[1]]
        return _whole(_units(begin, self.unit, self.first), self.count, self.last)


def _units(minutes: np.ndarray, unit: str, first: int) -> np.ndarray:
    """Whole units of time from `first` to some minutes."""
    minutes = np.asarray(minutes, np.int64)
    if unit in ("day", "hour"):
        return (minutes - first) // (DAY if unit == "day" else HOUR)
    months, begin = (
        np.asarray(x, "datetime64[m]").astype("datetime64[M]").astype(np.int64)
        for x in (minutes, first)
    )
    return (months - begin) // (12 if unit == "year" else 1)


def _whole(position: np.ndarray, length: int, last: int) -> np.ndarray:
    """Numbers of whole blocks of a length; what is left at the end joins the last."""
    return np.minimum(position // length, max((last + 1) // length, 1) - 1)
