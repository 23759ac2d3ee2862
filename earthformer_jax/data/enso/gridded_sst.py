"""Anomalies from observed monthly SST: climatology, land, gaps, periods.

Whatever is estimated here (climatology, land, plausibility) is estimated from the
training months alone.
"""

import dataclasses
import math

import numpy as np

from earthformer_jax.data.enso.windows import MonthlySeries, Periods, split_periods
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.grid import (
    NINO34,
    Grid,
    box_weights,
    check_spacing,
    order_longitude,
)
from earthformer_jax.data.readers.layout import Quantity, Wanted
from earthformer_jax.data.readers.months import format_month, format_months
from earthformer_jax.data.readers.series import (
    Cube,
    check_regular,
    in_memory,
    open_cube,
)

# Units whose degree is one kelvin, in lower case.
KELVIN = ("k", "kelvin", "degk", "deg_k", "degree_kelvin", "degrees_kelvin")
CELSIUS = ("c", "°c", "degc", "deg_c", "celsius", "degree_c", "degrees_c")
CELSIUS += ("degree_celsius", "degrees_celsius", "deg c", "degrees c")
SST = Quantity(
    name="sea surface temperature",
    standard_names=(
        "sea_surface_temperature",
        "sea_surface_temperature_anomaly",
        "surface_temperature_anomaly",
        "sea_surface_foundation_temperature",
        "sea_surface_skin_temperature",
        "sea_surface_subskin_temperature",
        "surface_temperature",
    ),
    names=("sst", "ssta", "tos", "sst_anomaly", "anom", "analysed_sst")
    + ("sea_surface_temperature",),
    units=KELVIN + CELSIUS,
)
# A cell observed in fewer of the training months than this is treated as land.
MIN_OBSERVED = 0.5
# A missing value is carried forward from an observation at most this many months old.
MAX_CARRY = 3
# Mean temperature of the Nino3.4 box, degrees Celsius: the observed months since 1850
# lie between 24 and 30.
BOX_CELSIUS = (20.0, 35.0)
BOX_ANOMALY = 10.0
KELVIN_OFFSET = 273.15
# Larger values, in K or degrees Celsius, are fill values that nobody declared.
LARGEST_TEMPERATURE = 400.0


@dataclasses.dataclass(frozen=True)
class GriddedSST:
    """Monthly SST anomalies on a regular grid.

    Attributes:
        series: anomalies in K from the first training to the last test month; zero on
            land.
        grid: the cells.
        nino_weights: weights `[h, w]` of the Nino3.4 area mean.
        periods: training, validation and test months.
        description: variable, grid and what was done to the values.
    """

    series: MonthlySeries
    grid: Grid
    nino_weights: np.ndarray
    periods: Periods
    description: str


def load(
    path: str,
    *,
    variable: str = "",
    train_from: str = "",
    train_until: str = "",
    validate_until: str = "",
    test_until: str = "",
    out_len: int = 1,
) -> GriddedSST:
    """Reads monthly SST, or SST anomalies, as anomalies from the training climatology.

    Args:
        path: a file, a Zarr store, or a pattern of files (`readers.series.open_cube`).
        variable: variable name, or empty to find it.
        train_from: first training month, "YYYY-MM"; default: the file's first.
        train_until: last training month.
        validate_until: last validation month.
        test_until: last test month; default: the file's last.
        out_len: target months; default periods hold at least one window.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file or the dates cannot be used; the message says why.
    """
    cube = read(path, variable)
    file_first = int(times.month_of(cube.minutes[0])) + 12 * 1970
    periods = split_periods(
        file_first,
        file_first + cube.frames.shape[0] - 1,
        train_from=train_from,
        train_until=train_until,
        validate_until=validate_until,
        test_until=test_until,
        min_months=out_len,
    )
    first, last = periods.train[0], periods.test[1]
    values = cube.frames.read(first - file_first, last - file_first + 1)[..., 0]
    training = values[: periods.train[1] - first + 1]
    try:
        _check_magnitude(values)
        ocean = find_ocean(training, first)
        _check_months(values, ocean, first)
        grid = Grid(cube.latitude, cube.longitude, ocean)
        nino_weights = box_weights(grid)
        kind = _kind(np.tensordot(np.nan_to_num(training), nino_weights, 2).mean())
        anomalies, carried, reset = fill_gaps(
            values - climatology(training)[(np.arange(len(values))) % 12], ocean
        )
    except ValueError as error:
        raise ValueError(f"{cube.label}: {cube.names[0]!r}: {error}") from None
    filled = f"; filled {carried + reset} missing values" if carried + reset else ""
    if filled:
        filled += f" ({carried} from the months before, {reset} with climatology)"
    return GriddedSST(
        series=MonthlySeries(anomalies, first),
        grid=grid,
        nino_weights=nino_weights,
        periods=periods,
        description=(
            f"{cube.label}: {kind} {cube.names[0]!r} on {grid}, training climatology "
            f"removed{filled}"
        ),
    )


def read(path: str, variable: str = "") -> Cube:
    """Monthly temperature in memory, rows northwards, columns eastwards from 0..360.

    Args:
        path: a file, a Zarr store, or a pattern of files (`readers.series.open_cube`).
        variable: its name; empty to find it by standard name, usual name or units.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if it cannot be read, is not a temperature, its grid is not regular
            or its times are not months without gaps.
    """
    cube = open_cube(path, Wanted((variable,) if variable else (), quantity=SST))
    units = cube.units[0]
    if units and units.lower() not in SST.units:
        raise ValueError(
            f"{cube.label}: {cube.names[0]!r} has units {units!r}; expected K or degC"
        )
    check_regular(cube.latitude, cube.longitude, cube.label, "the Nino3.4 index")
    if cube.times is None:
        raise ValueError(
            f"{cube.label} has no times that can be decoded; expected a time axis with "
            "CF units such as 'days since 1800-01-01'"
        )
    try:
        times.check_monthly(cube.times)
        check_spacing(cube.latitude, "latitude")
        order, longitude = order_longitude(cube.longitude)
    except ValueError as error:
        raise ValueError(f"{cube.label}: {error}") from None
    cube = in_memory(cube, math.inf)
    frames = ArrayFrames(cube.frames.values[:, :, order])
    return dataclasses.replace(cube, frames=frames, longitude=longitude)


def climatology(training: np.ndarray) -> np.ndarray:
    """Mean of each calendar month.

    Args:
        training: `[m, h, w]`, NaN where missing.

    Returns:
        `[12, h, w]`; entry k is the calendar month of field k. NaN where that month was
        never observed.
    """
    months, h, w = training.shape
    padded = np.full((-(-months // 12) * 12, h, w), np.nan, training.dtype)
    padded[:months] = training
    by_year = padded.reshape(-1, 12, h, w)
    counts = np.isfinite(by_year).sum(axis=0)
    sums = np.nansum(by_year, axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, sums / counts, np.nan).astype(np.float32)


def find_ocean(training: np.ndarray, first_month: int) -> np.ndarray:
    """Cells `[h, w]` with values to learn from.

    A cell counts when at least half of its training months are observed, every
    calendar month among them, and its values are not all the same.

    Args:
        training: `[m, h, w]`, NaN where missing.
        first_month: month number of the first field, for the message.

    Raises:
        ValueError: if no cell counts, or a calendar month is never observed.
    """
    if len(training) < 12:
        raise ValueError(
            f"the training period has {len(training)} months from "
            f"{format_month(first_month)}; the climatology needs 12 or more"
        )
    observed = np.isfinite(training)
    if not observed.any():
        raise ValueError("every value of the training period is missing (NaN)")
    enough = observed.mean(axis=0) >= MIN_OBSERVED
    enough &= np.isfinite(climatology(training)).all(axis=0)
    largest = np.where(observed, training, -np.inf).max(axis=0)
    smallest = np.where(observed, training, np.inf).min(axis=0)
    ocean = enough & (largest > smallest)
    if not ocean.any():
        raise ValueError(
            "no cell has changing values in half of the training months and in every "
            "calendar month"
        )
    return ocean


def fill_gaps(anomalies: np.ndarray, ocean: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Fills missing anomalies from the past only, so that no input knows its target.

    The last observed anomaly is carried forward up to `MAX_CARRY` months; after that,
    and at the start, the anomaly is 0 (climatology). Land becomes 0.

    Args:
        anomalies: float32 `[m, h, w]` in K, NaN where missing.
        ocean: bool `[h, w]`.

    Returns:
        anomalies without NaN, the number carried forward and the number set to 0.
    """
    missing = ~np.isfinite(anomalies) & ocean
    months = np.arange(len(anomalies))[:, None, None]
    last_seen = np.maximum.accumulate(np.where(missing, -1, months), axis=0)
    carry = missing & (last_seen >= 0) & (months - last_seen <= MAX_CARRY)
    carried = np.take_along_axis(anomalies, np.maximum(last_seen, 0), axis=0)
    known = np.where(carry, carried, np.where(missing, 0, anomalies))
    filled = np.where(ocean, known, 0).astype(np.float32)
    return filled, int(carry.sum()), int(missing.sum() - carry.sum())


def _check_magnitude(values: np.ndarray) -> None:
    """Refuses undeclared fill values."""
    largest = np.nanmax(np.abs(values), initial=0.0)
    if largest > LARGEST_TEMPERATURE:
        value = values.flat[np.nanargmax(np.abs(values))]
        raise ValueError(
            f"the value {value:g} is no temperature in K or degC; if it marks missing "
            "values, say so in the file's _FillValue attribute"
        )


def _check_months(values: np.ndarray, ocean: np.ndarray, first: int) -> None:
    """Refuses months without a value, or with one value everywhere."""
    cells = values[:, ocean]
    empty = ~np.isfinite(cells).any(axis=1)
    if empty.any():
        months = first + np.flatnonzero(empty)
        raise ValueError(
            f"{len(months)} of {len(values)} months have no value at all "
            f"({format_months(months)}); set config.data.train_from or test_until so "
            "that they are left out, or fill them in the file"
        )
    if cells.shape[1] < 2:
        return
    flat = np.nanmax(cells, axis=1) == np.nanmin(cells, axis=1)
    if flat.any():
        months = first + np.flatnonzero(flat)
        value = np.nanmax(cells[np.argmax(flat)])
        raise ValueError(
            f"{len(months)} of {len(values)} months hold one value everywhere "
            f"({value:g} in {format_months(months)}): the file is damaged, or these "
            "are missing months; set config.data.train_from or test_until so that they "
            "are left out"
        )


def _kind(box_mean: float) -> str:
    """What the values are, from their training mean over the Nino3.4 box.

    Raises:
        ValueError: if they are neither anomalies nor temperatures in K or degC.
    """
    if abs(box_mean) < BOX_ANOMALY:
        return "anomalies"
    low, high = BOX_CELSIUS
    for units, offset in (("degC", 0.0), ("K", KELVIN_OFFSET)):
        if low <= box_mean - offset <= high:
            return f"SST in {units}"
    raise ValueError(
        f"the mean over {NINO34} is {box_mean:g}; expected an anomaly near 0 or a sea "
        f"surface temperature of {low:g} to {high:g} degC "
        f"({low + KELVIN_OFFSET:g} to {high + KELVIN_OFFSET:g} K)"
    )
