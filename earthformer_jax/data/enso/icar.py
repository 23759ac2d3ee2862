"""The ICAR-ENSO files: SST anomalies of 32 climate models, and a reanalysis.

A file contains rows of 36 months, `sst (year, month, lat, lon)` in K, one row per year:
row k + 1 begins 12 months after row k. The label file contains `nino (year, month)`,
the mean Nino3.4 index of the month and the next two. Files and constants are those of
the reference implementation of Earthformer.

Reference:
    Ham et al. 2019, "Deep learning for multi-year ENSO forecasts"; the files are those
    of the Tianchi competition "AI Earth" of 2021.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from absl import logging

from earthformer_jax.data.enso.gridded_sst import VALIDATION_SHARE
from earthformer_jax.data.leaks import without_repeats
from earthformer_jax.data.readers import cf, formats, times
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.grid import Grid, point_weights
from earthformer_jax.data.readers.layout import no_variable
from earthformer_jax.data.readers.netcdf import NamedFile
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.splits import (
    NO_DATES,
    NO_FOLD,
    Dates,
    Fold,
    Period,
    split_periods,
    starts_between,
    training_pieces,
    window_starts,
)

# Extremes of sst in CMIP_train.nc, K; the reference scales them to 0 and 1.
SST_MIN = -16.549121856689453
SST_MAX = 10.198975563049316

YEAR_ZERO = 12 * 1970  # months from January of year 0 to January 1970
ROW_MONTHS = 36
ROW_STRIDE = 12
LONGITUDES = (95.0, 330.0)  # both included: 48 of the 72 columns

# CMIP_train.nc: first the CMIP6 models, then those of CMIP5; (models, rows of each).
CMIP = ((15, 151), (17, 140))
CMIP_ROWS = sum(models * rows for models, rows in CMIP)
VALIDATION_MODEL, TEST_MODEL = 30, 31  # the last two of CMIP5

# The paper's numbers of windows need 26 target months and these strides; the released
# code takes every window of the months it uses.
PAPER_SPAN = 12 + 26
PAPER_STRIDES = {"train": 10, "validation": 5, "test": 1}
SPLITS = ("paper", "released")

TRAIN_FILES = ("CMIP_train.nc", "SODA_train.nc")
DIMENSIONS = ("year", "month", "lat", "lon")


@dataclasses.dataclass(frozen=True)
class IcarEnso:
    """ICAR-ENSO files as a series, and the windows of each split.

    Attributes:
        cube: anomalies in K; one segment for each climate model.
        three_month_index: `[m]`, the label's mean of month, next and second next, K.
        starts: per split, first input frame `[n]` of its windows.
        training: the months of the training split `[m, h, w]`, one array per model.
        training_pieces: first frames and ends of those that are not validated on.
        grid: the cells; land is where sst is 0 throughout training.
        nino_weights: weights `[h, w]` of the monthly Nino3.4 index.
        periods: first frame and end of each split; None when split by model.
        description: the file and how it was split.
    """

    cube: Cube
    three_month_index: np.ndarray
    starts: dict[str, np.ndarray]
    training: list[np.ndarray]
    training_pieces: list[Period]
    grid: Grid
    nino_weights: np.ndarray
    periods: Mapping[str, Period] | None
    description: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Months:
    """What ICAR-ENSO files contain, as series without overlaps.

    Attributes:
        label: name of the data, for descriptions and messages.
        fields: anomalies `[m, h, w]` in K of each climate model, or of a single series.
        three_month_index: `[m]` of each, K; () without labels.
        first_month: of each, counted from January of year 0.
        latitude: degrees north `[h]`.
        longitude: degrees east `[w]`.
        by_model: whether the splits are climate models rather than periods.
    """

    label: str
    fields: Sequence[np.ndarray]
    three_month_index: Sequence[np.ndarray]
    first_month: int
    latitude: np.ndarray
    longitude: np.ndarray
    by_model: bool

    @property
    def cube(self) -> Cube:
        """All months, one segment for each climate model."""
        lengths = [len(x) for x in self.fields]
        ends = np.cumsum(lengths)
        first = self.first_month - YEAR_ZERO
        return Cube(
            label=self.label,
            format="NetCDF",
            names=("sst",),
            units=("K",),
            frames=ArrayFrames(np.concatenate(self.fields)[..., None]),
            segments=np.stack([ends - lengths, ends], axis=1),
            times=times.of_months(
                np.concatenate([first + np.arange(n) for n in lengths])
            ),
            cadence=float(times.MONTH[1]),
            latitude=self.latitude,
            longitude=self.longitude,
            south_first=True,
        )


def unfold(rows: np.ndarray, stride: int = ROW_STRIDE) -> np.ndarray:
    """Joins overlapping rows into one series.

    Args:
        rows: `[n, months, ...]`; row k + 1 begins `stride` months after row k, and
            `months` is a multiple of `stride`.
        stride: months between the beginnings of two rows.

    Returns:
        `[(n - 1) * stride + months, ...]`.
    """
    count, months = rows.shape[:2]
    step = months // stride  # every step-th row has only new months
    rest = (count - 1) % step
    whole = rows[::step].reshape(-1, *rows.shape[2:])
    return np.concatenate([whole, rows[-1, months - rest * stride :]])


def model_starts(
    lengths: list[int], split: str, in_len: int, out_len: int
) -> dict[str, list[np.ndarray]]:
    """Window starts when whole climate models are the splits.

    Args:
        lengths: months of each of the 32 series.
        split: "released" (every window) or "paper" (strides 10, 5 and 1, and windows
            that leave 26 months for targets, of which the first `out_len` are used).
        in_len: input months.
        out_len: target months.

    Returns:
        for "train", "validation", "test": positions `[n]` for each series.

    Raises:
        ValueError: if the split is unknown or a series is shorter than a window.
    """
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown; use one of {SPLITS}")
    span = in_len + out_len
    if min(lengths) < span:
        raise ValueError(
            f"in_len={in_len} and out_len={out_len} need {span} months; "
            f"the shortest climate model has {min(lengths)}"
        )
    if split == "paper":
        span = max(span, PAPER_SPAN)
    owner = {VALIDATION_MODEL: "validation", TEST_MODEL: "test"}
    starts = {name: [] for name in PAPER_STRIDES}
    for model, months in enumerate(lengths):
        for name, stride in PAPER_STRIDES.items():
            mine = owner.get(model, "train") == name
            stride = stride if split == "paper" else 1
            end = months if mine else 0
            starts[name].append(starts_between(0, end, span, stride))
    return starts


def find(path: Path) -> Path | None:
    """The ICAR-ENSO training file at a path, or None if there is none.

    Args:
        path: a directory with CMIP_train.nc (preferred) or SODA_train.nc, or a file
            whose `sst` has dimensions year, month, lat, lon.
    """
    if path.is_dir():
        there = [path / name for name in TRAIN_FILES if (path / name).exists()]
        return there[0] if there else None
    if not path.is_file() or formats.kind_of(path) is not NamedFile:
        return None
    with cf.opened(path) as dataset:
        layouts = [set(array.dims) for array in dataset.data_vars.values()]
        return path if set(DIMENSIONS) in layouts else None


def find_labels(train: Path, label_path: str = "") -> Path:
    """The label file that belongs to a training file.

    Raises:
        FileNotFoundError: if it does not exist.
    """
    if label_path:
        labels = Path(label_path)
    else:
        labels = train.with_name(train.name.replace("train", "label"))
    if not labels.exists() or labels == train:
        raise FileNotFoundError(
            f"the labels of {train} are not in {labels}; put the label file next to "
            "the training file, or set `label_path`"
        )
    return labels


def read(train: Path, labels: Path | None, variable: str = "") -> Months:
    """Reads an ICAR-ENSO file.

    CMIP_train.nc, recognised by its 4645 rows, is split by climate model. Any other
    file is one series and is split by date, with the years of the file's `year`.

    Args:
        train: the training file.
        labels: the label file; None: it is not needed.
        variable: name of the temperature; default: "sst".

    Raises:
        ValueError: if the files cannot be used.
    """
    nino = None
    if labels is not None:
        with cf.opened(labels) as dataset:
            nino = _variable(dataset, "nino", labels).transpose("year", "month")
            nino = cf.loaded(nino, labels)
    with cf.opened(train) as dataset:
        sst = _variable(dataset, variable or "sst", train)
        sst, latitude, longitude = _on_region(sst, train)
        _check_rows(sst, train)
        if nino is not None:
            _check_labels(sst, nino, train, labels)
        rows = [n for models, n in CMIP for _ in range(models)]
        by_model = sst.sizes["year"] == CMIP_ROWS
        if not by_model:
            rows = [sst.sizes["year"]]
        ends = np.cumsum(rows)
        first_year = int(sst["year"][0]) if "year" in sst.coords else 1
        pieces = [slice(end - n, end) for n, end in zip(rows, ends, strict=True)]
        fields = [_unfolded(sst[piece], train, strict=not by_model) for piece in pieces]
    index = ()
    if nino is not None:
        index = [unfold(nino[piece]).astype(np.float32) for piece in pieces]
    return Months(
        label=train.name,
        fields=fields,
        three_month_index=index,
        first_month=0 if by_model else 12 * first_year,
        latitude=latitude,
        longitude=longitude,
        by_model=by_model,
    )


def divided(
    data: Months,
    dates: Dates = NO_DATES,
    *,
    split: str = "paper",
    in_len: int = 12,
    out_len: int = 14,
    fold: Fold = NO_FOLD,
) -> IcarEnso:
    """Divides series into training, validation and test windows.

    Args:
        data: the series, with their index.
        dates: of the splits, if divided by date.
        split: "paper" or "released", if divided by climate model.
        in_len: input months.
        out_len: target months.
        fold: the block of the training period to validate on, if divided by date.

    Raises:
        ValueError: if the settings cannot be used.
    """
    cube, fields = data.cube, data.fields
    if data.by_model:
        given = [f"`{k}`" for k, date in dataclasses.asdict(dates).items() if date]
        given += ["`folds`"] if fold.count else []
        if given:
            raise ValueError(
                f"{data.label} is split by climate model (split={split!r}); "
                f"{' and '.join(given)} cannot be used with it"
            )
        places = model_starts([len(x) for x in fields], split, in_len, out_len)
        first = cube.segments[:, 0]
        starts = {
            name: np.concatenate([a + p for a, p in zip(first, x, strict=True)])
            for name, x in places.items()
        }
        periods = None
        starts, repeated = without_repeats(cube, starts, in_len, out_len)
        used = [i for i, p in enumerate(places["train"]) if len(p)]
        training = [fields[i] for i in used]
        pieces = [(int(a), int(b)) for a, b in cube.segments[used]]
        how = (
            f"{len(training)} models to train, 1 to validate, 1 to test, {split} "
            f"windows{f', {repeated}' if repeated else ''}"
        )
    else:
        periods = split_periods(cube, dates, in_len, out_len, VALIDATION_SHARE, fold)
        starts = window_starts(cube, periods, in_len, out_len)
        pieces = training_pieces(periods)
        training = [fields[0][slice(*periods["train"])]]
        how = "split by date"
    ocean = np.any([np.any(x != 0, axis=0) for x in training], axis=0)
    grid = Grid(data.latitude, data.longitude, ocean)
    return IcarEnso(
        cube=cube,
        three_month_index=np.concatenate(data.three_month_index),
        starts=starts,
        training=training,
        training_pieces=pieces,
        grid=grid,
        nino_weights=point_weights(grid),
        periods=periods,
        description=f"{data.label}: ICAR-ENSO 'sst' on {grid}, {how}",
    )


def _variable(dataset: xr.Dataset, name: str, path: Path) -> xr.DataArray:
    if name not in dataset.variables:
        raise no_variable(path, name, map(str, dataset.data_vars))
    return dataset[name]


def _on_region(
    sst: xr.DataArray, path: Path
) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """The columns 95E..330E, and the cell centres."""
    if set(sst.dims) != set(DIMENSIONS):
        raise ValueError(
            f"{path}: {sst.name!r} has dimensions {sst.dims}; expected {DIMENSIONS}"
        )
    sst = sst.transpose(*DIMENSIONS)
    if not {"lat", "lon"} <= set(sst.coords):
        raise ValueError(f"{path} has no coordinate variables lat and lon")
    longitude = sst["lon"].values.astype(np.float64)
    latitude = sst["lat"].values.astype(np.float64)
    inside = (longitude >= LONGITUDES[0]) & (longitude <= LONGITUDES[1])
    for axis, values in (("lat", latitude), ("lon", longitude)):
        if values.size < 2 or np.any(np.diff(values) <= 0):
            raise ValueError(
                f"{path}: {axis} must ascend; it runs from {values[0]:g} to "
                f"{values[-1]:g}. ICAR-ENSO files have lat -55..60 and lon 0..355"
            )
    return sst[:, :, :, inside], latitude, longitude[inside]


def _check_rows(sst: xr.DataArray, train: Path) -> None:
    """Rejects a file whose rows are not 36 months."""
    if sst.sizes["month"] != ROW_MONTHS:
        raise ValueError(
            f"{train}: rows have {sst.sizes['month']} months; expected {ROW_MONTHS}"
        )


def _check_labels(
    sst: xr.DataArray, nino: np.ndarray, train: Path, labels: Path | None
) -> None:
    """Rejects labels that do not belong to a file, or have gaps."""
    if nino.shape != (sst.sizes["year"], ROW_MONTHS):
        raise ValueError(
            f"{labels} has labels for {nino.shape} (year, month) but {train} has sst "
            f"for {(sst.sizes['year'], ROW_MONTHS)}; they do not belong together"
        )
    if not np.all(np.isfinite(nino)):
        raise ValueError(f"{labels} has missing labels")


def _unfolded(rows: xr.DataArray, path: Path, *, strict: bool) -> np.ndarray:
    """One model's rows as a series, checked where they overlap and for NaN.

    CMIP_train.nc is known to be in order, so there a difference is only reported.
    """
    values = cf.loaded(rows, path).astype(np.float32, copy=False)
    years = rows["year"].values if "year" in rows.coords else np.arange(len(values))
    bad = ~np.isfinite(values).all(axis=(1, 2, 3))
    if bad.any():
        raise ValueError(
            f"{path}: 'sst' has missing values (NaN) in {bad.sum()} of {len(values)} "
            f"rows, first in year {years[np.argmax(bad)]}; ICAR-ENSO files have none, "
            "and land is 0"
        )
    apart = np.any(values[:-1, ROW_STRIDE:] != values[1:, :-ROW_STRIDE], axis=(1, 2, 3))
    if apart.any():
        at = int(np.argmax(apart))
        message = (
            f"{path}: the row of year {years[at]} (months 13-36) and the next row "
            "(months 1-24) should be the same months but differ; the rows are not one "
            "continuous series"
        )
        if strict:
            raise ValueError(message)
        logging.warning("%s", message)
    return unfold(values)
