"""What forecasts of a series begin from: its latest frames, without targets."""

from typing import cast

import cftime
import numpy as np

from earthformer_jax.data.cubes import opening, trained
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.dataset import Beginnings
from earthformer_jax.data.readers import decoding, series, times
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.splits import starts_between
from earthformer_jax.data.state import DataState
from earthformer_jax.data.windows import HALF_DAY, Windows, in_range


def find(settings: Settings, state: DataState, start: str = "last") -> Beginnings:
    """The input windows that forecasts begin from, in the units of the training.

    Args:
        settings: checked settings.
        state: of the data that the model was trained on.
        start: "last": the latest frames; "all": every window; or a date,
            "2000-02-29" or shorter: the window that ends with the last frame of it.

    Raises:
        FileNotFoundError: if `settings.path` does not exist.
        ValueError: if the series cannot be used, does not fit the state, or has no such
            window; the message says why.
    """
    if settings.restores:
        raise ValueError(
            "out_len=0: this model restores its inputs, it cannot forecast"
        )
    cube, targets = opening.open_series(settings)
    cube = series.in_memory(opening.arranged(cube, state))
    opening.check_dates(settings, cube, fits_anew=False)
    normalizer, _ = trained.unpack(state)
    starts = _starts(cube, settings.in_len, start)
    windows = Windows(
        cube.frames,
        in_range(cube.minutes),
        starts,
        in_len=settings.in_len,
        out_len=0,
        normalizer=normalizer,
        targets=targets,
        calendar=settings.calendar,
        time_of_day=0 < cube.cadence < HALF_DAY,
    )
    last = starts + settings.in_len - 1
    valid = [] if cube.times is None else [_following(cube, settings, i) for i in last]
    return Beginnings(
        label=cube.label,
        windows=windows,
        last=last,
        reference=None if cube.times is None else cube.times[last],
        valid=tuple(valid),
        names=cube.names[:targets],
        units=cube.units[:targets],
        decode=normalizer.decode,
        latitude=cube.latitude,
        longitude=cube.longitude,
    )


def _starts(cube: Cube, in_len: int, start: str) -> np.ndarray:
    """First frames `[n]` of the windows that were asked for."""
    frames = cube.frames.shape[0]
    there = f"{cube.label} has {cube.period(0, frames)}"
    every = np.concatenate(
        [starts_between(int(a), int(b), in_len) for a, b in cube.segments]
    ).astype(np.int64)
    if start == "all":
        if not len(every):
            raise ValueError(
                f"in_len={in_len} frames without a gap are needed; {there}"
            )
        return every
    last = frames - 1
    if start != "last":
        if cube.minutes is None:
            raise ValueError(
                f"start={start}: {cube.label} has no dates; use last or all"
            )
        begin, end = times.start_of(start, "start"), times.end_of(start, "start")
        last = int(np.searchsorted(cube.minutes, end)) - 1
        if last < 0 or cube.minutes[last] < begin:
            raise ValueError(f"start={start}: {there}; use one of these, last or all")
    if last - in_len + 1 not in every:
        first = max(a for a, _ in cube.segments.tolist() if a <= last)
        raise ValueError(
            f"in_len={in_len} frames without a gap are needed up to "
            f"{cube.period(last, last + 1)}; there are {last - first + 1} "
            f"({there})"
        )
    return np.array([last - in_len + 1], np.int64)


def _following(cube: Cube, settings: Settings, last: int) -> Times:
    """The times of the forecast frames after a frame."""
    now, count = cast(Times, cube.times)[last : last + 1], settings.out_len
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


def _months_later(date, months: int):
    """The same day some months later, or the last day of a shorter month."""
    years, month = divmod(date.month - 1 + months, 12)
    for day in range(date.day, 27, -1):
        try:
            return date.replace(year=date.year + years, month=month + 1, day=day)
        except ValueError:
            continue
    return date.replace(year=date.year + years, month=month + 1, day=min(date.day, 27))
