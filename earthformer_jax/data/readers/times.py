"""Time axes of any cadence: order, steps and gaps, dates of the splits.

Within the package, a time is a number of minutes since 1970-01-01 UTC. Times in the
calendars of climate models (no leap days, 360 days) also keep their own seconds, in
which their steps are equal.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

# A step this much shorter or longer than the median step interrupts the series.
SHORTEST_STEP, LONGEST_STEP = 0.5, 1.5
DAY = 24 * 60
MONTH = (28 * DAY, 31 * DAY)
YEAR = (360 * DAY, 366 * DAY)

_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2}([T ]\d{2}(:\d{2})?)?)?)?")


@dataclasses.dataclass(frozen=True)
class Times:
    """The times of consecutive frames.

    Attributes:
        seconds: float64 `[t]` since 1970-01-01 in the calendar of the file.
        minutes: int64 `[t]` since 1970-01-01 00:00 UTC of the same date in the
            Gregorian calendar.
        calendar: name of the file's calendar.
    """

    seconds: np.ndarray
    minutes: np.ndarray
    calendar: str = "standard"

    def __len__(self) -> int:
        return len(self.minutes)

    def __getitem__(self, key) -> "Times":
        return Times(self.seconds[key], self.minutes[key], self.calendar)


def join(parts: Sequence[Times]) -> Times:
    """The times of several files, concatenated."""
    return Times(
        np.concatenate([part.seconds for part in parts]),
        np.concatenate([part.minutes for part in parts]),
        parts[0].calendar,
    )


def check_order(times: Times) -> None:
    """Rejects times that do not increase.

    Raises:
        ValueError: if they do not; the message names the first two steps in the wrong
            order.
    """
    steps = np.diff(times.seconds)
    wrong = steps <= 0
    if not wrong.any():
        return
    at = int(np.argmax(wrong))
    before, after = (text(times.minutes[i]) for i in (at, at + 1))
    if steps[at] == 0:
        count = int(np.sum(steps == 0))
        more = f" ({count} times in all)" if count > 1 else ""
        raise ValueError(
            f"steps {at} and {at + 1} are both at {before}{more}; remove the duplicates"
        )
    raise ValueError(
        f"time goes back from {before} (step {at}) to {after}; sort the file by time"
    )


def cadence(times: Times | None) -> float:
    """Median minutes from frame to frame; 0 if unknown."""
    if times is None or len(times) < 2:
        return 0.0
    return float(np.median(np.diff(times.seconds))) / 60


def interruptions(times: Times) -> np.ndarray:
    """Positions `[g]` of frames that do not follow the previous one at a usual step."""
    if len(times) < 2:
        return np.zeros(0, np.int64)
    steps = np.diff(times.seconds)
    usual = np.median(steps)
    odd = (steps < SHORTEST_STEP * usual) | (steps > LONGEST_STEP * usual)
    return np.flatnonzero(odd) + 1


def is_monthly(cadence: float) -> bool:
    """Whether a cadence in minutes is a month."""
    return MONTH[0] <= cadence <= MONTH[1]


def month_of(minutes: np.ndarray) -> np.ndarray:
    """Months since January 1970; modulo 12 the calendar month, January = 0."""
    moments = np.asarray(minutes, np.int64).astype("datetime64[m]")
    return moments.astype("datetime64[M]").astype(np.int64)


def of_minutes(minutes: np.ndarray) -> Times:
    """Times in the Gregorian calendar, of minutes since 1970-01-01 00:00 UTC."""
    minutes = np.asarray(minutes, np.int64)
    return Times(60.0 * minutes, minutes)


def of_months(months: np.ndarray) -> Times:
    """Times of the beginnings of months, counted since January 1970."""
    moments = np.asarray(months, np.int64).astype("datetime64[M]")
    seconds = moments.astype("datetime64[s]").astype(np.int64)
    return Times(seconds.astype(np.float64), seconds // 60)


def check_monthly(times: Times) -> None:
    """Rejects times that are not monthly without gaps.

    Raises:
        ValueError: if they are not; the message names the first month that is missing
            or occurs twice.
    """
    months = month_of(times.minutes)
    steps = np.diff(months)
    if np.all(steps == 1):
        return
    at = int(np.argmax(steps != 1))
    before, after = month_text(months[at]), month_text(months[at + 1])
    if steps[at] == 0:
        problem = f"steps {at} and {at + 1} are both in {before}"
        remedy = "average the data to months, or remove the duplicates"
    elif np.median(steps) != 1:
        problem = f"{before} is followed by {after}"
        remedy = "monthly means are needed"
    else:
        problem = f"{before} is followed by {after}: {month_text(months[at] + 1)} is "
        problem += "missing"
        if steps[at] > 2:
            problem += f" and {steps[at] - 2} more after it"
        remedy = "fill the gap, or leave out the months before it"
    raise ValueError(f"time is not monthly without gaps: {problem}; {remedy}")


def frame_name(minutes: float) -> str:
    """A cadence in words: "5 min", "1 hour", "1 day", "1 month"; "" if unknown."""
    if minutes <= 0:
        return ""
    for name, (low, high) in {"month": MONTH, "year": YEAR}.items():
        if low <= minutes <= high:
            return f"1 {name}"
    for name, size in (("day", DAY), ("hour", 60)):
        if minutes % size == 0:
            count = int(minutes // size)
            return f"{count} {name}{'s' if count > 1 else ''}"
    return f"{minutes:g} min"


def frame_minutes(name: str) -> float:
    """A cadence in minutes from `frame_name`, of a month about; 0 if unknown."""
    if not name:
        return 0.0
    count, unit = name.split()
    sizes = {"month": sum(MONTH) / 2, "year": sum(YEAR) / 2, "day": DAY, "hour": 60}
    return float(count) * sizes.get(unit.removesuffix("s"), 1)


def text(minutes: int) -> str:
    """ "2016-09-28", or "2016-09-28 14:45" if it is not midnight."""
    moment = str(np.datetime64(int(minutes), "m")).replace("T", " ")
    return moment.removesuffix(" 00:00")


def month_text(month: int) -> str:
    """ "2016-09" of a month since January 1970."""
    return str(np.datetime64(int(month), "M"))


def period_text(minutes: np.ndarray, cadence: float = 0.0) -> str:
    """The first and last of some times.

    Args:
        minutes: the times.
        cadence: minutes from frame to frame.

    Returns:
        "2008-01-01..2018-12-31", or "2008-01..2018-12" if frames are months.
    """
    if is_monthly(cadence):
        first, last = month_of(minutes[[0, -1]])
        return f"{month_text(first)}..{month_text(last)}"
    return f"{text(minutes[0])}..{text(minutes[-1])}"


def start_of(date: str, field: str) -> int:
    """Minutes at the beginning of a date.

    Args:
        date: "YYYY", "YYYY-MM", "YYYY-MM-DD" or "YYYY-MM-DDTHH:MM".
        field: name of the setting, for the message.

    Raises:
        ValueError: if it is not a date.
    """
    return int(_parse(date, field).astype("datetime64[m]").astype(np.int64))


def end_of(date: str, field: str) -> int:
    """Minutes just after the last moment of a date: a year, month, day or minute.

    Args:
        date: as for `start_of`.
        field: name of the setting, for the message.

    Raises:
        ValueError: if it is not a date.
    """
    return int(_next(_parse(date, field)).astype("datetime64[m]").astype(np.int64))


def _next(moment):
    """The following year, month, day, ..., in the unit of a datetime64."""
    return moment + np.timedelta64(1, np.datetime_data(moment.dtype)[0])


def season(minutes: np.ndarray) -> np.ndarray:
    """Share of the year that has passed, 0 to 1, at minutes since 1970."""
    moments = np.asarray(minutes, np.int64).astype("datetime64[m]")
    years = moments.astype("datetime64[Y]")
    begin = years.astype("datetime64[m]")
    length = _next(years).astype("datetime64[m]") - begin
    return (moments - begin) / length


def time_of_day(minutes: np.ndarray) -> np.ndarray:
    """Share of the day (UTC) that has passed, 0 to 1."""
    return (np.asarray(minutes, np.int64) % DAY) / DAY


def _parse(date: str, field: str) -> np.datetime64:
    date = str(date).strip()
    try:
        if not _DATE.fullmatch(date):
            raise ValueError
        return np.datetime64(date.replace(" ", "T"))
    except ValueError:
        raise ValueError(
            f"{field}={date!r} is not a date; write YYYY, YYYY-MM, YYYY-MM-DD or "
            "YYYY-MM-DDTHH:MM, for example 2015-12-31"
        ) from None
