"""Divides a series into training, validation and test periods, by date or by share."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.series import Cube

SPLITS = ("train", "validation", "test")
# Shares used without dates: of all frames, and of those after training.
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 1 / 2
# A series without dates that has at least this many pieces is divided between pieces.
MANY_PIECES = 3

Period = tuple[int, int]  # first frame, and the one after the last


@dataclasses.dataclass(frozen=True)
class Dates:
    """The settings that divide a series: "YYYY-MM-DD" or shorter, or empty.

    Attributes:
        train_from: the first date of training; empty: the first of the series.
        train_until: the last date of training; empty: by share.
        validate_until: the last date of validation; empty: by share.
        test_until: the last date of testing; empty: the last of the series.
    """

    train_from: str = ""
    train_until: str = ""
    validate_until: str = ""
    test_until: str = ""

    @classmethod
    def of(cls, settings: object) -> "Dates":
        """The dates among the settings of a data set, which have the same names."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: str(getattr(settings, name)) for name in names})


NO_DATES = Dates()


def split_periods(
    cube: Cube,
    dates: Dates,
    in_len: int,
    out_len: int,
    validation_share: float = VALIDATION_SHARE,
) -> dict[str, Period]:
    """First frame and end of each split.

    Splits without a date are shares of the frames, or of the pieces if the series has
    no dates and consists of several pieces.

    Args:
        cube: the series.
        dates: of the splits.
        in_len: number of input frames of a window.
        out_len: number of target frames; shares leave at least this many frames for
            validation and for testing.
        validation_share: share of the frames after training.

    Raises:
        ValueError: if a date is malformed, outside the data or out of order, or if
            there are too few frames for one window in each split.
    """
    frames = cube.frames.shape[0]
    need = in_len + 3 * out_len
    if frames < need:
        wanted = f"in_len={in_len} and out_len={out_len} need"
        if not in_len:
            wanted = f"in_len={out_len} needs"
        raise ValueError(
            f"{wanted} at least {need} frames, for a training window and the targets "
            "of validation and test; "
            f"{cube.label} has {frames}{_when(cube, 0, frames)}. "
            + ("Shorten them" if in_len + out_len > 2 else "It is too short")
        )
    if cube.minutes is None:
        return _without_dates(cube, dates, out_len, validation_share)
    minutes, available = cube.minutes, f"{cube.label} has {cube.period(0, frames)}"
    limits = {}  # of frames
    for name, limit in dataclasses.asdict(dates).items():
        if not limit:
            continue
        moment = times.start_of if name == "train_from" else times.end_of
        limits[name] = int(np.searchsorted(minutes, moment(limit, name)))
        inside = limits[name] < frames if name == "train_from" else limits[name] > 0
        beyond = times.start_of(limit, name) > minutes[-1]
        if not inside or (beyond and name != "test_until"):
            raise ValueError(f"{name}={limit} is outside the data: {available}")
    begin, end = limits.get("train_from", 0), limits.get("test_until", frames)
    edges = _edges(
        (begin, limits.get("train_until"), limits.get("validate_until"), end),
        out_len,
        validation_share,
    )
    _check_rising(dates, edges, available)
    return dict(zip(SPLITS, zip(edges, edges[1:], strict=False), strict=True))


def window_starts(
    cube: Cube,
    periods: Mapping[str, Period],
    in_len: int,
    out_len: int,
    stride: int = 1,
) -> dict[str, np.ndarray]:
    """First frames of the windows of each split.

    A training window lies entirely within its period; of a validation or test window,
    only the targets must. No window crosses a gap in the series.

    Args:
        cube: the series.
        periods: first frame and end of each split.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.
        stride: frames from the start of one window to the start of the next.

    Raises:
        ValueError: if a split has no window.
    """
    starts = {}
    for split, (first, stop) in periods.items():
        reach = 0 if split == "train" else in_len
        pieces = []
        for piece_start, piece_stop in cube.segments:
            begin = max(first - reach, piece_start)
            end = min(stop, piece_stop)
            pieces.append(starts_between(begin, end, in_len + out_len, stride))
        starts[split] = np.concatenate(pieces).astype(np.int64)
        if not len(starts[split]):
            raise ValueError(_no_window(cube, split, first, stop, in_len, out_len))
    return starts


def starts_between(first: int, stop: int, span: int, stride: int = 1) -> np.ndarray:
    """First frames of the windows of `span` frames among frames first..stop - 1."""
    return np.arange(first, stop - span + 1, stride)


def split_text(
    cube: Cube, periods: Mapping[str, Period], starts: Mapping[str, np.ndarray]
) -> str:
    """ "train 2008-01-01..2015-09-13 (2798 windows), ..." """
    return ", ".join(
        f"{split} {cube.period(*periods[split])} ({len(starts[split])} windows)"
        for split in SPLITS
    )


def _check_rising(dates: Dates, edges: list[int], available: str) -> None:
    """Rejects dates that leave a split without frames."""
    given = dataclasses.asdict(dates)
    names = list(given)
    for i, split in enumerate(SPLITS):
        if edges[i] < edges[i + 1]:
            continue
        before = [name for name in names[: i + 1] if given[name]]
        after = [name for name in names[i + 1 :] if given[name]]
        if before and after:
            raise ValueError(
                f"{after[0]}={given[after[0]]} must come after "
                f"{before[-1]}={given[before[-1]]}, with frames between "
                f"them ({available})"
            )
        name = (before[-1:] + after)[0]
        raise ValueError(
            f"{name}={given[name]} leaves no frames for {split} ({available})"
        )


def _edges(
    given: tuple[int, int | None, int | None, int], least: int, share: float
) -> list[int]:
    """The first frame, and the ends of training, validation and testing.

    Args:
        given: these four; those that are None are computed from shares.
        least: number of frames that shares leave for validation and for testing.
        share: share of the frames after training that is used for validation.
    """
    begin, train_end, validation_end, end = given
    if train_end is None:
        frames = end - begin
        train_end = begin + min(int(TRAIN_SHARE * frames), frames - 2 * least)
    if validation_end is None:
        validation_end = train_end + max(int(share * (end - train_end)), least)
    return [begin, train_end, validation_end, end]


def _without_dates(
    cube: Cube, dates: Dates, out_len: int, share: float
) -> dict[str, Period]:
    for name, value in dataclasses.asdict(dates).items():
        if value:
            raise ValueError(
                f"{name}={value} cannot be used: {cube.label} has no dates. Leave it "
                f"empty to train on {TRAIN_SHARE:.0%} of the frames"
            )
    if cube.splits:
        return dict(cube.splits)
    frames, pieces = cube.frames.shape[0], cube.segments
    if len(pieces) >= MANY_PIECES:
        ends = pieces[:, 1]
        _, train, validation, _ = _edges((0, None, None, len(pieces)), 1, share)
        edges = [0, int(ends[train - 1]), int(ends[validation - 1]), frames]
    else:
        edges = _edges((0, None, None, frames), out_len, share)
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
    remedy = "shorten `in_len` or `out_len`"
    if cube.minutes is not None:
        remedy = (
            "move `train_from`, `train_until`, `validate_until` or `test_until`, or "
            f"{remedy}"
        )
    return (
        f"{cube.label}: the {split} period{_when(cube, first, stop)} of {stop - first} "
        f"frames is too short for a window, which needs {need}; there are "
        f"{cube.frames.shape[0]} frames{_when(cube, 0, cube.frames.shape[0])}{broken}. "
        f"Please {remedy}"
    )


def _when(cube: Cube, first: int, stop: int) -> str:
    """ " (2008-01-01..2015-09-13)"; "" if dates are unknown."""
    return "" if cube.minutes is None else f" ({cube.period(first, stop)})"
