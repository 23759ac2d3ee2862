"""What forecasts of a series begin from: its latest frames, without targets."""

import functools

import numpy as np

from earthformer_jax.data.cubes import opening, trained
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
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.source import Example
from earthformer_jax.data.state import DataState
from earthformer_jax.data.windows import (
    HALF_DAY,
    Windows,
    calendar_channels,
    in_range,
)


def find(settings: Settings, state: DataState, starts: Starts = LAST) -> Beginnings:
    """The input windows that forecasts begin from, in the units of the training.

    Args:
        settings: checked settings.
        state: of the data that the model was trained on.
        starts: which windows.

    Raises:
        FileNotFoundError: if `settings.path` does not exist.
        ValueError: if the series cannot be used, does not fit the state, or has no such
            window; the message says why.
    """
    if settings.restores:
        raise ValueError(
            "out_len=0: this model restores its inputs, it cannot forecast"
        )
    cube, targets = opening.open_series(settings)
    cube = series.in_memory(opening.arranged(cube, state))
    opening.check_dates(settings, cube, fits_anew=False)
    normalizer, _ = trained.unpack(state)
    first = choosing.choose(cube, settings.in_len, starts)
    time_of_day = 0 < cube.cadence < HALF_DAY
    windows = Windows(
        cube.frames,
        in_range(cube.minutes),
        first,
        in_len=settings.in_len,
        out_len=0,
        normalizer=normalizer,
        observed=True,
        calendar=settings.calendar,
        time_of_day=time_of_day,
    )
    last = first + settings.in_len - 1

    def following(window: int, count: int) -> Times:
        return choosing.following(cube, int(last[window]), count)

    names, units = cube.names[:targets], cube.units[:targets]
    can_advance = targets == len(cube.names)
    advance = functools.partial(
        _advance, normalizer, settings.calendar, time_of_day=time_of_day
    )
    return Beginnings(
        label=cube.label,
        windows=_Filled(windows),
        last=last,
        reference=cube.times[last] if cube.times is not None else None,
        following=following if cube.times is not None else None,
        variables=tuple(map(Variable, names, units)),
        decode=normalizer.decode,
        anomalies=None,
        advance=advance if can_advance else None,
        not_advanced="the inputs have variables that are not forecast: "
        + ", ".join(cube.names[targets:]),
        latitude=cube.latitude,
        longitude=cube.longitude,
    )


class _Filled:
    """Windows with the share of their values that were filled."""

    def __init__(self, windows: Windows):
        self._windows = windows

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Example:
        example = self._windows[index]
        known = example["inputs_observed"]
        filled = np.array(1 - np.mean(known), np.float32)
        return {"inputs": example["inputs"], "filled": filled}


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
