"""Dates in the names of files that hold one field each."""

import re
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.readers import decoding
from earthformer_jax.data.readers.times import Times

# 20160928144500, 201609281445, 20160928_1445, 2016-09-28, 20160928, 201609.
_DATE = re.compile(
    r"(?<!\d)(\d{8}[T_-]?\d{6}|\d{8}[T_-]?\d{4}|\d{10}|\d{4}-\d{2}-\d{2}|\d{8}|\d{6})"
    r"(?!\d)"
)


def times_of(names: Sequence[str]) -> Times | None:
    """Times of files by the one date in their names that is another in each.

    Args:
        names: "radar_20160928_1445.nc".

    Returns:
        the times; None if there is no such date, or more than one.
    """
    rows = [[re.sub(r"\D", "", date) for date in _DATE.findall(n)] for n in names]
    if len({len(row) for row in rows}) != 1:
        return None
    found = []
    for column in zip(*rows, strict=True):
        if len(set(column)) == len(names):
            times = decoding.decode(np.array(sorted(column)))
            if times is not None:
                order = np.argsort(np.argsort(column))
                found.append(times[order])
    return found[0] if len(found) == 1 else None
