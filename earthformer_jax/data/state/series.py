"""A series in the eyes of a trained model: what it has learned from, and what is new.

In other files than those of the training, or in a file that has grown, only frames that
the model did not learn from become test data.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from earthformer_jax.data import splits
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.splits import Period, starts_between, window_starts
from earthformer_jax.data.state import LEARNED, DataState, checksums

FRAMES_CHECKED = 64  # per split, of series that are not in memory


def kept(
    cube: Cube, periods: Mapping[str, Period], checksums: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What a state of the data holds of a series: fields of `DataState`.

    Args:
        cube: the series.
        periods: of the splits.
        checksums: of their frames.
    """
    return dict(
        frames=periods,
        minutes=minutes_of(cube, periods),
        calendar="" if cube.times is None else cube.times.calendar,
        checksums=checksums,
    )


def minutes_of(cube: Cube, periods: Mapping[str, Period]) -> dict[str, tuple[int, int]]:
    """First and last time of each period that has frames; {} if unknown."""
    if cube.minutes is None:
        return {}
    return {
        split: (int(cube.minutes[first]), int(cube.minutes[stop - 1]))
        for split, (first, stop) in periods.items()
        if stop > first
    }


def split_text(
    cube: Cube, periods: Mapping[str, Period], starts: Mapping[str, np.ndarray]
) -> str:
    """As `data.splits.split_text`, also for a series without the training period."""
    if len(starts["train"]):
        return splits.split_text(cube, periods, starts)
    return (
        f"test {cube.period(*periods['test'])} ({len(starts['test'])} windows), "
        "nothing of which was trained on"
    )


def windows(
    cube: Cube,
    state: DataState,
    *,
    in_len: int,
    out_len: int,
    stride: int,
    test_until: str = "",
) -> tuple[dict[str, Period], dict[str, np.ndarray]]:
    """Splits of a series, and first frames of their windows, for a trained model.

    Training and validation are those of the training if the series contains them,
    with the same values; they are empty otherwise. The test windows are those after
    validation (or before training, if that is where the model was to be tested), or, in
    other files, all whose targets the model has not learned from: by date, or by
    comparing values where there are no dates.

    Args:
        cube: the series.
        state: of the training.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.
        stride: frames from the start of one window to the start of the next.
        test_until: the last date of testing; empty: the last of the series.

    Raises:
        ValueError: if no window is left.
    """
    end = cube.frames.shape[0]
    if test_until and cube.minutes is not None:
        end = int(np.searchsorted(cube.minutes, times.end_of(test_until, "test_until")))
    learned = {split: _find(cube, state, split) for split in LEARNED}
    if all(period is not None for period in learned.values()):
        periods = {split: period for split, period in learned.items() if period}
        begin, stop = state.frames["test"]
        if splits.tests_before(state.frames):
            moved = periods["train"][0] - state.frames["train"][0]
            begin, end = max(begin + moved, 0), min(stop + moved, end)
        else:
            begin += periods["validation"][1] - state.frames["validation"][1]
        periods["test"] = (begin, max(begin, end))
        starts = window_starts(cube, periods, in_len, out_len, stride)
        return periods, starts
    pieces = [
        starts_between(int(first), min(int(stop), end), in_len + out_len, stride)
        for first, stop in cube.segments
    ]
    starts = np.concatenate(pieces).astype(np.int64)
    targets = starts[:, None] + in_len + np.arange(out_len)
    starts = starts[~_learned(cube, state)[targets].any(axis=1)]
    if not len(starts):
        raise ValueError(
            f"{cube.label} ({cube.period(0, cube.frames.shape[0])}) has no window of "
            f"{in_len} input and {out_len} target frames that the model has not "
            f"learned from{_learned_text(state)}"
        )
    none = np.zeros(0, np.int64)
    period = int(starts[0]) + in_len, int(starts[-1]) + in_len + out_len
    return (
        {"train": (0, 0), "validation": (0, 0), "test": period},
        {"train": none, "validation": none, "test": starts},
    )


def _learned_text(state: DataState) -> str:
    """ " (2000-01-01..2000-02-20)", or "" if dates are unknown."""
    if any(split not in state.minutes for split in LEARNED):
        return ""
    return f" ({'..'.join(map(times.text, _learned_between(state)))})"


def _learned_between(state: DataState) -> tuple[int, int]:
    """First and last time of training and validation, which may be inside training."""
    first, last = state.minutes["train"]
    return first, max(last, state.minutes["validation"][1])


def _learned(cube: Cube, state: DataState) -> np.ndarray:
    """bool `[t]`: the frames of a series that training or validation has used."""
    if cube.minutes is not None and all(split in state.minutes for split in LEARNED):
        ends = np.array(_learned_between(state))
        if times.is_monthly(cube.cadence):
            months, (first, last) = times.month_of(cube.minutes), times.month_of(ends)
            return (months >= first) & (months <= last)
        # A frame that is dated at another moment of the same day is the same one.
        first, last = ends + np.array([-1, 1]) * max(0, round(cube.cadence) - 1)
        return (cube.minutes >= first) & (cube.minutes <= last)
    known = np.concatenate(
        [state.checksums.get(split, np.zeros(0, np.uint64)) for split in LEARNED]
    )
    frames = cube.frames
    every = checksums(frames.read(i, i + 1) for i in range(frames.shape[0]))
    return np.isin(every, known)


def _find(cube: Cube, state: DataState, split: str) -> Period | None:
    """The frames of a split in a series; None if it does not hold the same values."""
    if split not in state.frames:
        return None
    first, stop = state.frames[split]
    if cube.minutes is not None and split in state.minutes:
        start, last = state.minutes[split]
        begin = int(np.searchsorted(cube.minutes, start))
        end = int(np.searchsorted(cube.minutes, last, side="right"))
        if end - begin != stop - first or cube.minutes[begin] != start:
            return None
        first, stop = begin, end
    if stop > cube.frames.shape[0]:
        return None
    saved = state.checksums.get(split)
    if saved is None or np.array_equal(saved, _checksums(cube, (first, stop))):
        return first, stop
    return None


def checksums_of(cube: Cube, periods: Mapping[str, Period]) -> dict[str, np.ndarray]:
    """Checksums of the frames of each period: of all in memory, else of some."""
    return {split: _checksums(cube, period) for split, period in periods.items()}


def _checksums(cube: Cube, period: Period) -> np.ndarray:
    first, stop = period
    chosen = np.arange(first, stop)
    if not isinstance(cube.frames, ArrayFrames):
        count = min(FRAMES_CHECKED, stop - first)
        chosen = np.linspace(first, stop - 1, count).astype(int)
    return checksums(cube.frames.read(int(i), int(i) + 1) for i in chosen)
