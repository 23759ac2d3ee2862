"""Windows of input and target months cut from monthly series."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.readers.months import format_month, parse_month

# Shares of the file for training, validation and test when no dates are given.
DEFAULT_SHARES = (0.7, 0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class MonthlySeries:
    """Consecutive monthly fields.

    Attributes:
        fields: float32 `[m, h, w]`, temperature (anomaly) in K, without NaN.
        first_month: month number of the first field (`data.readers.months`).
        three_month_index: `[m]`, the given index of month, next and second next
            month in K; None when it is to be computed from the fields.
    """

    fields: np.ndarray
    first_month: int
    three_month_index: np.ndarray | None = None

    @property
    def last_month(self) -> int:
        return self.first_month + len(self.fields) - 1

    def between(self, first: int, last: int) -> "MonthlySeries":
        """The months first..last, both included."""
        cut = slice(first - self.first_month, last - self.first_month + 1)
        index = self.three_month_index
        return MonthlySeries(
            self.fields[cut], first, None if index is None else index[cut]
        )


@dataclasses.dataclass(frozen=True)
class Periods:
    """First and last month, both included, of each split."""

    train: tuple[int, int]
    validation: tuple[int, int]
    test: tuple[int, int]


class WindowSource:
    """Examples cut from monthly series: `in_len` months, then `out_len` targets.

    Fields are in K with a channel axis of one. `three_month_index` is present when the
    series carry one.
    """

    def __init__(
        self,
        series: Sequence[MonthlySeries],
        starts: Sequence[np.ndarray],
        in_len: int,
        out_len: int,
    ):
        """Makes a source.

        Args:
            series: the series windows are cut from.
            starts: per series, positions `[n]` of the first input month.
            in_len: input months.
            out_len: target months.
        """
        self._series = list(series)
        self._which = np.repeat(np.arange(len(series)), [len(s) for s in starts])
        self._start = np.concatenate([np.asarray(s, np.int64) for s in starts])
        self._in_len = in_len
        self._out_len = out_len

    def __len__(self) -> int:
        return len(self._start)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        series, start = self._series[self._which[index]], self._start[index]
        target = start + self._in_len
        end = target + self._out_len
        example = {
            "inputs": series.fields[start:target, :, :, None],
            "targets": series.fields[target:end, :, :, None],
            "start_month": np.int32((series.first_month + target) % 12),
        }
        if series.three_month_index is not None:
            example["nino34_three_month"] = series.three_month_index[target : end - 2]
        return example


def window_starts(months: int, span: int, stride: int = 1) -> np.ndarray:
    """Starts of the windows of `span` months in a series, every `stride`-th of them."""
    return np.arange(0, months - span + 1, stride)


def split_periods(
    first: int,
    last: int,
    *,
    train_from: str = "",
    train_until: str = "",
    validate_until: str = "",
    test_until: str = "",
    min_months: int = 1,
) -> Periods:
    """Divides the months first..last into training, validation and test.

    Args:
        first: first month of the file.
        last: last month of the file.
        train_from: "YYYY-MM" of the first training month; default: first.
        train_until: last training month; default: 70 % of the months.
        validate_until: last validation month; default: a third of what follows
            training.
        test_until: last test month; default: last.
        min_months: the defaults leave at least this many months to validation and
            to test, where the file has them.

    Raises:
        ValueError: if a date is malformed, outside the file or out of order.
    """
    start = parse_month(train_from, "config.data.train_from") if train_from else first
    end = parse_month(test_until, "config.data.test_until") if test_until else last
    train, validation, test = DEFAULT_SHARES
    if train_until:
        train_end = parse_month(train_until, "config.data.train_until")
    else:
        months = end - start + 1
        train_end = start + min(int(train * months), months - 2 * min_months) - 1
    if validate_until:
        validation_end = parse_month(validate_until, "config.data.validate_until")
    else:
        share = validation / (validation + test)
        validation_end = train_end + max(int(share * (end - train_end)), min_months)
    bounds = {
        "config.data.train_from": start,
        "config.data.train_until": train_end,
        "config.data.validate_until": validation_end,
        "config.data.test_until": end,
    }
    available = f"the file has {format_month(first)} to {format_month(last)}"
    for name, month in bounds.items():
        if not first <= month <= last:
            raise ValueError(
                f"{name}={format_month(month)} is outside the data: {available}"
            )
    names, values = list(bounds), list(bounds.values())
    for k in range(3):
        if values[k] >= values[k + 1]:
            raise ValueError(
                f"{names[k + 1]}={format_month(values[k + 1])} must come after "
                f"{names[k]}={format_month(values[k])} ({available})"
            )
    return Periods(
        train=(start, train_end),
        validation=(train_end + 1, validation_end),
        test=(validation_end + 1, end),
    )


def period_starts(
    series: MonthlySeries, periods: Periods, in_len: int, out_len: int
) -> dict[str, np.ndarray]:
    """Window starts of each split of one series.

    A training window lies in the training period, inputs and targets. A validation or
    test window has all its targets in its period; its inputs may reach back.

    Returns:
        positions in the series `[n]` for "train", "validation" and "test".

    Raises:
        ValueError: if a split has no window.
    """
    starts = {}
    for split, (first, last) in dataclasses.asdict(periods).items():
        reach = 0 if split == "train" else in_len
        begin = max(first - reach, series.first_month)
        count = last - (in_len + out_len) - begin + 2
        if count < 1:
            if split == "train":
                need = f"{in_len} input and {out_len} target months"
            else:
                need = f"{out_len} target months, after {in_len} input months"
            raise ValueError(
                f"the {split} period {format_month(first)} to {format_month(last)} "
                f"({last - first + 1} months) holds no window: it needs {need}; the "
                f"series has {format_month(series.first_month)} to "
                f"{format_month(series.last_month)}. Move config.data.train_from, "
                "train_until, validate_until or test_until, or shorten "
                "config.data.in_len or out_len"
            )
        starts[split] = begin - series.first_month + np.arange(count)
    return starts
