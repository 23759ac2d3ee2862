"""Windows of input and target frames cut from a time series."""

import types
from collections.abc import Callable, Mapping

import numpy as np

from earthformer_jax.data import leaks
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.normalization import Normalization
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import Frames
from earthformer_jax.data.splits import SPLITS, Period

# The time of day matters for frames that are closer together than this.
HALF_DAY = times.DAY / 2
MINUTES_LIMIT = 2**31


class Windows:
    """Examples cut from a series; example i depends only on i.

    A missing input is replaced by the last value observed earlier in the window, or by
    0, and is not `inputs_observed`; missing targets are 0 and not `observed`. With
    `calendar` the inputs have additional channels: cosine and sine of the season, and
    with `time_of_day` those of the time of day (UTC).
    """

    def __init__(
        self,
        frames: Frames,
        minutes: np.ndarray | None,
        starts: np.ndarray,
        *,
        in_len: int,
        out_len: int,
        normalizer: Normalization | None = None,
        targets: int | None = None,
        observed: bool = False,
        calendar: bool = False,
        time_of_day: bool = False,
        beside: Mapping[str, np.ndarray] = types.MappingProxyType({}),
        behind: Mapping[str, np.ndarray] = types.MappingProxyType({}),
    ):
        """Makes a source.

        Args:
            frames: frames of the series.
            minutes: times of the frames, or None.
            starts: first input frame of each window.
            in_len: number of input frames; 0: the inputs are the target frames.
            out_len: number of target frames.
            normalizer: conversion to model units; None: values are left unchanged.
            targets: number of target channels, which come first; None: all.
            observed: include `observed` and, for the same channels of the inputs,
                `inputs_observed`, which complete data do not need.
            calendar: include the season.
            time_of_day: include the time of day as well.
            beside: further values of every frame `[t, ...]`, returned for the target
                frames.
            behind: the same, returned for the input frames.
        """
        self._frames, self._minutes, self._starts = frames, minutes, starts
        self._in_len, self._out_len = in_len, out_len
        self._normalizer, self._targets = normalizer, targets
        self._observed = observed
        self._calendar, self._time_of_day = calendar, time_of_day
        self._beside, self._behind = dict(beside), dict(behind)

    @property
    def spans(self) -> Spans:
        """Where the windows are, by the numbers of the frames."""
        return leaks.of_starts(self._starts, self._in_len, self._out_len)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        start = int(self._starts[index])
        target, stop = start + self._in_len, start + self._in_len + self._out_len
        minutes = None if self._minutes is None else self._minutes[start:stop]
        values = self._frames.read(start, stop)
        if self._normalizer is None:
            values = np.array(values)  # a copy: `frames` may return its own array
        else:
            values = self._normalizer.encode(values, minutes)
        seen = self._in_len or self._out_len
        inputs = fill_forward(values[:seen])
        targets = values[target - start :, ..., : self._targets]
        known = np.isfinite(targets)
        example = {}
        if self._calendar:
            assert minutes is not None  # a calendar needs dates
            season = calendar_channels(minutes[:seen], self._time_of_day)
            season = np.broadcast_to(
                season[:, None, None, :], (*inputs.shape[:3], season.shape[-1])
            )
            inputs = np.concatenate([inputs, season], axis=-1)
        example["inputs"] = np.ascontiguousarray(inputs, np.float32)
        example["targets"] = np.where(known, targets, np.float32(0))
        if self._observed:
            example["observed"] = known
            seen_targets = values[:seen, ..., : self._targets]
            example["inputs_observed"] = np.isfinite(seen_targets)
        if minutes is not None:
            example["time"] = minutes.astype(np.int32)
        for name, more in self._beside.items():
            example[name] = more[target:stop]
        for name, more in self._behind.items():
            example[name] = more[start : start + seen]
        if "observed" in self._beside:
            example["inputs_observed"] = self._beside["observed"][start : start + seen]
        return example


class WholeSeries:
    """Every frame of a series, in windows that overlap by half.

    Examples are those of `Windows`, with additional values for each of their frames:

    - `frame`: int32 `[t]`, its number in the series;
    - `split`: int8 `[t]`, the number of its split in `SPLITS`, -1 if it is in none;
    - `central`: bool `[t]`, whether this is the window that has it closest to its
      middle. Every frame is central in exactly one window.

    Pieces of the series that are shorter than a window are left out.
    """

    def __init__(
        self,
        make_windows: Callable[[np.ndarray], Windows],
        segments: np.ndarray,
        length: int,
        periods: Mapping[str, Period],
    ):
        """Makes a source.

        Args:
            make_windows: makes the source of windows from their starts.
            segments: int `[s, 2]`, first frame and end of the pieces.
            length: frames per window.
            periods: of the splits.
        """
        pieces = [cover(int(a), int(b), length) for a, b in segments if b - a >= length]
        self._starts = np.concatenate([starts for starts, _ in pieces])
        self._central = np.concatenate([central for _, central in pieces])
        self._length, self._periods = length, dict(periods)
        self._windows = make_windows(self._starts)

    @property
    def frame_count(self) -> int:
        """Number of frames of the series that are in a window."""
        return int(self._central.sum())

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        frame = self._starts[index] + np.arange(self._length)
        split = np.full(self._length, -1, np.int8)
        for number, name in enumerate(SPLITS):
            first, stop = self._periods[name]
            split[(first <= frame) & (frame < stop)] = number
        return self._windows[index] | {
            "frame": frame.astype(np.int32),
            "split": split,
            "central": self._central[index],
        }


def cover(first: int, stop: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows over frames first..stop - 1, and which of their frames are central.

    Returns:
        starts int64 `[n]`, and bool `[n, length]`.
    """
    last = stop - length
    starts = np.append(np.arange(first, last, max(1, length // 2)), last)
    frames = np.arange(first, stop)
    middle = starts + (length - 1) / 2
    # Of two equally near windows the earlier: it has more frames before this one.
    nearest = np.searchsorted((middle[1:] + middle[:-1]) / 2, frames, side="left")
    central = np.zeros((len(starts), length), bool)
    central[nearest, frames - starts[nearest]] = True
    return starts.astype(np.int64), central


def fill_forward(values: np.ndarray) -> np.ndarray:
    """`[t, ...]` with NaN replaced by the last observed value; 0 before the first."""
    missing = ~np.isfinite(values)
    if not missing.any():
        return values
    filled = values.copy()
    filled[0][missing[0]] = 0
    for i in range(1, len(values)):
        filled[i] = np.where(missing[i], filled[i - 1], values[i])
    return filled


def calendar_channels(minutes: np.ndarray, time_of_day: bool) -> np.ndarray:
    """Cosine and sine of the season, and of the time of day: float32 `[t, 2 or 4]`."""
    phases = [times.season(minutes)]
    if time_of_day:
        phases.append(times.time_of_day(minutes))
    waves = [f(2 * np.pi * phase) for phase in phases for f in (np.cos, np.sin)]
    return np.stack(waves, axis=-1).astype(np.float32)


def in_range(minutes: np.ndarray | None) -> np.ndarray | None:
    """Minutes if int32 can hold them, else None."""
    if minutes is None or np.any(np.abs(minutes) >= MINUTES_LIMIT):
        return None
    return minutes
