"""Checks of monthly temperatures: undeclared fill values, and months without values."""

from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.layout import Undecided
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.values import undeclared
from earthformer_jax.data.readers.values.missing import number_text

# Larger values, in K or degrees Celsius, are undeclared fill values.
LARGEST_TEMPERATURE = 400.0
MOST_NAMED = 5
# K from the mean of the calendar month: twice as far as any observed month.
LARGEST_DEPARTURE = 20.0


def check_values(cube: Cube, values: np.ndarray, missing: Sequence[float]) -> None:
    """Rejects undeclared fill values.

    Raises:
        Undecided: if there are any; the message names them.
    """
    (name,) = cube.names
    wrong = np.unique(values[np.abs(values) > LARGEST_TEMPERATURE])
    text = ",".join(number_text(float(value)) for value in wrong[:MOST_NAMED])
    if wrong.size == 1:
        raise Undecided(
            f"{name!r}: the value {text} is not a temperature in K or degC; if it "
            f"marks missing values, set missing={text}",
            [{"missing": text}],
        )
    if wrong.size:
        more = wrong.size - MOST_NAMED
        raise Undecided(
            f"{name!r}: the values {text}{f' and {more} others' * (more > 0)} are not "
            "temperatures in K or degC; if they mark missing values, set "
            f"missing={text}",
            [{"missing": text}] if more <= 0 else [],
        )
    if not np.isnan(missing).any():
        undeclared.check_undeclared(values, cube.names, cube.codings)


def check_months(
    values: np.ndarray, ocean: np.ndarray, minutes: np.ndarray, remedy: str
) -> None:
    """Rejects months whose values are all missing or all equal."""
    cells = values[:, ocean]
    observed = np.isfinite(cells)
    largest = np.where(observed, cells, -np.inf).max(axis=1)
    smallest = np.where(observed, cells, np.inf).min(axis=1)
    empty = ~observed.any(axis=1)
    if empty.any():
        raise ValueError(
            f"{empty.sum()} of {len(values)} months have no values "
            f"({months_text(minutes[empty])}); {remedy}, or fill them in the file"
        )
    flat = largest == smallest
    if flat.any() and cells.shape[1] > 1:
        raise ValueError(
            f"{flat.sum()} of {len(values)} months have the same value everywhere "
            f"({largest[np.argmax(flat)]:g} in {months_text(minutes[flat])}): the "
            f"file is damaged, or these are missing months; {remedy}"
        )


def check_departures(anomalies: np.ndarray, minutes: np.ndarray) -> None:
    """Rejects values too far from the climatology of the training.

    Args:
        anomalies: `[m, n]` in K of ocean cells, NaN where missing.
        minutes: `[m]` since 1970.
    """
    far = np.abs(anomalies) > LARGEST_DEPARTURE
    if far.any():
        month, cell = np.argwhere(far)[0]
        raise ValueError(
            f"{int(far.sum())} values are more than {LARGEST_DEPARTURE:g} K from the "
            "climatology of the training, the first by "
            f"{anomalies[month, cell]:+.1f} K in {months_text(minutes[[month]])}; if "
            "they mark missing values, set `missing`, otherwise correct the file"
        )


def months_text(minutes: np.ndarray, most: int = 5) -> str:
    """The first few of some months, and how many more there are."""
    named = ", ".join(map(times.month_text, times.month_of(minutes[:most])))
    return named + (f" and {len(minutes) - most} more" if len(minutes) > most else "")
