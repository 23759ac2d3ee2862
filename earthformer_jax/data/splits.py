"""Divides a series into training, validation and test periods, by date or by share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from earthformer_jax.data.readers import times

if TYPE_CHECKING:
    from earthformer_jax.data.readers.series import Cube

SPLITS = ("train", "validation", "test")
# Shares used without dates: of all frames, and of those after training.
TRAIN_SHARE, VALIDATION_SHARE = 0.7, 1 / 2
# A series without dates that has at least this many pieces is divided between pieces.
MANY_PIECES = 3

Period = tuple[int, int]  # first frame, and the one after the last
# Splits in the order of time; name, date and frame of the limits around them.
Chain = tuple[Sequence[str], Sequence[tuple[str, str, int]]]


@dataclasses.dataclass(frozen=True)
class Dates:
    """The settings that divide a series: "YYYY-MM-DD" or shorter, or empty.

    Attributes:
        train_from: the first date of training; empty: the first of the series.
        train_until: the last date of training; empty: by share.
        validate_until: the last date of validation; empty: by share, or the last one
            before `test_from`.
        test_from: the first date of testing, after validation or before training;
            empty: the one after validation.
        test_until: the last date of testing; empty: the last of the series, or the last
            one before training.
    """

    train_from: str = ""
    train_until: str = ""
    validate_until: str = ""
    test_from: str = ""
    test_until: str = ""

    @classmethod
    def of(cls, settings: object) -> "Dates":
        """The dates among the settings of a data set, which have the same names."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: str(getattr(settings, name)) for name in names})


NO_DATES = Dates()


@dataclasses.dataclass(frozen=True)
class Fold:
    """One of the blocks of equal length that the training period is divided into.

    It is what is validated on; the other blocks are trained on.

    Attributes:
        count: number of blocks; 0: there are none.
        number: of the block, from 0.
    """

    count: int = 0
    number: int = 0

    def block(self, train: Period) -> Period:
        """First frame and end of the block; lengths differ by at most one frame."""
        first, stop = train
        begin, end = (
            first + (stop - first) * i // self.count
            for i in (self.number, self.number + 1)
        )
        return begin, end


NO_FOLD = Fold()


def split_periods(
    cube: "Cube",
    dates: Dates,
    in_len: int,
    out_len: int,
    validation_share: float = VALIDATION_SHARE,
    fold: Fold = NO_FOLD,
) -> dict[str, Period]:
    """First frame and end of each split.

    Splits without a date are shares of the frames, or of the pieces if the series has
    no dates and consists of several pieces. With a fold, the validation period is a
    block inside the training period (`training_pieces`), and the frames that would be
    validated on otherwise are not used.

    Args:
        cube: the series.
        dates: of the splits.
        in_len: number of input frames of a window.
        out_len: number of target frames; shares leave at least this many frames for
            validation and for testing.
        validation_share: share of the frames after training.
        fold: the block to validate on.

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
        periods = _without_dates(cube, dates, out_len, validation_share)
    else:
        periods = _by_date(cube, dates, out_len, validation_share, fold)
    if fold.count:
        block = fold.block(periods["train"])
        length = (periods["train"][1] - periods["train"][0]) // fold.count
        if length < in_len + out_len:
            raise ValueError(
                f"folds={fold.count} divides the training period"
                f"{_when(cube, *periods['train'])} into blocks of {length} frames, "
                f"which are shorter than a window of in_len={in_len} and "
                f"out_len={out_len}; use fewer folds"
            )
        periods["validation"] = block
    return periods


def training_pieces(periods: Mapping[str, Period]) -> list[Period]:
    """The training period without the validation period, as frames in a row."""
    first, stop = periods["train"]
    begin, end = periods["validation"]
    if end <= first or begin >= stop:
        begin = end = stop
    return [(a, b) for a, b in ((first, begin), (end, stop)) if a < b]


def tests_before(periods: Mapping[str, Period]) -> bool:
    """Whether the test period comes before the training period."""
    first, stop = periods["test"]
    return first < stop <= periods["train"][0]


def parted(cube: "Cube", periods: Mapping[str, Period]) -> "Cube":
    """The series, with a break before training if testing comes before it.

    What is computed along a series for the training months, such as a memory of past
    months, then knows nothing of the test months.
    """
    if not tests_before(periods):
        return cube
    begin = periods["train"][0]
    edges = np.union1d(cube.segments[:, 0], [begin])
    ends = np.union1d(cube.segments[:, 1], [begin])
    if len(edges) != len(ends):  # training begins with a segment
        return cube
    return dataclasses.replace(cube, segments=np.stack([edges, ends], axis=1))


def window_starts(
    cube: "Cube",
    periods: Mapping[str, Period],
    in_len: int,
    out_len: int,
    stride: int = 1,
) -> dict[str, np.ndarray]:
    """First frames of the windows of each split.

    A training window lies entirely within its period and shares no frame with the
    validation period; of a validation or test window, only the targets must lie in it.
    No window crosses a gap in the series, and none of validation begins before the
    training period.

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
        reach = 0 if split == "test" else periods["train"][0]
        bounds = [(max(first - in_len, reach), stop)]
        if split == "train":
            bounds = training_pieces(periods)
        pieces = [np.zeros(0, np.int64)]
        for begin, end in bounds:
            for piece_start, piece_stop in cube.segments:
                inside = max(begin, piece_start), min(end, piece_stop)
                pieces.append(starts_between(*inside, in_len + out_len, stride))
        starts[split] = np.concatenate(pieces).astype(np.int64)
        if not len(starts[split]):
            raise ValueError(_no_window(cube, split, first, stop, in_len, out_len))
    return starts


def starts_between(first: int, stop: int, span: int, stride: int = 1) -> np.ndarray:
    """First frames of the windows of `span` frames among frames first..stop - 1."""
    return np.arange(first, stop - span + 1, stride)


def split_text(
    cube: "Cube", periods: Mapping[str, Period], starts: Mapping[str, np.ndarray]
) -> str:
    """ "train 2008-01-01..2015-09-13 (2798 windows), ..." """
    return ", ".join(
        f"{split} {cube.period(*periods[split])} ({len(starts[split])} windows)"
        for split in SPLITS
    )


def _by_date(
    cube: "Cube", dates: Dates, least: int, share: float, fold: Fold
) -> dict[str, Period]:
    """The periods of a series with dates; the arguments are those of `split_periods`.

    Raises:
        ValueError: if a date is malformed, outside the data or out of order.
    """
    frames = cube.frames.shape[0]
    limits, available = (
        _limits(cube, dates),
        f"{cube.label} has {cube.period(0, frames)}",
    )
    begin, end = limits.get("train_from", 0), limits.get("test_until", frames)
    test_begin = limits.get("test_from")
    before = test_begin is not None and test_begin < begin
    if before:
        end = limits.get("test_until", begin)
    validation_end, rest = limits.get("validate_until"), end
    if test_begin is not None:
        rest = frames if before else test_begin
        validation_end = rest if validation_end is None else validation_end
    edges = _edges(
        (begin, limits.get("train_until"), validation_end, rest), least, share
    )
    begin, train_end, validation_end, _ = edges
    given = dataclasses.asdict(dates)
    names = ["train_from", "train_until", "validate_until"]
    if not dates.validate_until and test_begin is not None and not before:
        names[2] = "test_from"
    ends = [(name, given[name], edge) for name, edge in zip(names, edges, strict=False)]
    last = [("test_until", dates.test_until, end)]
    if test_begin is None:
        test_begin = validation_end
        chains: list[Chain] = [(SPLITS, ends + last)]
    else:
        first = ("test_from", dates.test_from, test_begin)
        chains = [(SPLITS[:2], ends), (SPLITS[2:], [first, *last])]
    if fold.count and not dates.validate_until:
        chains[0] = (SPLITS[:1], ends[:2])
    for splits, chain in chains:
        _check_rising(splits, chain, available)
    if before and end > begin:
        raise ValueError(
            f"test_until={dates.test_until} must come before "
            f"train_from={dates.train_from}, as test_from={dates.test_from} does "
            f"({available})"
        )
    if not before and test_begin < validation_end:
        raise ValueError(
            f"test_from={dates.test_from} lies in the time of training and validation, "
            f"{cube.period(begin, validation_end)}; choose a date after it, or one "
            f"before `train_from` with `test_until` before it as well ({available})"
        )
    return {
        "train": (begin, train_end),
        "validation": (train_end, validation_end),
        "test": (test_begin, end),
    }


def _limits(cube: "Cube", dates: Dates) -> dict[str, int]:
    """By the names of the dates given, their first frames or those after the last.

    Raises:
        ValueError: if a date is malformed or outside the data.
    """
    frames, minutes, limits = cube.frames.shape[0], cube.minutes, {}
    assert minutes is not None  # as the caller makes sure of
    for name, limit in dataclasses.asdict(dates).items():
        if not limit:
            continue
        begins = name.endswith("_from")
        moment = times.start_of if begins else times.end_of
        limits[name] = int(np.searchsorted(minutes, moment(limit, name)))
        inside = limits[name] < frames if begins else limits[name] > 0
        beyond = times.start_of(limit, name) > minutes[-1]
        if not inside or (beyond and name != "test_until"):
            available = f"{cube.label} has {cube.period(0, frames)}"
            raise ValueError(f"{name}={limit} is outside the data: {available}")
    return limits


def _check_rising(
    splits: Sequence[str], limits: Sequence[tuple[str, str, int]], available: str
) -> None:
    """Rejects dates that leave a split without frames.

    Args:
        splits: in the order of time.
        limits: name, date ("" if it is not given) and frame of the beginning of the
            first split and the ends of all.
        available: the data, for messages.
    """
    for i, split in enumerate(splits):
        if limits[i][2] < limits[i + 1][2]:
            continue
        before = [(name, date) for name, date, _ in limits[: i + 1] if date]
        after = [(name, date) for name, date, _ in limits[i + 1 :] if date]
        if before and after:
            (name, date), (last_name, last) = after[0], before[-1]
            raise ValueError(
                f"{name}={date} must come after {last_name}={last}, with frames "
                f"between them ({available})"
            )
        name, date = (before[-1:] + after)[0]
        raise ValueError(f"{name}={date} leaves no frames for {split} ({available})")


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
    cube: "Cube", dates: Dates, out_len: int, share: float
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
    cube: "Cube", split: str, first: int, stop: int, in_len: int, out_len: int
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
            "move `train_from`, `train_until`, `validate_until`, `test_from` or "
            f"`test_until`, or {remedy}"
        )
    return (
        f"{cube.label}: the {split} period{_when(cube, first, stop)} of {stop - first} "
        f"frames is too short for a window, which needs {need}; there are "
        f"{cube.frames.shape[0]} frames{_when(cube, 0, cube.frames.shape[0])}{broken}. "
        f"Please {remedy}"
    )


def _when(cube: "Cube", first: int, stop: int) -> str:
    """ " (2008-01-01..2015-09-13)"; "" if dates are unknown or there are no frames."""
    known = cube.minutes is not None and first < stop
    return f" ({cube.period(first, stop)})" if known else ""
