"""What forecasts of El Nino begin from: the latest months, without targets."""

import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from earthformer_jax.data.climatology import MONTHS
from earthformer_jax.data.enso import base as base_lib
from earthformer_jax.data.enso import files, gridded_sst, icar, twin
from earthformer_jax.data.enso.base import ANOMALIES, Base
from earthformer_jax.data.enso.checks import (
    check_departures,
    check_months,
    check_values,
)
from earthformer_jax.data.enso.examples import (
    past_of_window,
    with_calendar,
    with_memory,
)
from earthformer_jax.data.enso.learned import (
    Learned,
    check_cells,
    unpack,
    without_climatology,
)
from earthformer_jax.data.enso.settings import Settings
from earthformer_jax.data.enso.systems import recall
from earthformer_jax.data.enso.systems.past import past_of
from earthformer_jax.data.forecasting import choosing
from earthformer_jax.data.forecasting.beginnings import (
    LAST,
    Beginnings,
    Starts,
    Variable,
)
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.grid import (
    NINO3,
    NINO4,
    NINO12,
    box_weights,
)
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.readers.values import units
from earthformer_jax.data.source import Example, Selected, Source
from earthformer_jax.data.state import DataState
from earthformer_jax.data.windows import Windows

INDICES = {"nino12": NINO12, "nino3": NINO3, "nino4": NINO4}
REMEDY = "choose another `start`"
# The standard names of CF have no anomaly of the sea surface temperature but this.
CF_ANOMALY = "surface_temperature_anomaly"
ANOMALY = "sea surface temperature anomaly"
SIMULATED = Variable("sst", "K", "", ANOMALY)
SST_NAME = "sea_surface_temperature"


def find(
    settings: Settings,
    state: DataState,
    starts: Starts = LAST,
    *,
    allow_other_grid: bool = False,
) -> Beginnings:
    """The input windows that forecasts begin from, in the units of the model.

    Without a path they are the test windows of the twin.

    Args:
        settings: checked settings.
        state: of the data that the model was trained on.
        starts: which windows.
        allow_other_grid: not possible, since every cell has its own climatology.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if the files cannot be used, do not fit the state, or have no such
            window; the message says why.
    """
    if allow_other_grid:
        raise ValueError(
            "another grid cannot be used with El Nino data: climatology, land and the "
            "Nino3.4 index are those of the cells of the training"
        )
    _check_kept(state)
    learned = unpack(state)
    if not settings.path:
        return _of_twin(settings, state, learned, starts)
    months = files.find_icar(settings, labels=False)
    if months is not None:
        check_cells(months.label, months.latitude, months.longitude, state)
        return _of_models(settings, months, learned, starts)
    return _of_file(settings, state, learned, starts)


def encoding(settings: Settings, state: DataState) -> Encoding:
    """How values of the kind that was trained on become what the model sees."""
    _check_kept(state)
    learned = unpack(state)
    normalization, ocean = learned.normalization, learned.grid.ocean[..., None]
    climatology = None
    if learned.base is not None:
        means = learned.base.climatology
        known = np.where(ocean, means.coefficients, np.float32(0))
        climatology = dataclasses.replace(means, coefficients=known)
    return Encoding(
        scale=np.array([normalization.scale], np.float32),
        offset=np.array([normalization.offset], np.float32),
        targets=1,
        counted=ocean,
        climatology=climatology,
        calendar="month" if settings.calendar else "",
        most_carried=base_lib.MAX_CARRY,
        fill=np.array([normalization.encode(0.0)], np.float32),
        memory=recall.encoded(learned),
    )


def _check_kept(state: DataState) -> None:
    """Rejects the state of an earlier version.

    Raises:
        ValueError: if it has no statistics.
    """
    if not len(state.fitted):
        raise ValueError(
            "the workdir holds no climatology and scale of its training, because an "
            "earlier version began it; train again to forecast"
        )


def _of_file(
    settings: Settings, state: DataState, learned: Learned, starts: Starts
) -> Beginnings:
    """Months of observed temperature, as departures from the training climatology."""
    wanted = files.wanted_of(settings)
    cube = gridded_sst.read(settings.path, wanted, gaps=True, cells=state.layout)
    first = choosing.choose(cube, settings.in_len, starts)
    base = learned.base or without_climatology(learned)
    ocean, minutes = base.grid.ocean, gridded_sst.minutes_of(cube)
    values = gridded_sst.values_of(cube)
    used = np.unique(first[:, None] + np.arange(settings.in_len))
    remembered = recall.remembered(cube, first, used) if learned.memory_scale else used
    with gridded_sst.naming(cube):
        check_values(cube, values, settings.missing)
        kind = base_lib.kind_of(values, base.nino_weights)
        check_months(values[used, ..., 0], ocean, minutes[used], REMEDY)
        anomalies = gridded_sst.anomalies_of(cube, base, kind, state)
        check_departures(anomalies[remembered][:, ocean], minutes[remembered])
    observed = np.isfinite(anomalies)
    filled = np.empty_like(anomalies)
    for begin, end in cube.segments.tolist():
        filled[begin:end], *_ = base_lib.fill_gaps(anomalies[begin:end], ocean)
    part = dataclasses.replace(cube, frames=ArrayFrames(filled[..., None]))
    notes = cube.notes
    if kind == ANOMALIES:
        notes += ("anomalies are taken to be of the same base period as in training",)
    elif units.temperature_unit(cube.units[0]) != kind:
        stated = (
            f"its units are {cube.units[0]!r}" if cube.units[0] else "it has no units"
        )
        notes += (f"{cube.names[0]!r}: {stated}; its values are in {kind}",)
    return _beginnings(
        settings,
        learned,
        part,
        first,
        _variable(cube, kind),
        missing=1 - observed[:, ocean].mean(axis=1),
        decode=functools.partial(_full, learned.normalization, base, kind),
        notes=notes,
    )


def _variable(cube: Cube, kind: str) -> Variable:
    """What is forecast, in the words of the file where they suit the kind of values."""
    named = cube.standard_names[0] if cube.standard_names else ""
    if kind == ANOMALIES:
        name = named if named == CF_ANOMALY else ""
    else:
        name = SST_NAME if not named or "anomaly" in named else named
    long_name = cube.long_names[0] if cube.long_names else ""
    unit = "K" if kind == ANOMALIES else kind
    if not long_name and kind == ANOMALIES:
        long_name = ANOMALY
    return Variable(cube.names[0], unit, name, long_name)


def _of_models(
    settings: Settings, months: icar.Months, learned: Learned, starts: Starts
) -> Beginnings:
    """Months of ICAR-ENSO files: of a reanalysis, or of any of the climate models."""
    cube = months.cube
    if months.by_model and starts.first not in ("last", "all"):
        raise ValueError(
            f"start={starts.first}: {months.label} has {len(months.fields)} climate "
            "models with the same dates; use all, or last for the latest months of the "
            "last one"
        )
    first = choosing.choose(cube, settings.in_len, starts)
    coordinates = {}
    if months.by_model:
        model = np.searchsorted(cube.segments[:, 1], first, side="right")
        coordinates["climate_model"] = model
    return _beginnings(
        settings,
        learned,
        cube,
        first,
        SIMULATED,
        missing=np.zeros(cube.frames.shape[0]),
        decode=functools.partial(_anomalies, learned),
        coordinates=coordinates,
    )


def _of_twin(
    settings: Settings, state: DataState, learned: Learned, starts: Starts
) -> Beginnings:
    """The test windows of the twin, which have calendar months but no years."""
    label = f"embedded stochastic ENSO twin (seed {settings.seed})"
    check_cells(label, twin.LATITUDE, twin.LONGITUDE, state)
    if starts.stop or starts.first not in ("last", "all"):
        raise ValueError(
            f"start={starts.first}: the windows of the {label} have no dates; use last "
            "or all, or give a `path`"
        )
    lengths = settings.in_len, settings.out_len
    source = twin.TwinSource("test", settings.twin_test, *lengths, settings.seed)
    chosen = np.arange(settings.twin_test)
    chosen = chosen[-1:] if starts.first == "last" else chosen[:: starts.every]
    return Beginnings(
        label=label,
        windows=_Inputs(
            Selected(source, chosen), settings, learned, np.zeros(len(chosen))
        ),
        last=chosen,
        reference=None,
        following=None,
        variables=(SIMULATED,),
        decode=functools.partial(_anomalies, learned),
        **_shared(settings, learned),
    )


def _beginnings(
    settings: Settings,
    learned: Learned,
    cube: Cube,
    first: np.ndarray,
    variable: Variable,
    *,
    missing: np.ndarray,
    decode: Callable,
    coordinates: Mapping[str, np.ndarray] = types.MappingProxyType({}),
    notes: tuple[str, ...] = (),
) -> Beginnings:
    """Windows of a series of anomalies in K.

    Args:
        settings: the settings.
        learned: what the model knows.
        cube: the series, without gaps in the values.
        first: `[n]`, first frames of the windows.
        variable: what is forecast.
        missing: `[m]`, share of the ocean that was filled in each month.
        decode: as in `Beginnings`.
        coordinates: as in `Beginnings`.
        notes: as in `Beginnings`.
    """
    last = first + settings.in_len - 1
    behind = {}
    if learned.memory_scale:
        fields = gridded_sst.values_of(cube)[..., 0]
        behind = past_of(fields, learned.nino_weights, cube.segments).behind
        notes += recall.note_if_short(cube, last, missing)
    windows = Windows(
        cube.frames,
        cube.minutes,
        first,
        in_len=settings.in_len,
        out_len=0,
        behind=behind,
    )
    share = missing[first[:, None] + np.arange(settings.in_len)].mean(axis=1)

    def following(window: int, count: int) -> Times:
        return choosing.following(cube, int(last[window]), count)

    assert cube.times is not None  # as `gridded_sst` and `icar` make sure
    return Beginnings(
        label=cube.label,
        windows=_Inputs(windows, settings, learned, share),
        last=last,
        reference=cube.times[last],
        following=following,
        variables=(variable,),
        decode=decode,
        coordinates=coordinates,
        notes=notes,
        **_shared(settings, learned),
    )


def _shared(settings: Settings, learned: Learned) -> dict[str, Any]:
    """What all beginnings of a model have in common."""
    return dict(
        anomalies=functools.partial(_anomalies, learned),
        advance=functools.partial(_advance, learned, settings.calendar),
        indices=_indices(learned),
        latitude=learned.grid.latitude,
        longitude=learned.grid.longitude,
    )


class _Inputs:
    """Windows in K as the model sees them, with the share of values that were filled.

    A window has `start_month`, the calendar month after its last input, or the `time`
    of its months.
    """

    def __init__(
        self, windows: Source, settings: Settings, learned: Learned, filled: np.ndarray
    ):
        self._windows, self._filled = windows, filled
        self._calendar, self._learned = settings.calendar, learned

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Example:
        window = self._windows[index]
        learned = self._learned
        inputs = learned.normalization.encode(window["inputs"])
        inputs = np.asarray(inputs, np.float32)
        if self._calendar:
            month = window.get("start_month")
            if month is None:
                month = times.month_of(window["time"][-1]) + 1
            inputs = with_calendar(inputs, int(month) % MONTHS)
        if learned.memory_scale:
            past = past_of_window(window, learned.nino_weights)
            inputs = with_memory(inputs, past, learned.memory_scale)
        filled = np.array(self._filled[index], np.float32)
        made = {"inputs": inputs, "filled": filled}
        return made | {k: window[k] for k in ("time",) if k in window}


def _indices(learned: Learned) -> dict[str, np.ndarray]:
    """Weights of the regions that the ocean of a grid covers."""
    found = {"nino34": learned.nino_weights}
    for name, box in INDICES.items():
        try:
            found[name] = box_weights(learned.grid, box)
        except ValueError:  # too little of the box is on the grid
            continue
    return found


def _anomalies(
    learned: Learned, x: np.ndarray, minutes: np.ndarray | None = None
) -> np.ndarray:
    """Anomalies in K from model units, NaN on land."""
    del minutes
    kelvin = learned.normalization.decode(x)
    return np.where(learned.grid.ocean[..., None], kelvin, np.nan)


def _full(
    normalization: Affine,
    base: Base,
    kind: str,
    x: np.ndarray,
    minutes: np.ndarray | None,
) -> np.ndarray:
    """Values of a kind from model units, NaN on land."""
    assert minutes is not None  # files of observations have dates
    values = base.values(normalization.decode(x), minutes, kind)
    return np.where(base.grid.ocean[..., None], values, np.nan)


def _advance(
    learned: Learned,
    calendar: bool,
    inputs: np.ndarray,
    forecast: np.ndarray,
    minutes: np.ndarray | None,
) -> np.ndarray:
    """The latest inputs after a forecast: its fields, 0 K on land."""
    del minutes  # the calendar of the inputs goes on, which also those of the twin have
    zero = learned.normalization.encode(0.0)
    fields = np.where(learned.grid.ocean[..., None], forecast, zero)
    steps = [fields]
    if calendar:
        cosine, sine = inputs[-1, 0, 0, 1:3]
        last = round(float(np.arctan2(sine, cosine)) * MONTHS / (2 * np.pi))
        steps = [with_calendar(fields, (last + 1 + len(fields)) % MONTHS)]
    if learned.memory_scale:
        known = np.concatenate([inputs[..., :1], fields])
        steps.append(recall.advanced(learned, known, inputs[..., -1]))
    joined = np.concatenate([inputs, np.concatenate(steps, -1).astype(inputs.dtype)])
    return joined[-len(inputs) :]
