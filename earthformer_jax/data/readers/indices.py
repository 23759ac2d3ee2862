"""Monthly climate indices from a NetCDF file or Zarr store, one variable for each."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.data.readers import cf, paths, time_axis, times
from earthformer_jax.data.readers.layout import NUMBERS, nearest

YEAR = 12
LEAST_YEARS = 10  # to tell anomalies from values with a mean and a season
# Departures from another period than the record have means too, but small ones: in
# standard deviations of what is left when the mean of each calendar month is removed.
MOST_MEAN, MOST_SEASON = 5.0, 0.4
SAMPLING = 3.0  # variance of a calendar month's mean, times years, with some room


@dataclasses.dataclass(frozen=True, eq=False)
class Indices:
    """Monthly anomalies of several indices, without gaps.

    Attributes:
        path: of the file.
        names: n names.
        values: float64 `[m, n]` in the units of the file.
        units: n units; "" where the file has none.
        minutes: int64 `[m]`, times since 1970-01-01.
    """

    path: Path
    names: tuple[str, ...]
    values: np.ndarray
    units: tuple[str, ...]
    minutes: np.ndarray

    @property
    def first_month(self) -> int:
        """Calendar month of the first row, January = 0."""
        return int(times.month_of(self.minutes[:1])[0]) % YEAR

    def between(self, first: str = "", last: str = "") -> "Indices":
        """The months from one date to another, each such as "1979" or "1979-01".

        Raises:
            ValueError: if a date cannot be read, or there is no month between them.
        """
        kept = np.ones(len(self.minutes), bool)
        if first:
            kept &= self.minutes >= times.start_of(first, "first")
        if last:
            kept &= self.minutes < times.end_of(last, "last")
        if not kept.any():
            raise ValueError(
                f"{self.path} has no month from {first or 'its beginning'} to "
                f"{last or 'its end'}: it covers {times.period_text(self.minutes)}"
            )
        return dataclasses.replace(
            self, values=self.values[kept], minutes=self.minutes[kept]
        )


def read(path: str, names: Sequence[str], field: str = "path") -> Indices:
    """Reads monthly anomalies of indices.

    Args:
        path: a NetCDF file or Zarr store with a variable along time for each index.
        names: of the variables.
        field: name of the setting that holds the path, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, lacks an index, or its months are not
            consecutive, have missing values, or are not anomalies.
    """
    file = paths.existing(path, field)
    with cf.decoded(cf.opened_stored(file), file) as dataset:
        _check_names(dataset, names, file)
        series = [dataset[name].squeeze() for name in names]
        dims = {dim for array in series for dim in array.dims}
        for name, array in zip(names, series, strict=True):
            if array.ndim != 1 or len(dims) > 1:
                sizes = ", ".join(f"{d} {n}" for d, n in dataset[name].sizes.items())
                raise ValueError(
                    f"{file}: {name!r} has the dimensions {sizes or 'of one number'}; "
                    "expected a series along time, the same for all indices"
                )
            if array.dtype.kind not in NUMBERS:
                raise ValueError(f"{file}: {name!r} is {array.dtype}; expected numbers")
        (dim,) = dims
        found, _ = time_axis.find(dataset, list(names), str(dim), file)
        values = np.stack([cf.loaded(array, file) for array in series], axis=-1)
        units = tuple(str(array.attrs.get("units", "")) for array in series)
    if found is None:
        raise ValueError(
            f"{file} has no times that can be decoded along {dim!r}; expected a time "
            "axis with CF units such as 'days since 1800-01-01'"
        )
    try:
        times.check_monthly(found)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    indices = Indices(
        file, tuple(names), values.astype(np.float64), units, found.minutes
    )
    _check_values(indices)
    return indices


def _check_names(dataset: xr.Dataset, names: Sequence[str], file: Path) -> None:
    absent = [name for name in names if name not in dataset.variables]
    if absent:
        there = sorted(str(name) for name in dataset.data_vars)
        hint = nearest(absent[0], there) if len(absent) == 1 else ""
        raise ValueError(
            f"{file} does not have {', '.join(map(repr, absent))}{hint}; expected the "
            f"indices {', '.join(names)}; its variables are "
            f"{', '.join(there) or 'none'}: rename them, as with xarray's `rename`"
        )


def _check_values(indices: Indices) -> None:
    """Rejects missing months, short series, and what are not anomalies."""
    month, file = times.month_of(indices.minutes), indices.path
    for name, x in zip(indices.names, indices.values.T, strict=True):
        missing = np.flatnonzero(~np.isfinite(x))
        if len(missing):
            raise ValueError(
                f"{file}: {name!r} has {len(missing)} missing "
                f"value{'s' if len(missing) > 1 else ''}, the first in "
                f"{times.month_text(int(month[missing[0]]))}; fill it, or leave out "
                "the months before or after it"
            )
    years = len(month) / YEAR
    if years < LEAST_YEARS:
        raise ValueError(
            f"{file} has {len(month)} months; at least {LEAST_YEARS} years are needed"
        )
    for name, x in zip(indices.names, indices.values.T, strict=True):
        means = np.array([np.mean(x[month % YEAR == m]) for m in range(YEAR)])
        spread = np.std(x - means[month % YEAR])
        if spread == 0:
            raise ValueError(
                f"{file}: {name!r} does not vary beyond its season; expected monthly "
                "anomalies"
            )
        mean, season = abs(np.mean(means)) / spread, np.std(means) / spread
        if mean > MOST_MEAN or season**2 > MOST_SEASON**2 + SAMPLING / years:
            raise ValueError(
                f"{file}: {name!r} is not an anomaly: the means of its calendar months "
                f"are {np.min(means):.3g} to {np.max(means):.3g}, and it varies by "
                f"{spread:.2g} about them; subtract the mean of each calendar month"
            )
