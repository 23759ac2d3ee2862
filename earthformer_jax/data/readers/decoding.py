"""Dates from the numbers and strings of a time axis.

Three forms are known: numbers in CF units ("days since 1900-01-01"), numbers whose
digits are the date (199001, 20160928, 20160928.5, 201609281445), and strings
("2016-09-28T14:45:00.0Z", "2016/09/28", "2016-09-28_14:45:00").
"""

import re
from collections.abc import Mapping, Sequence

import cftime
import numpy as np

from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.times import Times

UNITS = {
    "second": 1,
    "sec": 1,
    "s": 1,
    "minute": 60,
    "min": 60,
    "hour": 3600,
    "hr": 3600,
    "h": 3600,
    "day": 86400,
    "d": 86400,
    "millisecond": 1e-3,
    "microsecond": 1e-6,
    "nanosecond": 1e-9,
}
EPOCH = "seconds since 1970-01-01"
MONTH = np.timedelta64(1, "M")
# Other names of calendars, and those of which CF lists several.
CALENDARS = {
    "": "standard",
    "gregorian": "standard",
    "365_day": "noleap",
    "no_leap": "noleap",
    "366_day": "all_leap",
    "360": "360_day",
}
GREGORIAN = ("standard", "proleptic_gregorian")
# The standard calendar is Julian before 1582-10-15.
FIRST_GREGORIAN = -12219292800.0  # seconds since 1970-01-01
# Times that are rounded to fewer digits are those of a clock with these steps.
CLOCKS = (86400, 21600, 10800, 3600, 1800, 900, 600, 300, 60)  # seconds
MOST_DECIMALS = 6
# Attributes that date a file of one field, the best first.
DATE_ATTRIBUTES = (
    "valid_time",
    "time_coverage_start",
    "start_time",
    "datetime",
    "date_time",
    "time",
    "date",
)
# Dates without CF units are recognised between these years.
YEARS = (1600, 2600)
# Digits of integers that are dates: YYYYMM to YYYYMMDDhhmmss.
DIGITS = (6, 8, 10, 12, 14)
# Numbers of ten digits are hours only from this year on: until 2030, the seconds since
# 1970 are smaller.
FIRST_HOURS = 1900
LARGEST_FLOAT32 = 2**24  # of the integers that float32 holds exactly

_SINCE = re.compile(r"\s*([a-z_]+?)s?\s+since\s+(.+)", re.IGNORECASE)
# Units that say what the digits are: "YYYYMM", "month as %Y%m.%f", "YYYYMMDD".
_MONTH_DIGITS = re.compile(r"%Y%m(?!%d)|yyyymm(?!dd)", re.IGNORECASE)
_TEXT_DATE = re.compile(
    r"(\d{4})([-/.]?)(\d{1,2})(?:\2(\d{1,2})"
    r"(?:[T_ ]*(\d{2})(?::?(\d{2})(?::?(\d{2}(?:[.,]\d+)?))?)?"
    r"\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?)?",
    re.IGNORECASE,
)
_MISSING_TEXTS = ("", "nat", "nan", "none")

# Year, month, day, and seconds since the beginning of the day.
Date = tuple[int, int, int, float]


def decode(values: np.ndarray, units: str = "", calendar: str = "") -> Times | None:
    """Decodes the numbers or strings of a time axis.

    Args:
        values: `[t]` numbers in CF units, or numbers or strings that are dates.
        units: of the numbers; "" if there are none.
        calendar: CF calendar; "" for the standard one.

    Returns:
        the times; None if the meaning of the values is unknown. Months are dated by
        their beginning.

    Raises:
        ValueError: if a value is missing, or cannot be decoded with the units.
    """
    values = np.asarray(values)
    calendar = calendar.strip().lower()
    calendar = CALENDARS.get(calendar, calendar)
    since = _SINCE.fullmatch(units.strip())
    if since is None:
        return _from_dates(_read_dates(values, units), calendar)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"times of type {values.dtype} with units {units!r}")
    _check_known(~np.isfinite(values))
    unit = since[1].lower()
    if unit in ("month", "year"):
        return _from_months(values, 12 if unit == "year" else 1, since[2], units)
    if unit not in UNITS:
        raise ValueError(
            f"the unit {since[1]!r} of {units!r} is unknown; use one of "
            f"{', '.join(UNITS)}, month and year"
        )
    try:
        base = cftime.num2date(0, f"days since {since[2]}", calendar)
        zero = cftime.date2num(base, EPOCH, calendar=calendar)
        seconds = zero + values.astype(np.float64) * UNITS[unit]
        return of_seconds(_unrounded(seconds, values, UNITS[unit]), calendar)
    except (ValueError, OverflowError, TypeError) as error:
        raise ValueError(
            f"times with units {units!r} cannot be decoded: {error}"
        ) from None


def of_seconds(seconds: np.ndarray, calendar: str) -> Times:
    """Times of seconds since 1970-01-01 in a calendar.

    The calendars "standard" and "proleptic_gregorian" are the same after 1582, and both
    are then called "standard".
    """
    minutes = _gregorian(seconds, calendar)
    if calendar in GREGORIAN and np.all(seconds >= FIRST_GREGORIAN):
        calendar = "standard"
    return Times(seconds, minutes, calendar)


def of_attributes(attributes: Mapping) -> tuple[Times, str] | None:
    """The time of a file of one field, and the attribute that gives it, if any."""
    lower = {str(key).lower(): key for key in attributes}
    for name in DATE_ATTRIBUTES:
        if name not in lower:
            continue
        value = np.atleast_1d(attributes[lower[name]])
        if value.shape != (1,) or value.dtype.kind not in "SUO":
            continue
        times = decode(value)
        if times is not None:
            return times, str(lower[name])
    return None


def middle(
    times: Times, bounds: np.ndarray, units: str, calendar: str
) -> tuple[Times, str] | None:
    """Times in the middle of their intervals, if they are at an edge of them.

    A time inside its interval is a choice of those who wrote the file, and stays.

    Args:
        times: `[t]`.
        bounds: `[t, 2]`, the edges of the intervals.
        units: of `bounds`.
        calendar: of `bounds`.

    Returns:
        the times, and the edge at which they were: "end", "beginning", or "" if they
        are unchanged; None if the intervals do not enclose the times.
    """
    if bounds.shape != (len(times), 2) or bounds.dtype.kind not in "iuf":
        return None
    if not np.all(np.isfinite(bounds)):
        return None
    limits = decode(bounds.ravel(), units, calendar)
    if limits is None:
        return None
    low, high = np.sort(limits.seconds.reshape(-1, 2), axis=1).T
    if np.any((times.seconds < low - 1) | (times.seconds > high + 1)):
        return None
    at_edge = np.minimum(times.seconds - low, high - times.seconds) <= 1
    if not np.any(at_edge & (high > low)):
        return times, ""
    which = "end" if np.any(times.seconds > low + 1) else "beginning"
    return of_seconds((low + high) / 2, times.calendar), which


def not_understood(name: str, values: np.ndarray, units: str) -> str:
    """A note about a time axis that `decode` does not understand.

    Args:
        name: of the axis.
        values: of the axis.
        units: of the axis.
    """
    values = np.asarray(values).ravel()
    ends = [_text(value) for value in (values[:1], values[-1:]) if len(value)]
    of_units = f"the units {units!r}" if units.strip() else "no units"
    return (
        f"{name!r} ({'..'.join(dict.fromkeys(ends)) or 'empty'}, {of_units}) is not "
        "understood as dates: steps are assumed to be equal. Dates need units like "
        "'days since 1900-01-01', numbers like 199001 or 20160928, or strings like "
        "2016-09-28T14:45"
    )


def _check_known(missing: np.ndarray) -> None:
    if missing.any():
        count = int(missing.sum())
        raise ValueError(
            f"{count} time{' is' if count == 1 else 's are'} missing, the first at "
            f"step {int(np.argmax(missing))}; leave out these steps"
        )


def _text(value: np.ndarray) -> str:
    item = value[0]
    if isinstance(item, bytes):
        return item.decode(errors="replace")
    return f"{item:.10g}" if value.dtype.kind in "iuf" else str(item)


def _unrounded(seconds: np.ndarray, values: np.ndarray, unit: float) -> np.ndarray:
    """Times of a clock where values were rounded, to float32 or to a few decimals.

    0.0833 days are two hours, and 7197 seconds are not what was meant.
    """
    decimals = next(
        (
            n
            for n in range(MOST_DECIMALS)
            if np.array_equal(np.round(values, n), values)
        ),
        MOST_DECIMALS,
    )
    step = 10.0**-decimals if 0 < decimals < MOST_DECIMALS else 0.0
    if values.dtype == np.float32 and decimals:
        step = max(step, float(np.spacing(np.max(np.abs(values)))))
    elif values.dtype == np.float32:
        whole = np.abs(values) <= LARGEST_FLOAT32
        step = 0.0 if whole.all() else float(np.spacing(np.max(np.abs(values))))
    error = 0.51 * step * unit
    for clock in CLOCKS:
        exact = np.round(seconds / clock) * clock
        if 0 < error < clock / 10 and np.all(np.abs(exact - seconds) <= error):
            return exact
    return seconds


def _gregorian(seconds: np.ndarray, calendar: str) -> np.ndarray:
    """Minutes of the same dates; days that do not exist become the last of a month."""
    julian = calendar != "proleptic_gregorian" and np.any(seconds < FIRST_GREGORIAN)
    if calendar in GREGORIAN and not julian:
        return np.floor(seconds / 60 + 1e-6).astype(np.int64)
    minutes = np.empty(len(seconds), np.int64)
    for i, date in enumerate(cftime.num2date(seconds, EPOCH, calendar)):
        month = np.datetime64(f"{date.year:04d}-{date.month:02d}")
        start = month.astype("datetime64[m]").astype(np.int64)
        ends = np.array([month, month + MONTH], "datetime64[D]").astype(np.int64)
        day = min(date.day, ends[1] - ends[0]) - 1
        minutes[i] = start + day * times_lib.DAY + date.hour * 60 + date.minute
    return minutes


def _from_months(values, per_unit: int, origin: str, units: str) -> Times:
    """Months or years since a date: not CF, but common; mid-month values end in .5."""
    since = re.match(r"(\d+)-(\d+)|(\d+)", origin.strip())
    if since is None:
        raise ValueError(f"times with units {units!r} have no date after 'since'")
    base = 12 * (int(since[1] or since[3]) - 1970) + int(since[2] or 1) - 1
    months = base + np.floor(values.astype(np.float64) * per_unit + 1e-6)
    return times_lib.of_months(months.astype(np.int64))


def _read_dates(values: np.ndarray, units: str) -> list[Date] | None:
    """Dates of values without CF units; None if they have another form."""
    if values.dtype.kind in "iuf":
        return _read_digits(values, units)
    if values.dtype.kind not in "SUO":
        return None
    texts = [v.decode(errors="replace") if isinstance(v, bytes) else v for v in values]
    texts = [str(text).strip("\0 ") for text in texts]
    missing = np.array([text.lower() in _MISSING_TEXTS for text in texts], bool)
    dates = [_read_text(text) for text in np.array(texts, object)[~missing]]
    known = [date for date in dates if date is not None]
    if not known or len(known) < len(dates):
        return None
    if all(text.isdigit() and len(text) == 6 for text in texts):
        return known if _are_months(known, units) else None
    _check_known(missing)
    return known


def _read_digits(values: np.ndarray, units: str) -> list[Date] | None:
    """Dates of numbers like 199001, 20160928, 20160928.5 or 201609281445."""
    finite = values[np.isfinite(values)]
    if not finite.size or np.any(finite < 0):
        return None
    whole = np.floor(finite.astype(np.float64))
    lengths = {len(f"{value:.0f}") for value in whole}
    if len(lengths) > 1 or not lengths <= set(DIGITS):
        return None
    (length,) = lengths
    rest = finite.astype(np.float64) - whole
    as_months = _MONTH_DIGITS.search(units) is not None
    if np.any(rest) and not (length == 8 or (length == 6 and as_months)):
        return None
    dates = []
    for value, fraction in zip(whole, rest, strict=True):
        text = f"{value:.0f}"
        month, *more = (int(text[i : i + 2]) for i in range(4, length, 2))
        day, hour, minute, second = more + [1, 0, 0, 0][len(more) :]
        if hour > 24 or minute > 59 or second > 60:
            return None
        seconds = 3600.0 * hour + 60 * minute + second
        if length == 8:
            seconds = float(np.round(86400 * fraction))
        dates.append((int(text[:4]), month, day, seconds))
    if not all(_is_plausible(date) for date in dates):
        return None
    if length == 10 and min(dates)[0] < FIRST_HOURS:
        return None
    if length == 6 and not _are_months(dates, units):
        return None
    if values.dtype == np.float32 and np.max(whole) > LARGEST_FLOAT32:
        raise ValueError(
            f"numbers such as {whole[0]:.0f} are stored as float32, which rounds them "
            "to other days; store them as int32 or float64"
        )
    _check_known(~np.isfinite(values))
    return dates


def _read_text(text: str) -> Date | None:
    """The date, in UTC, of a string that begins with the year."""
    found = _TEXT_DATE.fullmatch(text)
    if found is None or (not found[2] and len(found[3]) + len(found[4] or "11") < 4):
        return None
    year, month, day = int(found[1]), int(found[3]), int(found[4] or 1)
    hour, minute = int(found[5] or 0), int(found[6] or 0)
    second = float((found[7] or "0").replace(",", "."))
    # 24:00 is the end of a day, and 60 a leap second.
    if hour > 24 or minute > 59 or second >= 61 or (hour == 24 and minute + second):
        return None
    seconds = 3600 * hour + 60 * minute + second - _zone(found[8] or "")
    date = year, month, day, seconds
    return date if _is_plausible(date) else None


def _zone(text: str) -> int:
    """Seconds east of UTC: 7200 for "+02:00", 0 for "Z"."""
    if text[:1] not in ("+", "-"):
        return 0
    digits = text[1:].replace(":", "")
    seconds = 3600 * int(digits[:2]) + 60 * int(digits[2:] or 0)
    return -seconds if text[0] == "-" else seconds


def _is_plausible(date: Date) -> bool:
    year, month, day, seconds = date
    low, high = YEARS
    in_day = -86400 <= seconds <= 2 * 86400
    return low <= year <= high and 1 <= month <= 12 and 1 <= day <= 31 and in_day


def _are_months(dates: Sequence[Date], units: str) -> bool:
    """Whether six digits are months rather than counts: units say so, or they follow.

    Numbers with a unit of time, such as hours, are counts.
    """
    if _MONTH_DIGITS.search(units):
        return True
    unit = units.strip().lower()
    if unit in UNITS or unit.removesuffix("s") in UNITS:
        return False
    months = [12 * year + month for year, month, _, _ in dates]
    return bool(np.all(np.diff(months) > 0))


def _from_dates(dates: list[Date] | None, calendar: str) -> Times | None:
    """Times of dates; None if there are none, or one that the calendar has not."""
    if not dates:
        return None
    days = []
    for year, month, day, _ in dates:
        try:
            days.append(cftime.datetime(year, month, day, calendar=calendar))
        except ValueError:
            return None
    since = EPOCH.replace("seconds", "days")
    midnights = cftime.date2num(days, since, calendar=calendar)
    seconds = np.array([date[3] for date in dates], np.float64)
    return of_seconds(86400.0 * np.asarray(midnights) + seconds, calendar)
