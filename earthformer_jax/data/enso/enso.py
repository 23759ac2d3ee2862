"""El Nino from sea surface temperature: one data set from three sources.

The data come from one of

- no path: the embedded stochastic twin (`data.enso.twin`), whose best possible
  forecast is known;
- ICAR-ENSO files (`data.enso.icar`), or a folder that TFDS prepared from them
  (`data.enso.icar_tfds`);
- any monthly SST or SST anomalies on a regular grid, NetCDF or Zarr
  (`data.enso.gridded_sst`).

Windows are cut in K of anomaly; the model sees (K - offset) / scale. For a trained
model, climatology, land, scale and reference forecasts are those of its training.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.data.enso import beginnings as begin
from earthformer_jax.data.enso import files, gridded_sst, protocols, twin
from earthformer_jax.data.enso import icar as icar_lib
from earthformer_jax.data.enso.assembly import (
    OFFICIAL,
    Found,
    assemble,
    normalization_of,
)
from earthformer_jax.data.enso.learned import (
    GRIDDED,
    ICAR,
    TWIN,
    Learned,
    check_cells,
    unpack,
    without_climatology,
)
from earthformer_jax.data.enso.settings import Settings
from earthformer_jax.data.enso.systems import of_twin
from earthformer_jax.data.enso.systems.fitting import fitting
from earthformer_jax.data.enso.systems.past import Past, past_of
from earthformer_jax.data.enso.systems.training import (
    Training,
    memory_scale,
    months_of,
)
from earthformer_jax.data.readers.grid import point_weights
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.splits import (
    NO_DATES,
    NO_FOLD,
    SPLITS,
    Period,
    parted,
    training_pieces,
)
from earthformer_jax.data.state import LEARNED, DataState, example_checksums, series
from earthformer_jax.data.windows import Windows
from earthformer_jax.settings import settings_from
from earthformer_jax.statistics import simulation
from earthformer_jax.statistics.field_memory import REACH

__all__ = ["OFFICIAL", "Settings", "beginnings", "encoding", "load"]

MANY_WINDOWS = 1_000_000  # of the twin for pre-training; none of them is stored


def load(config: Mapping[str, Any], state: DataState | None = None) -> Dataset:
    """Loads the data set that settings describe.

    Args:
        config: any of the fields of `Settings`.
        state: of the data that a model was trained on, whose statistics and splits are
            used; None: they are those of the files.

    Raises:
        FileNotFoundError: if a file does not exist.
        ValueError: if a setting is invalid, a file cannot be used, or the data do not
            match the state.
    """
    settings = settings_from(Settings, config, "the ENSO data")
    if not settings.path:
        return _twin(settings, state)
    months = files.find_icar(settings)
    if state is None:
        label, by_model = (
            Path(settings.path).name,
            months is not None and months.by_model,
        )
        protocols.check_files(settings.protocol, label, by_model=by_model)
    if months is not None:
        return _icar(settings, months, state)
    return _gridded(settings, state)


beginnings = begin.find
encoding = begin.encoding


def _twin(settings: Settings, state: DataState | None) -> Dataset:
    seed, grid = settings.seed, of_twin.GRID
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

    def spread(start_month, weights=None):
        return twin.ceiling_spread(start_month, *lengths, weights)

    description = f"embedded stochastic ENSO twin (seed {seed}) on {grid}"
    if state is None:
        learned = Learned(
            origin=TWIN,
            variable="sst",
            grid=grid,
            nino_weights=point_weights(grid),
            normalization=normalization_of(
                settings, of_twin.series(seed), grid.ocean, official=True
            ),
            index_months=3,
            memory_scale=memory_scale(
                of_twin.training(seed, settings.in_len), grid.ocean
            )
            if settings.memory
            else 0.0,
            fitted=of_twin.references(seed, *lengths),
        )
    else:
        check_cells("the embedded twin", grid.latitude, grid.longitude, state)
        learned = _known(settings, state)
    found = Found(
        windows=windows,
        description=description,
        simulated=simulated,
        references={"ceiling": ceiling},
        spreads={"ceiling": spread},
    )
    return assemble(settings, found, learned, anew=state is None)


def _known(settings: Settings, state: DataState) -> Learned:
    """What a trained model knows."""
    learned = unpack(state)
    if learned.origin == TWIN:
        lengths = settings.in_len, settings.out_len
        fitted = of_twin.references(settings.seed, *lengths)
        return dataclasses.replace(learned, fitted=fitted)
    return learned


def _icar(
    settings: Settings, months: icar_lib.Months, state: DataState | None
) -> Dataset:
    lengths = dict(in_len=settings.in_len, out_len=settings.out_len)
    if state is not None:
        check_cells(months.label, months.latitude, months.longitude, state)
    # The splits of a trained model are those of its training.
    dates = settings.dates if state is None else NO_DATES
    fold = settings.block if state is None else NO_FOLD
    data = icar_lib.divided(months, dates, split=settings.split, **lengths, fold=fold)
    starts, periods = data.starts, data.periods
    learned = None if state is None else _known(settings, state)
    if state is not None and learned is not None and periods is not None:
        _check_dated(settings.path, learned.origin == GRIDDED)
        until = settings.test_until
        periods, starts = series.windows(
            data.cube, state, **lengths, stride=1, test_until=until
        )
    cube = parted(data.cube, periods) if periods else data.cube
    index = {"nino34_three_month": data.three_month_index}
    months_K = gridded_sst.values_of(cube)[..., 0]
    past = past_of(months_K, data.nino_weights, cube.segments)
    make = functools.partial(_windows, settings, cube, beside=index, behind=past.behind)
    if state is not None and periods is None:
        starts = _models_not_learned(make(starts), starts, state, months.label)
    if learned is None:
        learned = _learned_from_icar(settings, data, months_K, past)
    windows = make(starts)

    def kept() -> dict[str, Any]:
        if periods is not None:
            checksums = series.checksums_of(data.cube, periods)
            return series.kept(data.cube, periods, checksums)
        return {"checksums": {k: example_checksums(x) for k, x in windows.items()}}

    found = Found(
        windows=windows,
        description=data.description,
        protocol=_followed(settings, cube, periods, starts, state),
        dates=_dates(data.cube, periods),
        kept=kept,
    )
    return assemble(settings, found, learned, anew=state is None)


def _learned_from_icar(
    settings: Settings, data: icar_lib.IcarEnso, months_K: np.ndarray, past: Past
) -> Learned:
    months = functools.partial(months_of, data.cube, months_K, months_K, past)
    pieces = data.training_pieces
    training = months(pieces)
    whole = months([data.periods["train"]] if data.periods else pieces)
    grid, weights = data.grid, data.nino_weights
    return Learned(
        origin=ICAR,
        variable=data.cube.names[0],
        grid=grid,
        nino_weights=weights,
        normalization=normalization_of(
            settings, lambda: whole.known, grid.ocean, official=True
        ),
        index_months=3,
        memory_scale=memory_scale(whole, grid.ocean) if settings.memory else 0.0,
        land_counts=True,
        fitted=fitting(lambda: training, grid, weights, settings.out_len),
    )


def _check_dated(path: str, differ: bool) -> None:
    """Rejects data whose dates say nothing about what a model has learned from.

    Raises:
        ValueError: if the model or the data count years of their own.
    """
    if differ:
        raise ValueError(
            f"{Path(path).name}: the years of ICAR-ENSO reanalyses are not real ones, "
            "so it cannot be told which months of observations are the same; forecasts "
            "can begin here, but the model cannot be scored here"
        )


def _models_not_learned(
    windows: Mapping[str, Windows],
    starts: Mapping[str, np.ndarray],
    state: DataState,
    label: str,
) -> Mapping[str, np.ndarray]:
    """The starts of climate models that a trained model can be scored with.

    Raises:
        ValueError: if it was trained on other climate models, which cannot be told
            from these.
    """
    known = state.checksums
    if all(
        split in known
        and np.array_equal(example_checksums(windows[split]), known[split])
        for split in LEARNED
    ):
        return starts
    if known and not state.frames:
        raise ValueError(
            f"{label}: the climate models differ from those that the model was trained "
            "on, and which of them it has learned from is unknown"
        )
    none = np.zeros(0, np.int64)
    return {"train": none, "validation": none, "test": starts["test"]}


def _gridded(settings: Settings, state: DataState | None) -> Dataset:
    lengths = dict(in_len=settings.in_len, out_len=settings.out_len)
    read = functools.partial(
        gridded_sst.load if state is None else gridded_sst.load_trained,
        settings.path,
        wanted=files.wanted_of(settings),
        **lengths,
    )
    if state is None:
        where = dict(region=settings.region, fold=settings.block)
        data, learned = read(dates=settings.dates, **where), None
    else:
        learned = _known(settings, state)
        by_date = bool(state.minutes)
        _check_dated(settings.path, by_date and learned.origin == ICAR)
        base = learned.base or without_climatology(learned)
        data = read(state=state, base=base, test_until=settings.test_until)
    anomalies = gridded_sst.values_of(data.cube)[..., 0]
    past = past_of(anomalies, data.nino_weights, data.cube.segments)
    more = {"behind": past.behind}
    if data.observed is not None:
        more["beside"] = {"observed": data.observed[..., None]}
    training, whole = _gridded_training(data, anomalies, past)
    if learned is None:
        grid, weights = data.grid, data.nino_weights
        learned = Learned(
            origin=GRIDDED,
            variable=data.cube.names[0],
            grid=grid,
            nino_weights=weights,
            normalization=normalization_of(
                settings, lambda: whole.known, grid.ocean, official=False
            ),
            index_months=1,
            memory_scale=memory_scale(whole, grid.ocean) if settings.memory else 0.0,
            base=data.base,
            fitted=fitting(lambda: training, grid, weights, settings.out_len),
        )
    simulated = None
    if settings.simulated and training.fields:
        simulated = simulation.simulated_source(
            training.months,
            data.grid.ocean,
            data.grid.latitude,
            data.nino_weights,
            **lengths,
            seed=settings.seed,
        )
    found = Found(
        windows=_windows(settings, data.cube, data.starts, **more),
        description=data.description + _short_memory(settings, data),
        complete=data.observed is None,
        protocol=_followed(settings, data.cube, data.periods, data.starts, state),
        dates=_dates(data.cube, data.periods),
        simulated=simulated,
        kept=lambda: series.kept(data.cube, data.periods, data.checksums),
    )
    return assemble(settings, found, learned, anew=state is None)


def _gridded_training(
    data: gridded_sst.GriddedSST, anomalies: np.ndarray, past: Past
) -> tuple[Training, Training]:
    """The months that are trained on, and all of the training period.

    With folds, a block of the period is not trained on. There are no such months if the
    data are there for testing alone.
    """
    known = anomalies
    if data.observed is not None:
        seen = data.observed | ~data.grid.ocean
        known = np.where(seen, anomalies, np.float32(np.nan))
    months = functools.partial(months_of, data.cube, anomalies, known, past)
    if not len(data.starts["train"]):
        return months([]), months([])
    return months(training_pieces(data.periods)), months([data.periods["train"]])


def _short_memory(settings: Settings, data: gridded_sst.GriddedSST) -> str:
    """The part of a description that says that test windows remember too little."""
    last = data.starts["test"] + settings.in_len - 1
    short = int(np.sum(last < REACH))
    if not short:
        return ""
    return f"; {short} of {len(last)} test windows remember fewer than {REACH} months"


def _windows(settings: Settings, cube: Cube, starts, **more) -> dict[str, Windows]:
    """Windows in K of each split."""
    lengths = dict(in_len=settings.in_len, out_len=settings.out_len)
    return {
        split: Windows(cube.frames, cube.minutes, starts[split], **lengths, **more)
        for split in SPLITS
    }


def _followed(
    settings: Settings,
    cube: Cube,
    periods: Mapping[str, Period] | None,
    starts: Mapping[str, np.ndarray],
    state: DataState | None,
) -> str:
    """The protocol of the settings, if the splits are those of it; "" otherwise.

    Raises:
        ValueError: if they are not, because a file lacks months, and the data are new.
    """
    name = settings.protocol
    if not name or (periods is None) != protocols.is_by_model(name):
        return ""
    if periods is None:
        return name if len(starts["train"]) else ""
    minutes = series.minutes_of(cube, periods)
    if state is not None and "train" in state.minutes:
        minutes["train"] = state.minutes["train"]
    departure = protocols.departure(name, minutes)
    if departure and state is None:
        raise ValueError(
            f"{cube.label}: {departure}; use a file that has them, or set the dates "
            "without a protocol"
        )
    return "" if departure else name


def _dates(cube: Cube, periods: Mapping[str, Period] | None) -> dict[str, str]:
    """ "1856-01..1979-12" of each split that is a period."""
    if not periods:
        return {}
    pieces = {split: [period] for split, period in periods.items()}
    pieces["train"] = training_pieces(periods)
    texts = {
        split: " and ".join(cube.period(a, b) for a, b in parts if a < b)
        for split, parts in pieces.items()
    }
    return {split: text for split, text in texts.items() if text}
