"""Anomalies from observed monthly SST: climatology, land, gaps, periods.

Climatology, land and plausibility are estimated from the training months alone.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from earthformer_jax.data.climatology import MONTHS, Climatology, fit_monthly
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.grid import (
    NINO34,
    Grid,
    box_weights,
    check_spacing,
    order_longitude,
)
from earthformer_jax.data.readers.layout import Quantity, Undecided, Wanted
from earthformer_jax.data.readers.series import (
    Cube,
    check_regular,
    in_memory,
    open_cube,
)
from earthformer_jax.data.readers.values import undeclared, units
from earthformer_jax.data.readers.values.missing import number_text
from earthformer_jax.data.splits import NO_DATES, Dates, Period, split_periods

# Share of the months after training that is used for validation without dates.
VALIDATION_SHARE = 1 / 3
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
    has_unit=lambda text: units.temperature_unit(text) in (units.KELVIN, units.CELSIUS),
)
# The variable is found by standard name, usual name or units.
ANY_SST = Wanted(quantity=SST)
# A cell observed in fewer of the training months than this is treated as land.
MIN_OBSERVED = 0.5
# A missing value is carried forward from an observation at most this many months old.
MAX_CARRY = 3
# Mean temperature of the Nino3.4 box, degrees Celsius: the observed months since 1850
# lie between 24 and 30.
BOX_CELSIUS = (20.0, 35.0)
BOX_ANOMALY = 10.0
KELVIN_OFFSET = 273.15
# Larger values, in K or degrees Celsius, are undeclared fill values.
LARGEST_TEMPERATURE = 400.0
MOST_NAMED = 5


@dataclasses.dataclass(frozen=True)
class GriddedSST:
    """Monthly SST anomalies on a regular grid.

    Attributes:
        cube: anomalies in K of all months; zero on land, filled where missing.
        observed: bool `[m, h, w]`, the values over the ocean that were observed; None
            if all of them were.
        grid: the cells.
        nino_weights: weights `[h, w]` of the Nino3.4 area mean.
        periods: first frame and end of each split.
        description: variable, grid and what was done to the values.
    """

    cube: Cube
    observed: np.ndarray | None
    grid: Grid
    nino_weights: np.ndarray
    periods: Mapping[str, Period]
    description: str


def load(
    path: str,
    dates: Dates = NO_DATES,
    wanted: Wanted = ANY_SST,
    *,
    region: tuple[float, ...] = (),
    in_len: int = 1,
    out_len: int = 1,
) -> GriddedSST:
    """Reads monthly SST, or SST anomalies, as anomalies from the training climatology.

    Args:
        path: a file, a Zarr store, or a pattern of files (`readers.series.open_cube`).
        dates: of the splits.
        wanted: variable, level, missing values.
        region: (south, north, west, east) in degrees; () for all.
        in_len: input months.
        out_len: target months.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file or the dates cannot be used; the message says why.
    """
    cube = read(path, wanted, region)
    unseen = _unseen(path, wanted, region) if wanted.missing else ""
    whole = split_periods(cube, dates, in_len, out_len, VALIDATION_SHARE)
    first, last = whole["train"][0], whole["test"][1]
    periods = {name: (a - first, b - first) for name, (a, b) in whole.items()}
    assert cube.times is not None and cube.minutes is not None  # as `read` checks
    minutes = cube.minutes[first:last]
    values = cube.frames.read(first, last)
    training = slice(*periods["train"])
    try:
        _check_values(cube, values, wanted.missing)
        climatology = fit_monthly(values[training], minutes[training])
        ocean = find_ocean(values[training, ..., 0], climatology)
        _check_months(values[..., 0], ocean, minutes)
        latitude, longitude = check_regular(
            cube.latitude, cube.longitude, cube.label, "the Nino3.4 index"
        )
        grid = Grid(latitude, longitude, ocean)
        nino_weights = box_weights(grid)
        kind = _kind(box_mean(values[training, ..., 0], nino_weights))
        anomalies = (values - climatology.at(minutes))[..., 0]
        observed = np.isfinite(anomalies) & ocean
        filled, carried, reset = fill_gaps(anomalies, ocean)
    except Undecided as error:
        raise Undecided(f"{cube.label}: {error}", error.choices) from None
    except ValueError as error:
        raise ValueError(f"{cube.label}: {cube.names[0]!r}: {error}") from None
    text = f"; filled {carried + reset} missing values" if carried + reset else ""
    if text:
        text += f" ({carried} from the months before, {reset} with climatology), which "
        text += "do not count in targets"
    return GriddedSST(
        cube=dataclasses.replace(
            cube,
            frames=ArrayFrames(filled[..., None]),
            segments=np.array([[0, len(values)]]),
            times=cube.times[first:last],
        ),
        observed=observed if text else None,
        grid=grid,
        nino_weights=nino_weights,
        periods=periods,
        description=(
            f"{cube.label}: {kind} {cube.names[0]!r} on {grid}, training climatology "
            f"removed{text}{unseen}" + "".join(f"; {note}" for note in cube.notes)
        ),
    )


def read(path: str, wanted: Wanted = ANY_SST, region: tuple[float, ...] = ()) -> Cube:
    """Monthly temperature in memory, rows northwards, columns eastwards from 0..360.

    Args:
        path: a file, a Zarr store, or a pattern of files (`readers.series.open_cube`).
        wanted: variable, level, missing values.
        region: (south, north, west, east) in degrees; () for all.

    Raises:
        FileNotFoundError: if `path` does not exist.
        ValueError: if it cannot be read or is not a temperature, its grid is not
            regular, or its times are not monthly without gaps.
    """
    cube = open_cube(path, wanted, region=region)
    if len(cube.names) != 1:
        raise ValueError(
            f"{cube.label}: expected one temperature, but {', '.join(cube.names)} were "
            "chosen"
        )
    unit = units.temperature_unit(cube.units[0])
    if unit in (units.FAHRENHEIT, units.OTHER):
        remedy = ": write (x - 32) / 1.8" if unit == units.FAHRENHEIT else ""
        raise ValueError(
            f"{cube.label}: {cube.names[0]!r} has units {cube.units[0]!r}; expected K "
            f"or degC{remedy}"
        )
    latitude, longitude = check_regular(
        cube.latitude, cube.longitude, cube.label, "the Nino3.4 index"
    )
    if cube.times is None:
        raise ValueError(
            f"{cube.label} has no times that can be decoded; expected a time axis with "
            "CF units such as 'days since 1800-01-01'"
        )
    try:
        times.check_monthly(cube.times)
        check_spacing(latitude, "latitude")
        order, longitude = order_longitude(longitude)
    except ValueError as error:
        raise ValueError(f"{cube.label}: {error}") from None
    cube = in_memory(cube, math.inf)
    frames = ArrayFrames(cube.frames.read(0, cube.frames.shape[0])[:, :, order])
    return dataclasses.replace(cube, frames=frames, longitude=longitude)


def find_ocean(training: np.ndarray, climatology: Climatology) -> np.ndarray:
    """Cells `[h, w]` with enough values to learn from.

    A cell counts if at least half of its training months are observed, including every
    calendar month, and its values are not all the same.

    Args:
        training: `[m, h, w]`, NaN where missing.
        climatology: its monthly means.

    Raises:
        ValueError: if no cell counts, or a calendar month is never observed.
    """
    if len(training) < MONTHS:
        raise ValueError(
            f"the training period has {len(training)} months; the climatology needs "
            f"at least {MONTHS}"
        )
    observed = np.isfinite(training)
    if not observed.any():
        raise ValueError("every value of the training period is missing (NaN)")
    enough = observed.mean(axis=0) >= MIN_OBSERVED
    enough &= np.isfinite(climatology.coefficients[..., 0]).all(axis=0)
    largest = np.where(observed, training, -np.inf).max(axis=0)
    smallest = np.where(observed, training, np.inf).min(axis=0)
    ocean = enough & (largest > smallest)
    if not ocean.any():
        raise ValueError(
            "no cell has changing values in half of the training months and in every "
            "calendar month"
        )
    return ocean


def box_mean(values: np.ndarray, weights: np.ndarray) -> float:
    """The mean over time and a box, of the observed values.

    Args:
        values: `[m, h, w]`, NaN where missing.
        weights: `[h, w]` of the box.
    """
    known = np.isfinite(values)
    total = np.tensordot(np.where(known, values, 0), weights, 2).sum()
    return float(total / np.tensordot(known, weights, 2).sum())


def fill_gaps(anomalies: np.ndarray, ocean: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Fills missing inputs from the past only, so that targets do not leak.

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


def _unseen(path: str, wanted: Wanted, region: tuple[float, ...]) -> str:
    """The part of a description that names missing values which occur nowhere."""
    declared = read(path, dataclasses.replace(wanted, missing=()), region)
    values = declared.frames.read(0, declared.frames.shape[0])
    names, codings = declared.names, declared.codings
    numbers = undeclared.unseen(values, names, codings, wanted.missing)
    return "".join(
        f"; missing={number_text(x)}: no value of {names[0]!r} is that" for x in numbers
    )


def _check_values(cube: Cube, values: np.ndarray, missing: Sequence[float]) -> None:
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


def _check_months(values: np.ndarray, ocean: np.ndarray, minutes: np.ndarray) -> None:
    """Rejects months whose values are all missing or all equal."""
    cells = values[:, ocean]
    observed = np.isfinite(cells)
    largest = np.where(observed, cells, -np.inf).max(axis=1)
    smallest = np.where(observed, cells, np.inf).min(axis=1)
    remedy = "set `train_from` or `test_until` to leave them out"
    empty = ~observed.any(axis=1)
    if empty.any():
        raise ValueError(
            f"{empty.sum()} of {len(values)} months have no values "
            f"({_months_text(minutes[empty])}); {remedy}, or fill them in the file"
        )
    flat = largest == smallest
    if flat.any() and cells.shape[1] > 1:
        raise ValueError(
            f"{flat.sum()} of {len(values)} months have the same value everywhere "
            f"({largest[np.argmax(flat)]:g} in {_months_text(minutes[flat])}): the "
            f"file is damaged, or these are missing months; {remedy}"
        )


def _months_text(minutes: np.ndarray, most: int = 5) -> str:
    """The first few of some months, and how many more there are."""
    named = ", ".join(map(times.month_text, times.month_of(minutes[:most])))
    return named + (f" and {len(minutes) - most} more" if len(minutes) > most else "")


def _kind(box_mean: float) -> str:
    """The kind of values, inferred from their training mean over the Nino3.4 box.

    Raises:
        ValueError: if they are neither anomalies nor temperatures in K or degC.
    """
    if abs(box_mean) < BOX_ANOMALY:
        return "anomalies"
    low, high = BOX_CELSIUS
    for unit, offset in ((units.CELSIUS, 0.0), (units.KELVIN, KELVIN_OFFSET)):
        if low <= box_mean - offset <= high:
            return f"SST in {unit}"
    raise ValueError(
        f"the mean over {NINO34} is {box_mean:g}; expected an anomaly near 0 or a sea "
        f"surface temperature of {low:g} to {high:g} degC "
        f"({low + KELVIN_OFFSET:g} to {high + KELVIN_OFFSET:g} K)"
    )
