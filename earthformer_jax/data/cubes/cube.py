"""A data set from any time series of fields: climate cubes and the user's files.

The files at `path` are opened as a series (`data.readers.series`), divided by date and
cut into windows (`data.splits`, `data.windows`), normalised by statistics of the
training period (`data.cubes.statistics`), and compared with reference forecasts
(`data.cubes.references`). Without a path the series is the embedded climate twin
(`data.cubes.twin`).
"""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

import numpy as np

from earthformer_jax.data.augment import Augment
from earthformer_jax.data.cubes import checks, trained, twin
from earthformer_jax.data.cubes.references import Fitted, fit, references
from earthformer_jax.data.cubes.statistics import Normalizer, fit_normalizer
from earthformer_jax.data.dataset import Channel, Data, Dataset, DataSettings, Display
from earthformer_jax.data.leaks import without_repeats
from earthformer_jax.data.readers import layout, series, times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.layout import Wanted, nearest
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.splits import (
    SPLITS,
    Dates,
    Period,
    split_periods,
    window_starts,
)
from earthformer_jax.data.state import DataState
from earthformer_jax.data.task import EmbedSeries, ForecastFrames
from earthformer_jax.data.windows import HALF_DAY, WholeSeries, Windows, in_range
from earthformer_jax.metrics.channels import ChannelScores
from earthformer_jax.metrics.sums import MAX_LEADS
from earthformer_jax.settings import ConfigError, at_least, setting

MSE_UNITS = "(standard deviations)^2"
MIN_AREA = 1e-3  # least weight of a cell, so that those at a pole still count


@dataclasses.dataclass(frozen=True)
class Settings(DataSettings):
    """Settings of a climate cube or of the user's files.

    Attributes:
        name: "climate" or "custom".
        path: a NetCDF, HDF5 or .npy file, a Zarr store, or a pattern that matches many,
            "data/*.nc"; empty (default): the climate twin.
        variables: names of the variables, "T,P"; empty (default): all that share a
            grid.
        targets: variables to forecast; empty (default): all of them.
        level: position along every further dimension, "500" or "level=500"; several
            levels, "500,850", become several variables.
        axes: axes of HDF5 and .npy arrays, in the letters n (sequences), t, h, w, c
            (channels): "thw", "nhwt"; empty (default): guessed.
        missing: values that mark missing data, in addition to those the file declares;
            with NaN among them, no others are looked for.
        region: south, north, west, east in degrees; empty (default): everything.
        space_step: n × n cells are averaged into one.
        time_step: use every n-th frame.
        in_len: number of input frames.
        out_len: number of target frames; 0: the targets are the inputs, for
            autoencoders.
        stride: frames from the start of one window to the start of the next.
        train_from: first training date, "YYYY-MM-DD" or shorter; empty (default): the
            first date of the data.
        train_until: last training date; empty (default): 70 % of the frames.
        validate_until: last validation date; empty (default): half of the rest.
        test_until: last test date; empty (default): the last date of the data.
        anomalies: remove the mean annual and daily cycles of every cell, estimated from
            the training period, rather than only the mean of every variable.
        calendar: give the model the cosine and sine of the season, and of the time of
            day if frames are less than half a day apart.
        flip: flip training examples vertically and horizontally at random, for fields
            without a preferred orientation, such as radar images.
        area_weights: weight cells by cos(latitude) in loss and scores if the latitude
            depends only on the row.
        twin_years: length of the climate twin in years.
    """

    name: str = "custom"
    path: str = ""
    variables: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    axes: str = ""
    missing: tuple[float, ...] = ()
    region: tuple[float, ...] = ()
    space_step: int = setting(1, at_least(1))
    time_step: int = setting(1, at_least(1))
    in_len: int = setting(10, at_least(1))
    out_len: int = setting(5, at_least(0))
    stride: int = setting(1, at_least(1))
    train_from: str = ""
    train_until: str = ""
    validate_until: str = ""
    test_until: str = ""
    anomalies: bool = False
    calendar: bool = False
    flip: bool = False
    area_weights: bool = True
    twin_years: int = setting(12, at_least(3, 1000))

    def __post_init__(self) -> None:
        """Splits several names or numbers given as one string, "T,P"."""
        for name in ("variables", "targets", "level"):
            object.__setattr__(self, name, layout.words(getattr(self, name)))
        for name in ("missing", "region"):
            given = layout.numbers(getattr(self, name), name)
            object.__setattr__(self, name, given)

    @property
    def restores(self) -> bool:
        """Whether the targets are the inputs."""
        return self.out_len == 0

    @property
    def only_declared(self) -> bool:
        """Whether the user says that no undeclared value marks missing data."""
        return any(map(math.isnan, self.missing))

    @property
    def dates(self) -> Dates:
        """The settings that divide the series."""
        names = [field.name for field in dataclasses.fields(Dates)]
        return Dates(**{name: str(getattr(self, name)) for name in names})

    def check(self) -> None:
        """Rejects values that are valid individually but not in combination.

        Raises:
            ConfigError: if there are any; the message names them.
        """
        scored = "out_len" if self.out_len else "in_len"
        if getattr(self, scored) > MAX_LEADS:
            raise ConfigError(
                f"{scored}={getattr(self, scored)}: expected at most {MAX_LEADS} "
                "frames; take every n-th frame with `time_step`"
            )
        if self.restores and self.targets:
            raise ConfigError(
                f"targets={','.join(self.targets)} has no effect with out_len=0, "
                "where all variables are restored; choose them with `variables`"
            )
        for name in ("variables", "targets"):
            names = getattr(self, name)
            if len(set(names)) < len(names):
                raise ConfigError(f"{name}={','.join(names)} repeats a name")
        problem = layout.region_problem(self.region)
        if problem:
            raise ConfigError(problem)


def load(settings: Settings, state: DataState | None = None) -> Dataset:
    """Makes the data set.

    Args:
        settings: checked settings.
        state: of the data that a model was trained on, whose statistics and splits are
            used; None: they are those of the series.

    Raises:
        FileNotFoundError: if `settings.path` does not exist.
        ValueError: if a file, a date or a setting cannot be used; the message says why.
    """
    cube, targets = open_series(settings)
    lengths = dict(in_len=settings.in_len, out_len=settings.out_len)
    if settings.restores:
        lengths = dict(in_len=0, out_len=settings.in_len)
    cube, periods, starts = _divide(settings, cube, lengths, state)
    if settings.path and not settings.only_declared:
        checks.check_all_values(cube)
    fitted = None
    if state is None:
        normalizer, units = fit_normalizer(cube, periods["train"], settings.anomalies)
    else:
        normalizer, fitted = trained.unpack(state)
        units = "statistics of the training, from the workdir"
    present = {split: (a, b) for split, (a, b) in periods.items() if a < b}
    missing = checks.missing_share(cube, present, normalizer.counted)
    turned = settings.flip and not normalizer.counted.all()
    make_windows = functools.partial(
        Windows,
        cube.frames,
        in_range(cube.minutes),
        **lengths,
        normalizer=normalizer,
        targets=targets,
        observed=missing is None or missing > 0 or turned,
        calendar=settings.calendar,
        time_of_day=0 < cube.cadence < HALF_DAY,
    )
    windows = {split: make_windows(starts[split]) for split in SPLITS}

    @functools.cache
    def learned() -> Fitted:
        if fitted is not None:
            return fitted
        train = periods["train"], normalizer, windows["train"]
        return fit(cube, *train, **lengths, targets=targets)

    weights = loss_weights(cube, normalizer.counted, targets, settings.area_weights)
    data = Data(
        name=settings.name,
        description=_description(
            settings,
            cube,
            normalizer,
            missing,
            trained.split_text(cube, periods, starts),
            units,
        ),
        train=windows["train"],
        validation=windows["validation"],
        test=windows["test"],
        loss_weights=weights,
        normalization=normalizer,
        coordinates=_coordinates(cube),
        augment=Augment(flip_height=True, flip_width=True) if settings.flip else None,
        display=Display(
            channels=_channels(cube, normalizer, targets),
            frame=times.frame_name(cube.cadence),
            south_first=cube.south_first,
        ),
        spans={split: windows[split].spans for split in SPLITS},
    )
    make_state = functools.partial(
        trained.make_state,
        data,
        cube,
        periods,
        normalizer,
        learned,
        generated=not settings.path,
    )
    data = dataclasses.replace(data, state=functools.cache(make_state))
    kind = ForecastFrames
    if settings.restores:
        whole = WholeSeries(make_windows, cube.segments, settings.in_len, periods)
        kind = functools.partial(EmbedSeries, series=whole)
    task = kind(
        metric=ChannelScores(
            names=cube.names[:targets],
            scale=tuple(float(x) for x in normalizer.scale[:targets]),
            weights=weights,
        ),
        references=references(learned, normalizer, **lengths, targets=targets),
        mse_units=MSE_UNITS,
    )
    return Dataset(data, task)


def _divide(
    settings: Settings,
    cube: Cube,
    lengths: Mapping[str, int],
    state: DataState | None,
) -> tuple[Cube, dict[str, Period], dict[str, np.ndarray]]:
    """The series in memory if it is small, its splits, and starts of their windows."""
    if state is None:
        periods = split_periods(cube, settings.dates, **lengths)
        starts = window_starts(cube, periods, **lengths, stride=settings.stride)
    else:
        cube, until = series.in_memory(arranged(cube, state)), str(settings.test_until)
        periods, starts = trained.windows(
            cube, state, **lengths, stride=settings.stride, test_until=until
        )
    check_dates(settings, cube, fits_anew=state is None)
    cube = series.in_memory(cube)
    starts, left_out = without_repeats(cube, starts, **lengths)
    if left_out:
        cube = dataclasses.replace(cube, notes=(*cube.notes, left_out))
    return cube, periods, starts


def arranged(cube: Cube, state: DataState) -> Cube:
    """The series with its variables in the order of the training.

    Raises:
        ValueError: if it does not fit what the model was trained on.
    """
    if set(cube.names) == set(state.layout.channels):
        cube = _chosen(cube, state.layout.channels)
    trained.check_layout(cube, state)
    return cube


def check_dates(settings: Settings, cube: Cube, *, fits_anew: bool) -> None:
    """Rejects a series without the dates that the settings need.

    Args:
        settings: checked settings.
        cube: the series.
        fits_anew: whether its climatology is still to be fitted, which then says that
            there are no dates.

    Raises:
        ValueError: if there are none.
    """
    for name in ("calendar", "anomalies"):
        dated = name == "calendar" or not fits_anew or cube.minutes is not None
        if getattr(settings, name) and dated and in_range(cube.minutes) is None:
            raise ValueError(
                f"{name}=True needs dates; {cube.label} has none. Set it to False"
            )


def open_series(settings: Settings) -> tuple[Cube, int]:
    """Opens the series that the settings describe, without reading its values.

    Returns:
        the series, and the number of targets, which are its first variables.

    Raises:
        FileNotFoundError: if `settings.path` does not exist.
        ValueError: if it cannot be used.
    """
    if not settings.path:
        return _twin(settings)
    wanted = Wanted(settings.variables, settings.level, settings.axes, settings.missing)
    make_cube = functools.partial(
        series.open_cube,
        settings.path,
        region=settings.region,
        space_step=settings.space_step,
        time_step=settings.time_step,
    )
    cube = make_cube(wanted)
    if settings.missing:
        declared = make_cube(dataclasses.replace(wanted, missing=()))
        notes = checks.check_missing(declared, settings.missing)
        cube = dataclasses.replace(cube, notes=cube.notes + notes)
    if not settings.only_declared:
        checks.check_values(cube)
    return _targets_first(cube, settings.targets)


def loss_weights(
    cube: Cube, counted: np.ndarray, targets: int, area: bool
) -> np.ndarray:
    """Weights of the cells in the loss, normalised to mean 1; 0 where not observed.

    Args:
        cube: the data, with its grid.
        counted: bool `[h, w, c]`, the cells observed in the training period.
        targets: number of target channels.
        area: weight by cos(latitude) if the latitude depends only on the row; otherwise
            all weights are equal.

    Returns:
        float32 `[1, h, w, targets]`.
    """
    weights = counted[None, ..., :targets].astype(np.float64)
    if area and cube.latitude is not None and cube.latitude.ndim == 1:
        cosine = np.cos(np.deg2rad(cube.latitude))
        weights *= np.maximum(cosine, MIN_AREA)[:, None, None]
    return (weights / weights[weights > 0].mean()).astype(np.float32)


def _twin(settings: Settings) -> tuple[Cube, int]:
    for name in ("level", "axes", "missing", "region"):
        if getattr(settings, name):
            raise ValueError(
                f"{name}={getattr(settings, name)} has no effect on the "
                "embedded climate twin; give `path`, or leave it empty"
            )
    for name in ("space_step", "time_step"):
        if getattr(settings, name) > 1:
            raise ValueError(
                f"{name}={getattr(settings, name)} has no effect on the "
                "embedded climate twin; give `path`, or leave it 1"
            )
    cube = twin.make(settings.twin_years, settings.seed)
    names = settings.variables or cube.names
    for name in names:
        if name not in cube.names:
            there = ", ".join(cube.names)
            raise ValueError(
                f"variables={name}: the embedded climate twin has no such "
                f"variable{nearest(name, cube.names)} (there are: {there})"
            )
    return _targets_first(_chosen(cube, names), settings.targets)


def _chosen(cube: Cube, names: Iterable[str]) -> Cube:
    """The same cube, in memory, with some of its channels in this order."""
    places = [cube.names.index(name) for name in names]
    if places == list(range(len(cube.names))):
        return cube
    return dataclasses.replace(
        cube,
        names=tuple(cube.names[i] for i in places),
        units=tuple(cube.units[i] for i in places),
        codings=tuple(cube.codings[i] for i in places) if cube.codings else (),
        frames=cube.frames.channels(places),
    )


def _targets_first(cube: Cube, targets: tuple[str, ...]) -> tuple[Cube, int]:
    """The cube with the targets as its first channels, and how many they are."""
    if not targets:
        return cube, len(cube.names)
    for name in targets:
        if name not in cube.names:
            raise _no_target(name, cube.names)
    rest = [name for name in cube.names if name not in targets]
    return _chosen(cube, [*targets, *rest]), len(targets)


def _no_target(name: str, names: Iterable[str]) -> ValueError:
    return ValueError(
        f"targets={name} is not one of the variables{nearest(name, names)} "
        f"(there are: {', '.join(names)})"
    )


def _channels(cube: Cube, normalizer: Normalizer, targets: int) -> tuple[Channel, ...]:
    anomalies = normalizer.climatology is not None
    return tuple(
        Channel(
            name=f"{cube.names[c]} anomaly" if anomalies else cube.names[c],
            units=cube.units[c],
            scale=float(normalizer.scale[c]),
            offset=float(normalizer.offset[c]),
            colormap="RdBu_r" if anomalies else "viridis",
        )
        for c in range(targets)
    )


def _coordinates(cube: Cube) -> dict[str, np.ndarray]:
    if cube.latitude is None or cube.longitude is None:
        return {}
    return {"latitude": cube.latitude, "longitude": cube.longitude}


def _description(
    settings: Settings,
    cube: Cube,
    normalizer: Normalizer,
    missing: float | None,
    splits: str,
    units: str,
) -> str:
    """One line that names the data, windows, splits, units and masked values."""
    label = cube.label
    if settings.name == "custom" and not settings.path:
        label += " (no `path` was given)"
    every = times.frame_name(cube.cadence)
    parts = [
        f"{label}: {cube}" + (f", every {every}" if every else ""),
        f"{settings.in_len} frames, restored"
        if settings.restores
        else f"{settings.in_len} -> {settings.out_len} frames",
        splits,
        units,
    ]
    if missing:
        parts.append(f"{_percent(missing)} of the values are missing and left out")
    elif missing is None:
        parts.append("read when needed; missing values are left out")
    never = 1 - normalizer.counted.mean()
    if never > 0:
        parts.append(f"{_percent(never)} of the cells are never observed, weight 0")
    if not isinstance(cube.frames, ArrayFrames):
        gigabytes = 4e-9 * float(np.prod(cube.frames.shape, dtype=np.float64))
        parts[0] += f" ({gigabytes:.3g} GB)"
    return "; ".join([*parts, *cube.notes])


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
