"""A data set from any time series of fields: climate cubes and the user's files.

The files at `path` are opened as a series (`data.cubes.opening`), divided by date and
cut into windows (`data.splits`, `data.windows`), normalised by statistics of the
training period (`data.cubes.statistics`), and compared with reference forecasts
(`data.cubes.references`). Without a path the series is the embedded climate twin
(`data.cubes.twin`).
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping

import numpy as np

from earthformer_jax.data.augment import Augment
from earthformer_jax.data.cubes import checks, trained
from earthformer_jax.data.cubes.opening import check_dates, open_fitting, open_series
from earthformer_jax.data.cubes.references import Fitted, bases, fit, references
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.cubes.statistics import Normalizer, fit_normalizer
from earthformer_jax.data.dataset import Channel, Data, Dataset, Display
from earthformer_jax.data.leaks import without_repeats
from earthformer_jax.data.nowcasting import references as nowcasting
from earthformer_jax.data.nowcasting.rain import of_units
from earthformer_jax.data.readers import series, times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.splits import (
    SPLITS,
    Period,
    split_periods,
    window_starts,
)
from earthformer_jax.data.state import DataState
from earthformer_jax.data.state.series import split_text
from earthformer_jax.data.state.series import windows as test_windows
from earthformer_jax.data.task import EmbedSeries, Forecast, ForecastFrames, Task
from earthformer_jax.data.windows import HALF_DAY, WholeSeries, Windows, in_range
from earthformer_jax.metrics import channels

MSE_UNITS = "(standard deviations)^2"
MIN_AREA = 1e-3  # least weight of a cell, so that those at a pole still count


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
    if state is None:
        cube, targets = open_series(settings)
    else:
        cube = open_fitting(settings, state)
        targets = len(settings.targets) or len(cube.names)
    lengths = _lengths(settings)
    cube, periods, starts = _divide(settings, cube, lengths, state)
    if settings.path and not settings.only_declared:
        checks.check_all_values(cube)
    cube, normalizer, units = _statistics(settings, cube, periods, starts, state)
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
        if state is not None:
            return trained.unpack(state)[1]
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
            split_text(cube, periods, starts),
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
        bases=bases(learned, normalizer, (settings.out_len, *weights.shape[1:])),
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
    forecasts = {
        **references(learned, normalizer, **lengths, targets=targets),
        **_nowcasts(cube, normalizer, **lengths, targets=targets),
    }
    kind = ForecastFrames
    if settings.restores:
        whole = WholeSeries(make_windows, cube.segments, settings.in_len, periods)
        kind = functools.partial(EmbedSeries, series=whole)
    return Dataset(data, _task(kind, cube, normalizer, weights, forecasts, targets))


def _lengths(settings: Settings) -> dict[str, int]:
    """Numbers of input and of target frames; a window to restore is its own target."""
    if settings.restores:
        return dict(in_len=0, out_len=settings.in_len)
    return dict(in_len=settings.in_len, out_len=settings.out_len)


def _statistics(
    settings: Settings,
    cube: Cube,
    periods: Mapping[str, Period],
    starts: Mapping[str, np.ndarray],
    state: DataState | None,
) -> tuple[Cube, Normalizer, str]:
    """The series, its scaling, and where the scaling is from, in words.

    With `state` the series has notes on test values that are far from the training's.
    """
    if state is None:
        normalizer, units = fit_normalizer(cube, periods["train"], settings.anomalies)
        return cube, normalizer, units
    normalizer, _ = trained.unpack(state)
    length = sum(_lengths(settings).values())
    ends = starts["test"], starts["test"] + length - 1
    far = checks.check_range(cube, normalizer, state.layout.units, *ends)
    cube = dataclasses.replace(cube, notes=(*cube.notes, *far))
    return cube, normalizer, "statistics of the training, from the workdir"


def _task(
    kind: Callable[..., Task],
    cube: Cube,
    normalizer: Normalizer,
    weights: np.ndarray,
    forecasts: Mapping[str, Callable],
    targets: int,
) -> Task:
    """Scores of the first `targets` variables in their units, beside the references."""
    names = cube.names[:targets]
    scale = tuple(float(x) for x in normalizer.scale[:targets])
    cycle = None if normalizer.climatology is not None else forecasts["climatology"]
    return kind(
        metric=channels.ChannelScores(names, scale, weights),
        verification=channels.verification(names, scale, weights, cycle),
        references=forecasts,
        mse_units=MSE_UNITS,
    )


def _divide(
    settings: Settings,
    cube: Cube,
    lengths: Mapping[str, int],
    state: DataState | None,
) -> tuple[Cube, dict[str, Period], dict[str, np.ndarray]]:
    """The series in memory if it is small, its splits, and starts of their windows."""
    if state is None:
        in_len, out_len = lengths["in_len"], lengths["out_len"]
        periods = split_periods(cube, settings.dates, in_len, out_len)
        starts = window_starts(cube, periods, **lengths, stride=settings.stride)
    else:
        cube, until = series.in_memory(cube), str(settings.test_until)
        periods, starts = test_windows(
            cube, state, **lengths, stride=settings.stride, test_until=until
        )
    check_dates(settings, cube, fits_anew=state is None)
    cube = series.in_memory(cube)
    starts, left_out = without_repeats(cube, starts, **lengths)
    if left_out:
        cube = dataclasses.replace(cube, notes=(*cube.notes, left_out))
    return cube, periods, starts


def _nowcasts(
    cube: Cube, normalizer: Normalizer, *, in_len: int, out_len: int, targets: int
) -> Mapping[str, Forecast]:
    """Forecasts of moving rain, if all targets are rain in frames that are close."""
    if cube.cadence > nowcasting.LONGEST_STEP:
        return {}
    standard_names = cube.standard_names or ("",) * len(cube.names)
    kinds = {
        of_units(*texts)
        for texts in list(zip(cube.units, cube.names, standard_names, strict=True))[
            :targets
        ]
    }
    rain = kinds.pop()
    if rain is None or kinds:
        return {}
    return nowcasting.references(in_len, out_len, targets, normalizer, rain)


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
