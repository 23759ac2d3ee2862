"""El Nino from sea surface temperature: one data set from three sources.

The data come from one of

- no path: the embedded stochastic twin (`data.enso.twin`), whose best possible
  forecast is known;
- ICAR-ENSO files (`data.enso.icar`), or a folder that TFDS prepared from them
  (`data.enso.icar_tfds`);
- any monthly SST or SST anomalies on a regular grid, NetCDF or Zarr
  (`data.enso.gridded_sst`).

Windows are cut in K of anomaly; the model sees (K - offset) / scale.
"""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data import tfds_source
from earthformer_jax.data.dataset import Channel, Data, Dataset, DataSettings, Display
from earthformer_jax.data.enso import gridded_sst, icar_tfds, twin
from earthformer_jax.data.enso import icar as icar_lib
from earthformer_jax.data.enso.examples import EnsoExamples
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.readers import formats, layout, times
from earthformer_jax.data.readers.grid import Grid, point_weights
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.references import damped_persistence, persistence
from earthformer_jax.data.source import Batch, Source
from earthformer_jax.data.splits import SPLITS, Dates, Period, window_starts
from earthformer_jax.data.task import ForecastNino
from earthformer_jax.data.windows import Windows
from earthformer_jax.metrics.enso import NinoSkill
from earthformer_jax.settings import (
    NOT_NEGATIVE,
    ConfigError,
    at_least,
    choice,
    setting,
    settings_from,
)
from earthformer_jax.statistics import references as statistics
from earthformer_jax.statistics import simulation

NORMALIZATIONS = ("auto", "official", "anomaly")
MIN_OUT_LEN = 3  # the three-month index needs three target months
MANY_WINDOWS = 1_000_000  # of the twin for pre-training; none of them is stored
TWIN_SERIES_MONTHS = 12 * 400  # reference forecasts of the twin are fitted to these

Series = Sequence[np.ndarray]  # `[m, h, w]` anomalies in K, one or more


@dataclasses.dataclass(frozen=True)
class Settings(DataSettings):
    """Settings of the ENSO data.

    Attributes:
        name: "enso".
        path: a NetCDF or HDF5 file, a Zarr store, a pattern that matches many,
            "data/*.nc", a folder with ICAR-ENSO files, or a folder that TFDS prepared
            from them; empty (default): the twin.
        label_path: ICAR-ENSO labels; empty (default): the label file next to the
            training file.
        variable: name of the variable; empty (default): found by standard name, usual
            name or units.
        level: position along a further dimension, "0" or "depth=0".
        axes: axes of HDF5 arrays, in the letters t, h, w: "twh"; empty (default):
            guessed.
        missing: values that mark missing data, in addition to those the file declares.
        region: south, north, west, east in degrees; empty (default): everything.
        train_from: first training month, "YYYY-MM"; empty (default): the first month of
            the data.
        train_until: last training month; empty (default): 70 % of the months.
        validate_until: last validation month; empty (default): a third of the rest.
        test_until: last test month; empty (default): the last month of the data.
        in_len: number of input months.
        out_len: number of target months; the Nino3.4 skill is that of three-month
            means.
        split: how CMIP_train.nc is divided, "paper" or "released".
        normalization: "official" scales the extremes of ICAR-ENSO to 0 and 1;
            "anomaly" divides by `scale`; "auto" is "official" for the twin and
            ICAR-ENSO files, "anomaly" for others.
        scale: in K; 0: the standard deviation of the training months.
        calendar: give the model two more input channels, cosine and sine of the
            calendar month.
        simulated: provide simulated months for pre-training: further months of the
            twin, or of a linear system fitted to the training months of a gridded file
            (none for ICAR-ENSO files, which are simulations themselves).
        twin_train: number of training windows of the twin.
        twin_validation: number of validation windows of the twin.
        twin_test: number of test windows of the twin. All three default to the paper's
            numbers.
    """

    name: str = "enso"
    path: str = ""
    label_path: str = ""
    variable: str = ""
    level: tuple[str, ...] = ()
    axes: str = ""
    missing: tuple[float, ...] = ()
    region: tuple[float, ...] = ()
    train_from: str = ""
    train_until: str = ""
    validate_until: str = ""
    test_until: str = ""
    in_len: int = setting(12, at_least(1))
    out_len: int = setting(14, at_least(MIN_OUT_LEN))
    split: str = setting("paper", choice(*icar_lib.SPLITS))
    normalization: str = setting("auto", choice(*NORMALIZATIONS))
    scale: float = setting(0.0, NOT_NEGATIVE)
    calendar: bool = False
    simulated: bool = True
    twin_train: int = setting(5205, at_least(1))
    twin_validation: int = setting(334, at_least(1))
    twin_test: int = setting(1667, at_least(1))

    def __post_init__(self) -> None:
        """Splits several values given as one string, "-99,-999"."""
        object.__setattr__(self, "level", layout.words(self.level))
        for name in ("missing", "region"):
            given = layout.numbers(getattr(self, name), name)
            object.__setattr__(self, name, given)

    @property
    def dates(self) -> Dates:
        """The settings that divide a file by date."""
        return Dates.of(self)

    def check(self) -> None:
        """Rejects values that are valid individually but not in combination.

        Raises:
            ConfigError: if there are any; the message names them.
        """
        if self.scale and self.normalization == "official":
            raise ConfigError(
                f"scale={self.scale} has no effect with normalization='official'; use "
                "'anomaly', or leave it 0"
            )
        problem = layout.region_problem(self.region)
        if problem:
            raise ConfigError(problem)


# The reference implementation's scaling to 0..1.
OFFICIAL = Affine(scale=icar_lib.SST_MAX - icar_lib.SST_MIN, offset=icar_lib.SST_MIN)
OFFICIAL_UNITS = "(official ICAR-ENSO units, 0..1)^2"


def load(config: Mapping[str, Any]) -> Dataset:
    """Loads the data set that settings describe.

    Args:
        config: any of the fields of `Settings`.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid or a file cannot be used.
    """
    settings = settings_from(Settings, config, "the ENSO data")
    if not settings.path:
        return _twin(settings)
    path = Path(settings.path).expanduser()
    windows: dict[str, Any] = dict(
        split=settings.split, in_len=settings.in_len, out_len=settings.out_len
    )
    if tfds_source.is_prepared(path):
        return _icar(settings, icar_tfds.load(path, settings.dates, **windows))
    icar = icar_lib.find(path)
    if icar is not None:
        labels = icar_lib.find_labels(icar, settings.label_path)
        windows["variable"] = settings.variable
        return _icar(settings, icar_lib.load(icar, labels, settings.dates, **windows))
    if path.is_dir() and not formats.is_zarr(path):
        raise ValueError(
            f"path={path} is a folder, but not a Zarr store, and contains neither "
            f"{' nor '.join(icar_lib.TRAIN_FILES)}; to read several files, use a "
            f"pattern such as '{path}/*.nc'"
        )
    return _gridded(settings)


def _twin(settings: Settings) -> Dataset:
    seed = settings.seed
    grid = Grid(twin.LATITUDE, twin.LONGITUDE, twin.OCEAN_MASK)
    lengths = settings.in_len, settings.out_len
    windows = {
        split: twin.TwinSource(
            split, getattr(settings, f"twin_{split}"), *lengths, seed
        )
        for split in SPLITS
    }
    simulated = None
    if settings.simulated:
        simulated = twin.TwinSource("simulated", MANY_WINDOWS, *lengths, seed)

    def ceiling(kelvin, start_month):
        return twin.ceiling_forecast(kelvin, start_month, settings.out_len)

    return _assemble(
        settings,
        windows=windows,
        training=functools.cache(
            lambda: [twin.training_series(seed, TWIN_SERIES_MONTHS)]
        ),
        first_month=0,
        grid=grid,
        nino_weights=point_weights(grid),
        index_months=3,
        official=True,
        description=f"embedded stochastic ENSO twin (seed {seed}) on {grid}",
        simulated=simulated,
        more_references={"ceiling": ceiling},
    )


def _icar(settings: Settings, data: icar_lib.IcarEnso) -> Dataset:
    index = {"nino34_three_month": data.three_month_index}
    first = data.periods["train"][0] if data.periods else 0
    return _assemble(
        settings,
        windows=_windows(settings, data.cube, data.starts, beside=index),
        training=lambda: data.training,
        first_month=_calendar_month(data.cube, first),
        grid=data.grid,
        nino_weights=data.nino_weights,
        index_months=3,
        official=True,
        land_counts=True,
        dates=_dates(data.cube, data.periods),
        description=data.description,
    )


def _gridded(settings: Settings) -> Dataset:
    lengths = dict(in_len=settings.in_len, out_len=settings.out_len)
    wanted = Wanted(
        variables=layout.words(settings.variable),
        level=settings.level,
        axes=settings.axes,
        missing=settings.missing,
        quantity=gridded_sst.SST,
    )
    data = gridded_sst.load(
        settings.path, settings.dates, wanted, region=settings.region, **lengths
    )
    starts = window_starts(data.cube, data.periods, **lengths)
    training = [data.cube.frames.read(*data.periods["train"])[..., 0]]
    known, more = training, {}
    if data.observed is not None:
        seen = data.observed[slice(*data.periods["train"])]
        known = [np.where(seen | ~data.grid.ocean, training[0], np.float32(np.nan))]
        more["beside"] = {"observed": data.observed[..., None]}
    first_month = _calendar_month(data.cube, 0)
    simulated = None
    if settings.simulated:
        simulated = simulation.simulated_source(
            training,
            data.grid.ocean,
            data.grid.latitude,
            first_month,
            **lengths,
            seed=settings.seed,
        )
    return _assemble(
        settings,
        windows=_windows(settings, data.cube, starts, **more),
        training=lambda: training,
        known=None if data.observed is None else lambda: known,
        first_month=first_month,
        grid=data.grid,
        nino_weights=data.nino_weights,
        index_months=1,
        official=False,
        dates=_dates(data.cube, data.periods),
        description=data.description,
        simulated=simulated,
    )


def _windows(settings: Settings, cube: Cube, starts, **more) -> dict[str, Windows]:
    """Windows in K of each split."""
    lengths = dict(in_len=settings.in_len, out_len=settings.out_len)
    return {
        split: Windows(cube.frames, cube.minutes, starts[split], **lengths, **more)
        for split in SPLITS
    }


def _calendar_month(cube: Cube, frame: int) -> int:
    assert cube.minutes is not None  # `gridded_sst` and `icar` give months dates
    return int(times.month_of(cube.minutes[frame]) % 12)


def _dates(cube: Cube, periods: Mapping[str, Period] | None) -> dict[str, str]:
    """ "1856-01..1979-12" of each split that is a period."""
    return {split: cube.period(*period) for split, period in (periods or {}).items()}


def _assemble(
    settings: Settings,
    *,
    windows: Mapping[str, Source],
    training: Callable[[], Series],
    known: Callable[[], Series] | None = None,
    first_month: int,
    grid: Grid,
    nino_weights: np.ndarray,
    index_months: int,
    official: bool,
    description: str,
    land_counts: bool = False,
    dates: Mapping[str, str] = types.MappingProxyType({}),
    simulated: Source | None = None,
    more_references: Mapping[str, Callable] | None = None,
) -> Dataset:
    """Makes a data set of windows in K from any of the sources.

    Args:
        settings: the settings.
        windows: windows in K of each split.
        training: returns the training months in K; each series begins in `first_month`.
        known: returns the same months, NaN where the ocean was not observed; None: they
            are complete.
        first_month: calendar month, January = 0.
        grid: the cells.
        nino_weights: weights of the monthly index.
        index_months: months that the data set's index is averaged over.
        official: whether "auto" means the official normalisation.
        description: description of the data; windows and units are added here.
        land_counts: whether land is part of loss and MSE, as in the reference
            implementation.
        dates: first and last month of each split, for the description.
        simulated: simulated windows in K.
        more_references: forecasts `(K, start_month) -> K`, in addition to the fitted
            ones.
    """
    complete = known is None
    known = training if known is None else known
    normalization, units = _normalization(settings, known, grid.ocean, official)

    def examples(source: Source) -> EnsoExamples:
        return EnsoExamples(
            source, normalization, nino_weights, settings.calendar, not complete
        )

    out_len = settings.out_len

    @functools.cache
    def damping() -> np.ndarray:  # on first use: training does not need it
        factors = statistics.damping_factors(known(), grid.ocean, out_len)
        return factors[..., None]

    @functools.cache
    def lim() -> Callable:
        return statistics.fit_lim(
            training(), grid.ocean, first_month, out_len, latitude=grid.latitude
        )

    in_kelvin = {"lim": lambda *inputs: lim()(*inputs)} | dict(more_references or {})
    zero = np.array([normalization.encode(0.0)])
    counted = np.ones_like(grid.ocean) if land_counts else grid.ocean
    loss_weights = counted[None, :, :, None].astype(np.float32)
    data = Data(
        name=settings.name,
        description=(
            f"{description}; {settings.in_len} -> {settings.out_len} months; "
            f"{_split_text(windows, dates)}; {units}"
        ),
        train=examples(windows["train"]),
        validation=examples(windows["validation"]),
        test=examples(windows["test"]),
        simulated=None if simulated is None else examples(simulated),
        loss_weights=loss_weights,
        normalization=normalization,
        coordinates={"latitude": grid.latitude, "longitude": grid.longitude},
        display=Display((_channel(normalization),), frame="month", south_first=True),
        # The windows of the twin are independent of each other.
        spans={k: x.spans for k, x in windows.items() if isinstance(x, Windows)},
    )
    task = ForecastNino(
        metric=NinoSkill(
            nino_weights=nino_weights,
            out_len=settings.out_len,
            scale=normalization.scale,
            offset=normalization.offset,
            index_months=index_months,
            pixel_weights=loss_weights,
            mse_in_kelvin=normalization != OFFICIAL,
        ),
        references={
            "persistence": persistence(out_len, channels=1),
            "damped_persistence": damped_persistence(
                out_len, 1, damping, lambda batch: (zero, zero)
            ),
        }
        | {
            name: _in_model_units(forecast, normalization)
            for name, forecast in in_kelvin.items()
        },
        mse_units=OFFICIAL_UNITS if normalization == OFFICIAL else "K^2",
        nino_weights=nino_weights,
        ocean=np.asarray(grid.ocean, bool),
        index_months=index_months,
    )
    return Dataset(data, task)


def _normalization(
    settings: Settings,
    training: Callable[[], Series],
    ocean: np.ndarray,
    official: bool,
) -> tuple[Affine, str]:
    """The selected normalisation and a description of its units."""
    kind = settings.normalization
    if kind == "auto":
        official_units = official and not settings.scale
        kind = "official" if official_units else "anomaly"
    if kind == "official":
        return OFFICIAL, "official ICAR-ENSO units"
    scale = settings.scale
    if not scale:
        cells = [series[:, ocean] for series in training()]
        squares = sum(np.nansum(np.square(x, dtype=np.float64)) for x in cells)
        scale = float(np.sqrt(squares / sum(np.isfinite(x).sum() for x in cells)))
    return Affine(scale), f"anomalies / {scale:.3g} K"


def _channel(normalization: Affine) -> Channel:
    return Channel(
        "SST anomaly",
        "K",
        normalization.scale,
        normalization.offset,
        limits=(-3.0, 3.0),
        colormap="RdBu_r",
    )


def _in_model_units(forecast: Callable, normalization: Affine) -> Callable:
    """Turns a forecast from K to K into one from a batch to model units."""

    def from_batch(batch: Batch) -> np.ndarray:
        sst = np.asarray(batch["inputs"], np.float64)[..., :1]
        kelvin = normalization.decode(sst)
        forecast_kelvin = forecast(kelvin, np.asarray(batch["start_month"]))
        return normalization.encode(forecast_kelvin).astype(np.float32)

    return from_batch


def _split_text(windows: Mapping[str, Source], dates: Mapping[str, str]) -> str:
    """ "train 1856-01..1979-12 (1463 windows), ..." """
    return ", ".join(
        f"{f'{split} {dates[split]}' if dates else split} ({len(source)} windows)"
        for split, source in windows.items()
    )
