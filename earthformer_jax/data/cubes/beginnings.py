"""What forecasts of a series begin from: its latest frames, without targets."""

import dataclasses
import functools

import numpy as np

from earthformer_jax.data.cubes import checks, opening, trained
from earthformer_jax.data.cubes.settings import Settings
from earthformer_jax.data.cubes.statistics import Normalizer
from earthformer_jax.data.forecasting import choosing
from earthformer_jax.data.forecasting.beginnings import (
    LAST,
    Beginnings,
    Starts,
    Variable,
)
from earthformer_jax.data.readers import series
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.source import Example
from earthformer_jax.data.state import DataState, Layout
from earthformer_jax.data.windows import (
    HALF_DAY,
    Windows,
    calendar_channels,
    in_range,
)

# Bytes of a series; more would make memory grow with the number of forecasts.
MOST_IN_MEMORY = 2**24


def find(
    settings: Settings,
    state: DataState,
    starts: Starts = LAST,
    *,
    allow_other_grid: bool = False,
) -> Beginnings:
    """The input windows that forecasts begin from, in the units of the training.

    Args:
        settings: checked settings.
        state: of the data that the model was trained on.
        starts: which windows.
        allow_other_grid: accept other rows and columns than the trained ones, if the
            statistics of the training are the same for all cells.

    Raises:
        FileNotFoundError: if `settings.path` does not exist.
        ValueError: if the series cannot be used, does not fit the state, or has no such
            window; the message says why.
    """
    checks.check_forecasts(settings)
    cube = opening.open_fitting(settings, state, allow_other_grid=allow_other_grid)
    opening.check_dates(settings, cube, fits_anew=False)
    normalizer = _normalizer(cube, state)
    first = choosing.choose(cube, settings.in_len, starts)
    if len(first) * settings.in_len >= cube.frames.shape[0]:
        cube = series.in_memory(cube, MOST_IN_MEMORY)  # else most are never read
    targets = state.target_shape[-1]
    time_of_day = 0 < cube.cadence < HALF_DAY
    windows = _Filled(
        Windows(
            cube.frames,
            in_range(cube.minutes),
            first,
            in_len=settings.in_len,
            out_len=0,
            normalizer=normalizer,
            observed=True,
            calendar=settings.calendar,
            time_of_day=time_of_day,
        ),
        normalizer.counted,
    )
    last = first + settings.in_len - 1
    if len(first) == 1:
        _check_observed(cube, int(first[0]), int(last[0]) + 1, normalizer.counted)

    def following(window: int, count: int) -> Times:
        return choosing.following(cube, int(last[window]), count)

    can_advance = targets == len(cube.names)
    advance = functools.partial(
        _advance, normalizer, settings.calendar, time_of_day=time_of_day
    )
    return Beginnings(
        label=cube.label,
        windows=windows,
        last=last,
        reference=cube.times[last] if cube.times is not None else None,
        following=following if cube.times is not None else None,
        variables=_variables(cube, state.layout)[:targets],
        decode=normalizer.decode,
        anomalies=normalizer.departures if normalizer.climatology else None,
        advance=advance if can_advance else None,
        not_advanced="the inputs have variables that are not forecast: "
        + ", ".join(cube.names[targets:]),
        latitude=cube.latitude,
        longitude=cube.longitude,
        notes=(
            *cube.notes,
            *checks.check_range(cube, normalizer, state.layout.units, first, last),
        ),
    )


def _check_observed(cube: Cube, first: int, stop: int, counted: np.ndarray) -> None:
    """Rejects frames in which a variable has no value in any trained cell."""
    known = np.isfinite(cube.frames.read(first, stop)) & counted
    missing = [repr(n) for c, n in enumerate(cube.names) if not known[..., c].any()]
    if missing:
        raise ValueError(
            f"{cube.label}: all values of {' and '.join(missing)} are missing in the "
            f"{stop - first} frames {cube.period(first, stop)} to forecast from"
        )


def _variables(cube: Cube, layout: Layout) -> tuple[Variable, ...]:
    """The channels of a series as the variables of a forecast."""

    def either(own: tuple[str, ...], trained: tuple[str, ...]) -> list[str]:
        unknown = ("",) * len(cube.names)
        return [a or b for a, b in zip(own or unknown, trained or unknown, strict=True)]

    return tuple(
        map(
            Variable,
            cube.names,
            either(cube.units, layout.units),
            either(cube.standard_names, layout.standard_names),
            either(cube.long_names, ()),
        )
    )


def _normalizer(cube: Cube, state: DataState) -> Normalizer:
    """The normalisation of the training, for the cells of a series.

    Raises:
        ValueError: if it belongs to other cells.
    """
    normalizer, _ = trained.unpack(state)
    size = cube.frames.shape[1:3]
    is_trained = size == normalizer.counted.shape[:2] and all(
        a is None or b is None or np.array_equal(a, b)
        for a, b in (
            (cube.latitude, state.layout.latitude),
            (cube.longitude, state.layout.longitude),
        )
    )
    if is_trained:
        return normalizer
    if normalizer.climatology is not None:
        raise ValueError(
            "allow_other_grid=True: this model was trained on anomalies from the "
            f"climatology of its {state.layout.size[0]} x {state.layout.size[1]} "
            f"cells, which other cells ({size[0]} x {size[1]}) do not have; train with "
            "anomalies=False, or use the cells of the training"
        )
    known = np.isfinite(checks.sample(cube)).any(axis=0)
    return dataclasses.replace(normalizer, counted=known)


class _Filled:
    """Windows with the share of their values that were filled.

    Cells that were never observed in the training do not count.
    """

    def __init__(self, windows: Windows, counted: np.ndarray):
        self._windows, self._counted = windows, counted

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Example:
        example = self._windows[index]
        known = example["inputs_observed"]
        share = np.sum(known) / (len(known) * np.sum(self._counted))
        made = {"inputs": example["inputs"], "filled": np.array(1 - share, np.float32)}
        return made | {k: example[k] for k in ("time",) if k in example}


def _advance(
    normalizer: Normalizer,
    calendar: bool,
    inputs: np.ndarray,
    forecast: np.ndarray,
    minutes: np.ndarray | None,
    *,
    time_of_day: bool,
) -> np.ndarray:
    """The latest inputs after a forecast: its fields, 0 where never observed."""
    fields = np.where(normalizer.counted[..., : forecast.shape[-1]], forecast, 0)
    if calendar:
        assert minutes is not None  # a calendar needs dates
        season = calendar_channels(minutes, time_of_day)
        season = np.broadcast_to(
            season[:, None, None, :], (*fields.shape[:3], season.shape[-1])
        )
        fields = np.concatenate([fields, season], axis=-1)
    joined = np.concatenate([inputs, fields.astype(inputs.dtype)])
    return joined[-len(inputs) :]
