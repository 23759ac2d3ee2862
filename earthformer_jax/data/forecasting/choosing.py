"""Chooses the windows of a series that forecasts begin from, and dates what follows."""

from typing import cast

import cftime
import numpy as np

from earthformer_jax.data.forecasting.beginnings import Starts
from earthformer_jax.data.readers import decoding, times
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.splits import starts_between


def choose(cube: Cube, in_len: int, starts: Starts) -> np.ndarray:
    """First frames `[n]` of the windows that were asked for.

    Args:
        cube: the series.
        in_len: number of input frames.
        starts: which windows.

    Raises:
        ValueError: if there are none; the message says what is missing.
    """
    frames = cube.frames.shape[0]
    there = f"{cube.label} has {cube.period(0, frames)}"
    every = np.concatenate(
        [starts_between(int(a), int(b), in_len) for a, b in cube.segments]
    ).astype(np.int64)
    if starts.first == "all" or starts.stop:
        return _several(cube, in_len, starts, every, there)
    last = frames - 1
    if starts.first != "last":
        _check_dated(cube, starts.first)
        begin, end = cast(tuple[int, int], period(starts))
        last = int(np.searchsorted(_minutes(cube), end)) - 1
        if last < 0 or _minutes(cube)[last] < begin:
            raise ValueError(
                f"start={starts.first}: {there}; use one of these, last or all"
            )
    if last - in_len + 1 not in every:
        first = max(a for a, _ in cube.segments.tolist() if a <= last)
        when, after = (
            cube.period(frame, frame + 1).partition("..")[0] for frame in (last, first)
        )
        gap = f" since the gap before {after}" if first else ""
        raise ValueError(
            f"in_len={in_len} frames without a gap are needed up to {when}; there are "
            f"{last - first + 1}{gap} ({there})"
        )
    return np.array([last - in_len + 1], np.int64)


def _several(
    cube: Cube, in_len: int, starts: Starts, every: np.ndarray, there: str
) -> np.ndarray:
    """The windows of `every` that lie in a period, or all."""
    if not len(every):
        raise ValueError(f"in_len={in_len} frames without a gap are needed; {there}")
    wanted = period(starts)
    if wanted is not None:
        _check_dated(cube, starts.first)
        begin, end = wanted
        moments = _minutes(cube)[every + in_len - 1]
        every = every[(begin <= moments) & (moments < end)]
        if not len(every):
            raise ValueError(
                f"no {in_len} frames without a gap end in {starts.first}.."
                f"{starts.stop}; {there}"
            )
    return every[:: starts.every]


def following(cube: Cube, last: int, count: int) -> Times:
    """The times of the `count` frames after frame `last` of a series with dates.

    Raises:
        ValueError: if the series has a single frame.
    """
    now = cast(Times, cube.times)[last : last + 1]
    if not cube.cadence:
        raise ValueError(
            f"{cube.label} has a single frame, so the time from one to the next is "
            "unknown; give it at least two"
        )
    if not times.is_monthly(cube.cadence):
        later = now.seconds + 60 * cube.cadence * np.arange(1, count + 1)
        return decoding.of_seconds(later, now.calendar)
    date = cftime.num2date(now.seconds[0], decoding.EPOCH, now.calendar)
    moments = [_months_later(date, i) for i in range(1, count + 1)]
    later = cftime.date2num(moments, decoding.EPOCH, calendar=now.calendar)
    return decoding.of_seconds(np.asarray(later, np.float64), now.calendar)


def period(starts: Starts) -> tuple[int, int] | None:
    """Minutes at the beginning and end of the period of `starts`; None if it has none.

    Raises:
        ValueError: if a date is not one, or a period has no first date.
    """
    if starts.first not in ("last", "all"):
        stop = starts.stop or starts.first
        return times.start_of(starts.first, "start"), times.end_of(stop, "stop")
    if starts.stop:
        raise ValueError(
            f"stop={starts.stop} needs the date of a first forecast, not "
            f"start={starts.first}"
        )
    return None


def _check_dated(cube: Cube, first: str) -> None:
    if cube.minutes is None:
        raise ValueError(f"start={first}: {cube.label} has no dates; use last or all")


def _minutes(cube: Cube) -> np.ndarray:
    return cast(np.ndarray, cube.minutes)


def _months_later(date, months: int):
    """The same day some months later, or the last day of a shorter month."""
    years, month = divmod(date.month - 1 + months, 12)
    for day in range(date.day, 27, -1):
        try:
            return date.replace(year=date.year + years, month=month + 1, day=day)
        except ValueError:
            continue
    return date.replace(year=date.year + years, month=month + 1, day=min(date.day, 27))
