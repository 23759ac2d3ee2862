"""Anomalies from observed monthly SST, NetCDF or Zarr, on a regular grid."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from earthformer_jax.data.enso import base as base_lib
from earthformer_jax.data.enso.base import ANOMALIES, Base
from earthformer_jax.data.enso.checks import check_months, check_values
from earthformer_jax.data.forecasting import fitting
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.grid import Grid, check_spacing, order_longitude
from earthformer_jax.data.readers.joining.matching import renamed_note
from earthformer_jax.data.readers.layout import NoVariable, Quantity, Undecided, Wanted
from earthformer_jax.data.readers.series import (
    Cube,
    check_regular,
    in_memory,
    open_cube,
)
from earthformer_jax.data.readers.values import undeclared, units
from earthformer_jax.data.readers.values.missing import number_text
from earthformer_jax.data.splits import (
    NO_DATES,
    NO_FOLD,
    Dates,
    Fold,
    Period,
    parted,
    split_periods,
    tests_before,
    window_starts,
)
from earthformer_jax.data.state import DataState, Layout, series

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
BLOCK = 12  # months of a finer grid that are checked at a time
PAST = 120  # months before an early test period, for what is remembered of them
REMEDY = "set `train_from` or `test_until` to leave them out"


@dataclasses.dataclass(frozen=True)
class GriddedSST:
    """Monthly SST anomalies on a regular grid.

    Attributes:
        cube: anomalies in K of all months; zero on land, filled where missing.
        observed: bool `[m, h, w]`, the values over the ocean that were observed; None
            if all of them were.
        base: what they are departures from.
        periods: first frame and end of each split.
        starts: per split, first input frame `[n]` of its windows.
        checksums: per split, of the months in the file.
        description: variable, grid and what was done to the values.
    """

    cube: Cube
    observed: np.ndarray | None
    base: Base
    periods: Mapping[str, Period]
    starts: Mapping[str, np.ndarray]
    checksums: Mapping[str, np.ndarray]
    description: str

    @property
    def grid(self) -> Grid:
        """The cells."""
        return self.base.grid

    @property
    def nino_weights(self) -> np.ndarray:
        """Weights `[h, w]` of the Nino3.4 area mean."""
        return self.base.nino_weights


def load(
    path: str,
    dates: Dates = NO_DATES,
    wanted: Wanted = ANY_SST,
    *,
    region: tuple[float, ...] = (),
    in_len: int = 1,
    out_len: int = 1,
    fold: Fold = NO_FOLD,
) -> GriddedSST:
    """Reads monthly SST, or SST anomalies, as anomalies from the training climatology.

    Args:
        path: a file, a Zarr store, or a pattern of files (`readers.series.open_cube`).
        dates: of the splits.
        wanted: variable, level, missing values.
        region: (south, north, west, east) in degrees; () for all.
        in_len: input months.
        out_len: target months.
        fold: the block of the training period to validate on. Climatology and land are
            those of the whole period, so that all folds are in the same units.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file or the dates cannot be used; the message says why.
    """
    cube = read(path, wanted, region)
    note = _unseen(path, wanted, region) if wanted.missing else ""
    periods = split_periods(cube, dates, in_len, out_len, VALIDATION_SHARE, fold)
    cube, periods = _cropped(cube, periods, _first_month(periods, in_len))
    training = slice(*periods["train"])
    values, minutes = values_of(cube), minutes_of(cube)
    with naming(cube):
        check_values(cube, values, wanted.missing)
        base = base_lib.fit(values[training], minutes[training], *cells_of(cube))
    starts = window_starts(cube, periods, in_len, out_len)
    return _in_kelvin(cube, base, base.kind, periods, starts, note)


def load_trained(
    path: str,
    state: DataState,
    base: Base,
    wanted: Wanted = ANY_SST,
    *,
    in_len: int,
    out_len: int,
    test_until: str = "",
) -> GriddedSST:
    """Reads what `load` does for a trained model: anomalies from its climatology.

    Args:
        path: a file, a Zarr store, or a pattern of files.
        state: of the data that the model was trained on.
        base: what anomalies were departures from.
        wanted: variable, level, missing values.
        in_len: input months.
        out_len: target months.
        test_until: the last date of testing; empty: the last of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be used, does not fit the state, or has no window
            that the model has not learned from.
    """
    cube = read(path, wanted, cells=state.layout)
    note = _unseen(path, wanted, cells=state.layout) if wanted.missing else ""
    periods, starts = series.windows(
        cube, state, in_len=in_len, out_len=out_len, stride=1, test_until=test_until
    )
    # The months of the training begin where its anomalies did.
    first = _first_month(periods, in_len) if len(starts["train"]) else 0
    starts = {split: frames - first for split, frames in starts.items()}
    cube, periods = _cropped(cube, periods, first)
    with naming(cube):
        check_values(cube, values_of(cube), wanted.missing)
        kind = base_lib.kind_of(values_of(cube), base.nino_weights)
    return _in_kelvin(cube, base, kind, periods, starts, note, state)


def read(
    path: str,
    wanted: Wanted = ANY_SST,
    region: tuple[float, ...] = (),
    *,
    gaps: bool = False,
    cells: Layout | None = None,
) -> Cube:
    """Monthly temperature in memory, rows northwards, columns eastwards from 0..360.

    Args:
        path: a file, a Zarr store, or a pattern of files (`readers.series.open_cube`).
        wanted: variable, level, missing values.
        region: (south, north, west, east) in degrees; () for all.
        gaps: whether months may be missing between the segments of the series.
        cells: of a training, which are cut out of a larger region or a finer grid;
            None: all there are.

    Raises:
        FileNotFoundError: if `path` does not exist.
        ValueError: if it cannot be read or is not a temperature, its grid is not
            regular, or its times are not monthly without gaps.
    """
    cube = _open(path, wanted, region, cells)
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
    cells_of(cube)
    if cube.times is None:
        raise ValueError(
            f"{cube.label} has no times that can be decoded; expected a time axis with "
            "CF units such as 'days since 1800-01-01'"
        )
    try:
        for first, stop in cube.segments if gaps else [(0, len(cube.times))]:
            times.check_monthly(cube.times[first:stop])
        if cells is None:
            return _ordered(cube)
    except ValueError as error:
        raise ValueError(f"{cube.label}: {error}") from None
    return _fitted(cube, cells, wanted.missing)


def _open(
    path: str, wanted: Wanted, region: tuple[float, ...], cells: Layout | None
) -> Cube:
    """The series, not read yet; its variable may have another name than in training."""
    trained = () if cells is None else cells.channels
    try:
        return open_cube(path, wanted, region=region)
    except Undecided:  # of several, the one that was trained on
        if not trained or wanted.variables:
            raise
        try:
            named = dataclasses.replace(wanted, variables=trained)
            return open_cube(path, named, region=region)
        except NoVariable:
            pass
        raise
    except NoVariable:  # of the name in the config of the training
        if not trained or wanted.variables != trained:
            raise
        cube = open_cube(path, dataclasses.replace(wanted, variables=()), region=region)
        note = renamed_note(trained[0], cube.names[0])
        return dataclasses.replace(cube, notes=(*cube.notes, note))


def _ordered(cube: Cube) -> Cube:
    """The series in memory, columns eastwards.

    Raises:
        ValueError: if rows or columns are not evenly spaced.
    """
    latitude, longitude = cells_of(cube)
    check_spacing(latitude, "latitude")
    order, longitude = order_longitude(longitude)
    cube = in_memory(cube, math.inf)
    frames = ArrayFrames(values_of(cube)[:, :, order])
    return dataclasses.replace(cube, frames=frames, longitude=longitude)


def _fitted(cube: Cube, cells: Layout, missing: Sequence[float]) -> Cube:
    """The cells of a training in memory.

    Raises:
        ValueError: if they are not among those of the series.
    """
    layout = dataclasses.replace(
        cells,
        channels=cube.names,
        units=cube.units,
        standard_names=cube.standard_names,
        frame="",
    )
    cube = fitting.fit(cube, layout)
    assert not isinstance(cube.frames, ArrayFrames)  # no values have been read so far
    whole, count = cube.frames.unthinned(), cube.frames.shape[0]
    if whole.shape != cube.frames.shape:  # a fill value would be lost in a mean
        for first in range(0, count, BLOCK):
            with naming(cube):
                check_values(
                    cube, whole.read(first, min(first + BLOCK, count)), missing
                )
    return in_memory(cube, math.inf)


def cells_of(cube: Cube) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes `[h]` and longitudes `[w]` of a regular grid.

    Raises:
        ValueError: if the grid is not regular.
    """
    what = "the Nino3.4 index"
    return check_regular(cube.latitude, cube.longitude, cube.label, what)


def values_of(cube: Cube) -> np.ndarray:
    """All months `[m, h, w, 1]` of a series in memory."""
    return cube.frames.read(0, cube.frames.shape[0])


def minutes_of(cube: Cube) -> np.ndarray:
    """The times `[m]` of the months, which `read` makes sure of."""
    assert cube.minutes is not None
    return cube.minutes


@contextlib.contextmanager
def naming(cube: Cube) -> Iterator[None]:
    """Adds the file and its variable to the messages of errors."""
    try:
        yield
    except Undecided as error:
        raise Undecided(f"{cube.label}: {error}", error.choices) from None
    except ValueError as error:
        raise ValueError(f"{cube.label}: {cube.names[0]!r}: {error}") from None


def _first_month(periods: Mapping[str, Period], in_len: int) -> int:
    """The month that the data begin with: of training, or before those of testing."""
    if tests_before(periods):
        return max(periods["test"][0] - in_len - PAST, 0)
    return periods["train"][0]


def _cropped(
    cube: Cube, periods: Mapping[str, Period], first: int
) -> tuple[Cube, dict[str, Period]]:
    """The months from the first to the last of a split, and the periods among them.

    Where testing comes before training, the months of training are a segment of their
    own.
    """
    last = max(stop for _, stop in periods.values())
    assert cube.times is not None  # as `read` checks
    cut = dataclasses.replace(
        cube,
        frames=ArrayFrames(cube.frames.read(first, last)),
        segments=np.array([[0, last - first]]),
        times=cube.times[first:last],
    )
    shifted = {
        k: (a - first, b - first) if a < b else (0, 0) for k, (a, b) in periods.items()
    }
    return parted(cut, shifted), shifted


def _in_kelvin(
    cube: Cube,
    base: Base,
    kind: str,
    periods: Mapping[str, Period],
    starts: Mapping[str, np.ndarray],
    note: str,
    state: DataState | None = None,
) -> GriddedSST:
    """Converts values of a kind to anomalies without gaps.

    Raises:
        ValueError: if they cannot be converted, or a month has no values.
    """
    ocean, minutes = base.grid.ocean, minutes_of(cube)
    with naming(cube):
        check_months(values_of(cube)[..., 0], ocean, minutes, REMEDY)
        anomalies = anomalies_of(cube, base, kind, state)
    observed = np.isfinite(anomalies) & ocean
    filled, carried, reset = base_lib.fill_gaps(anomalies, ocean)
    text = f"; filled {carried + reset} missing values" if carried + reset else ""
    if text:
        text += f" ({carried} from the months before, {reset} with climatology), which "
        text += "do not count in targets"
    what = kind if kind == ANOMALIES else f"SST in {kind}"
    return GriddedSST(
        cube=dataclasses.replace(cube, frames=ArrayFrames(filled[..., None])),
        observed=observed if text else None,
        base=base,
        periods=periods,
        starts=starts,
        checksums=series.checksums_of(cube, periods),
        description=(
            f"{cube.label}: {what} {cube.names[0]!r} on {base.grid}, training "
            f"climatology removed{text}{note}"
            + "".join(f"; {note}" for note in cube.notes)
        ),
    )


def anomalies_of(
    cube: Cube, base: Base, kind: str, state: DataState | None
) -> np.ndarray:
    """Anomalies `[m, h, w]` in K of values of a kind, NaN where missing.

    Raises:
        ValueError: if they cannot be converted, or are anomalies of another base period
            than those of the training that `state` is of.
    """
    minutes = minutes_of(cube)
    anomalies = base.anomalies(base.of_this_kind(values_of(cube), kind), minutes)
    if state is not None and "train" in state.minutes:
        train = state.minutes["train"]
        base_lib.check_base_period(base, anomalies, minutes, train)
    return anomalies


def _unseen(
    path: str,
    wanted: Wanted,
    region: tuple[float, ...] = (),
    cells: Layout | None = None,
) -> str:
    """The part of a description that names missing values which occur nowhere."""
    declared = dataclasses.replace(wanted, missing=())
    declared = read(path, declared, region, cells=cells)
    values = declared.frames.read(0, declared.frames.shape[0])
    names, codings = declared.names, declared.codings
    numbers = undeclared.unseen(values, names, codings, wanted.missing)
    return "".join(
        f"; missing={number_text(x)}: no value of {names[0]!r} is that" for x in numbers
    )
