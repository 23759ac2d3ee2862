"""Windows of input and target frames cut from a time series, and their periods."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from earthformer_jax.data.cubes.statistics import Normalizer
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import Frames
from earthformer_jax.data.readers.series import Cube

SPLITS = ("train", "validation", "test")
# Share for training when no dates are given; validation and test have half the rest.
TRAIN_SHARE = 0.7
# Pieces without dates, at least this many, are divided whole.
MANY_PIECES = 3
# Frames closer than this show what time of the day it is.
HALF_DAY = times.DAY / 2
MINUTES_LIMIT = 2**31

Period = tuple[int, int]  # first frame, and the one after the last


@dataclasses.dataclass(frozen=True)
class Dates:
    """The settings that divide a series: "YYYY-MM-DD" or shorter, or nothing."""

    train_from: str = ""
    train_until: str = ""
    validate_until: str = ""
    test_until: str = ""


class Windows:
    """Examples cut from a series; example i depends on i alone.

    Inputs that are missing hold the last value observed in the window before, or 0;
    missing targets hold 0 and are not `observed`. With `calendar` the inputs have more
    channels: cosine and sine of the season, and of the time of the day (UTC) where
    frames are less than half a day apart.
    """

    def __init__(
        self,
        frames: Frames,
        minutes: np.ndarray | None,
        starts: np.ndarray,
        *,
        in_len: int,
        out_len: int,
        normalizer: Normalizer,
        targets: int,
        observed: bool,
        calendar: bool = False,
        time_of_day: bool = False,
    ):
        """Makes a source.

        Args:
            frames: of the series.
            minutes: of the frames, or None.
            starts: first input frame of each window.
            in_len: input frames; 0: the inputs are the target frames.
            out_len: target frames.
            normalizer: to model units.
            targets: the first so many channels are targets.
            observed: give `observed`; for data that are never missing it is left out.
            calendar: give the season.
            time_of_day: and with it the time of the day.
        """
        self._frames, self._minutes, self._starts = frames, minutes, starts
        self._in_len, self._out_len = in_len, out_len
        self._normalizer, self._targets = normalizer, targets
        self._observed = observed
        self._calendar, self._time_of_day = calendar, time_of_day

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        start = int(self._starts[index])
        target, stop = start + self._in_len, start + self._in_len + self._out_len
        minutes = None if self._minutes is None else self._minutes[start:stop]
        values = self._normalizer.encode(self._frames.read(start, stop), minutes)
        seen = self._in_len or self._out_len
        inputs = fill_forward(values[:seen])
        targets = values[target - start :, ..., : self._targets]
        known = np.isfinite(targets)
        example = {}
        if self._calendar:
            season = calendar_channels(minutes[:seen], self._time_of_day)
            season = np.broadcast_to(
                season[:, None, None, :], (*inputs.shape[:3], season.shape[-1])
            )
            inputs = np.concatenate([inputs, season], axis=-1)
        example["inputs"] = np.ascontiguousarray(inputs, np.float32)
        example["targets"] = np.where(known, targets, np.float32(0))
        if self._observed:
            example["observed"] = known
        if minutes is not None:
            example["time"] = minutes.astype(np.int32)
        return example


class WholeSeries:
    """Every frame of a series, in windows that overlap by half.

    Examples are those of `Windows`, and say of each of their frames

    - `frame`: int32 `[t]`, its number in the series;
    - `split`: int8 `[t]`, the number of its split in `SPLITS`, -1 outside all;
    - `central`: bool `[t]`, whether no other window has it closer to its middle. Every
      frame is central once.

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
            make_windows: source of the windows with given starts.
            segments: int `[s, 2]`, first frame and end of the pieces.
            length: frames of a window.
            periods: of the splits.
        """
        pieces = [cover(int(a), int(b), length) for a, b in segments if b - a >= length]
        self._starts = np.concatenate([starts for starts, _ in pieces])
        self._central = np.concatenate([central for _, central in pieces])
        self._length, self._periods = length, dict(periods)
        self._windows = make_windows(self._starts)

    @property
    def frame_count(self) -> int:
        """Frames of the series that are in a window."""
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
    # Of two windows as near the earlier one: it has seen more before this frame.
    nearest = np.searchsorted((middle[1:] + middle[:-1]) / 2, frames, side="left")
    central = np.zeros((len(starts), length), bool)
    central[nearest, frames - starts[nearest]] = True
    return starts.astype(np.int64), central


def fill_forward(values: np.ndarray) -> np.ndarray:
    """`[t, ...]` with the last observed value in place of NaN; 0 before the first."""
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


def split_periods(cube: Cube, dates: Dates, in_len: int, out_len: int) -> dict:
    """First frame and end of each split.

    Without dates: 70, 15 and 15 % of the frames, or of the pieces where the series is
    made of several without dates.

    Raises:
        ValueError: if a date is malformed, outside the data or out of order, or if
            there are too few frames for one window in each split.
    """
    frames = cube.frames.shape[0]
    need = in_len + 3 * out_len
    if frames < need:
        wanted = f"config.data.in_len={in_len} and out_len={out_len} need"
        if not in_len:
            wanted = f"config.data.in_len={out_len} needs"
        raise ValueError(
            f"{wanted} {need} frames or "
            "more, a training window and the targets of validation and test; "
            f"{cube.label} has {frames}{_when(cube, 0, frames)}. "
            + ("Shorten them" if in_len + out_len > 2 else "It is too short")
        )
    if cube.minutes is None:
        return _without_dates(cube, dates, out_len)
    minutes, available = cube.minutes, times.period_text(cube.minutes)
    limits = {}  # of frames
    for name, limit in dataclasses.asdict(dates).items():
        if not limit:
            continue
        field = f"config.data.{name}"
        moment = times.start_of if name == "train_from" else times.end_of
        limits[name] = int(np.searchsorted(minutes, moment(limit, field)))
        inside = limits[name] < frames if name == "train_from" else limits[name] > 0
        beyond = times.start_of(limit, field) > minutes[-1]
        if not inside or (beyond and name != "test_until"):
            raise ValueError(
                f"{field}={limit} is outside the data: {cube.label} has {available}"
            )
    begin, end = limits.get("train_from", 0), limits.get("test_until", frames)
    train_end, validation_end = _shares(begin, end, out_len)
    if "train_until" in limits:
        train_end = limits["train_until"]
        validation_end = train_end + max((end - train_end) // 2, out_len)
    validation_end = limits.get("validate_until", validation_end)
    edges = [begin, train_end, validation_end, end]
    _check_rising(dates, edges, f"{cube.label} has {available}")
    return dict(zip(SPLITS, zip(edges, edges[1:], strict=False), strict=True))


def window_starts(
    cube: Cube, periods: Mapping[str, Period], in_len: int, out_len: int, stride: int
) -> dict[str, np.ndarray]:
    """First frames of the windows of each split.

    A training window lies in its period, inputs and targets; of a validation or test
    window the targets do. No window crosses an interruption of the series.

    Raises:
        ValueError: if a split has no window.
    """
    starts = {}
    for split, (first, stop) in periods.items():
        reach = 0 if split == "train" else in_len
        pieces = []
        for piece_start, piece_stop in cube.segments:
            begin = max(first - reach, piece_start)
            end = min(stop, piece_stop) - in_len - out_len
            pieces.append(np.arange(begin, end + 1, stride))
        starts[split] = np.concatenate(pieces).astype(np.int64)
        if not len(starts[split]):
            raise ValueError(_no_window(cube, split, first, stop, in_len, out_len))
    return starts


def split_text(
    cube: Cube, periods: Mapping[str, Period], starts: Mapping[str, np.ndarray]
) -> str:
    """ "train 2008-01-01..2015-09-13 (2798 windows), ..." """
    return ", ".join(
        f"{split}{_when(cube, *periods[split], '')} ({len(starts[split])} windows)"
        for split in SPLITS
    )


def _check_rising(dates: Dates, edges: list[int], available: str) -> None:
    """Refuses dates that leave a split without frames."""
    given = dataclasses.asdict(dates)
    names = list(given)
    for i, split in enumerate(SPLITS):
        if edges[i] < edges[i + 1]:
            continue
        before = [name for name in names[: i + 1] if given[name]]
        after = [name for name in names[i + 1 :] if given[name]]
        if before and after:
            raise ValueError(
                f"config.data.{after[0]}={given[after[0]]} must come after "
                f"config.data.{before[-1]}={given[before[-1]]}, with frames between "
                f"them ({available})"
            )
        name = (before[-1:] + after)[0]
        raise ValueError(
            f"config.data.{name}={given[name]} leaves no frames for {split} "
            f"({available})"
        )


def _shares(begin: int, end: int, least: int) -> tuple[int, int]:
    """Ends of training and validation by shares; `least` frames are left to each."""
    frames = end - begin
    train_end = begin + min(int(TRAIN_SHARE * frames), frames - 2 * least)
    return train_end, train_end + max((end - train_end) // 2, least)


def _without_dates(cube: Cube, dates: Dates, out_len: int) -> dict[str, Period]:
    for name, value in dataclasses.asdict(dates).items():
        if value:
            raise ValueError(
                f"config.data.{name}={value} has no meaning for {cube.label}: it has "
                "no dates. Leave it empty: 70, 15 and 15 % of the frames are for "
                "training, validation and test"
            )
    frames, pieces = cube.frames.shape[0], cube.segments
    if len(pieces) >= MANY_PIECES:
        ends = pieces[:, 1]
        last_train, last_validation = _shares(0, len(pieces), 1)
        edges = [0, int(ends[last_train - 1]), int(ends[last_validation - 1]), frames]
    else:
        edges = [0, *_shares(0, frames, out_len), frames]
    return dict(zip(SPLITS, zip(edges, edges[1:], strict=False), strict=True))


def _no_window(
    cube: Cube, split: str, first: int, stop: int, in_len: int, out_len: int
) -> str:
    if in_len == 0:
        need = f"{out_len} frames in a row"
    elif split == "train":
        need = f"{in_len} input and {out_len} target frames in a row"
    else:
        need = f"{out_len} target frames after {in_len} input frames in a row"
    longest = int(np.max(cube.segments[:, 1] - cube.segments[:, 0]))
    pieces = len(cube.segments)
    broken = f", in {pieces} pieces of at most {longest}" if pieces > 1 else ""
    remedy = "shorten config.data.in_len or out_len"
    if cube.minutes is not None:
        remedy = (
            "move config.data.train_from, train_until, validate_until or test_until, "
            f"or {remedy}"
        )
    return (
        f"{cube.label}: the {split} period{_when(cube, first, stop)} of {stop - first} "
        f"frames holds no window: it needs {need}; there are {cube.frames.shape[0]} "
        f"frames{_when(cube, 0, cube.frames.shape[0])}{broken}. Please {remedy}"
    )


def _when(cube: Cube, first: int, stop: int, brackets: str = "()") -> str:
    """ " (2008-01-01..2015-09-13)"; nothing where dates are unknown."""
    if cube.minutes is None:
        return "" if brackets else f" frames {first}..{stop - 1}"
    text = times.period_text(cube.minutes[first:stop])
    return f" ({text})" if brackets else f" {text}"
