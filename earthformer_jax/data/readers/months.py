"""Months counted from year 0, so that month arithmetic is integer arithmetic.

1979-12 is 12 * 1979 + 11; the remainder modulo 12 is the calendar month, January = 0.
"""

import re

import numpy as np


def parse_month(text: str, field: str) -> int:
    """The month number of "YYYY-MM".

    Args:
        text: year and month, "1979-12".
        field: name of the setting the text came from, for the error message.

    Raises:
        ValueError: if the text is not a year and a month.
    """
    match = re.fullmatch(r"(\d{4})-(\d{2})", text.strip())
    if not match or not 1 <= int(match[2]) <= 12:
        raise ValueError(
            f"{field}={text!r} is not a month; write YYYY-MM, for example 1979-12"
        )
    return 12 * int(match[1]) + int(match[2]) - 1


def format_month(month: int) -> str:
    """ "YYYY-MM" of a month number."""
    year, calendar_month = divmod(int(month), 12)
    return f"{year:04d}-{calendar_month + 1:02d}"


def format_months(months: np.ndarray, at_most: int = 5) -> str:
    """The first few of some months, and how many more there are."""
    named = ", ".join(format_month(month) for month in months[:at_most])
    more = len(months) - at_most
    return f"{named} and {more} more" if more > 0 else named
