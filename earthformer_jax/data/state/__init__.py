"""What a trained model knows of its data, kept in the workdir as a NetCDF file.

A model has learned with certain channels, on a certain grid, in the units that the
statistics of its training period define. All of this belongs to the model: a later
evaluation, forecast or continued training takes it from here, never from the files that
are at hand then. For data without statistics (already in fixed units, or generated) the
state is small.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.data.readers import times
from earthformer_jax.data.source import Source
from earthformer_jax.settings import ConfigError

FILE = "data.nc"
VERSION = 1
LEARNED = ("train", "validation")  # splits that training has seen
GRID_TOLERANCE = 1e-4  # degrees
EXAMPLES_CHECKED = 8  # per split, of data that are not a series
EPOCH = "minutes since 1970-01-01 00:00:00"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What a model is fed with: fields that differ in this cannot be given to it.

    Attributes:
        channels: names of the channels of the data; the targets come first.
        units: of the channels, in the same order; "" where unknown.
        size: rows and columns.
        frame: time from one frame to the next, "day"; "" if unknown.
        latitude: degrees north `[h]` or `[h, w]`; None if unknown.
        longitude: degrees east `[w]` or `[h, w]`; None if unknown.
        standard_names: of the channels in the CF conventions, "" where unknown; () if
            none is known.
        flipped: whether rows run the other way in the files; None if unknown.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    size: tuple[int, int]
    frame: str = ""
    latitude: np.ndarray | None = None
    longitude: np.ndarray | None = None
    standard_names: tuple[str, ...] = ()
    flipped: bool | None = None

    def differences(self, other: "Layout") -> list[str]:
        """Lines that say how another layout differs, "grid: 8 x 8 cells, now 6 x 8".

        What one of them does not know (units, cadence, coordinates) is not compared.
        """
        lines = []
        if self.channels != other.channels:
            here, there = ", ".join(self.channels), ", ".join(other.channels)
            lines.append(f"variables: {here}, now {there}")
        else:
            lines += [
                f"units of {name!r}: {a!r}, now {b!r}"
                for name, a, b in zip(
                    self.channels, self.units, other.units, strict=True
                )
                if a and b and a != b
            ]
        if self.size != other.size:
            here, there = (f"{h} x {w} cells" for h, w in (self.size, other.size))
            lines.append(f"grid: {here}, now {there}")
        if self.frame and other.frame and self.frame != other.frame:
            lines.append(f"time from frame to frame: {self.frame}, now {other.frame}")
        if self.size == other.size:
            for name in ("latitude", "longitude"):
                a, b = getattr(self, name), getattr(other, name)
                turn = 360.0 if name == "longitude" else 0.0
                if a is not None and b is not None and not _same_axis(a, b, turn):
                    lines.append(f"{name}s: {_range(a)}, now {_range(b)}")
        return lines


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataState:
    """What a trained model knows of its data.

    Attributes:
        name: of the data set, "custom".
        description: one line with the data, the period and the number of examples.
        layout: what the model is fed with.
        input_shape: (t, h, w, c) of an example.
        target_shape: (k, h, w, c) of an example.
        examples: number of examples of each split.
        frames: first frame of each split and the one after its last, in the series that
            was trained on; {} for data that are not a series.
        minutes: first and last time of each split since 1970-01-01 UTC; {} if unknown.
        calendar: of the times in the files; "" if unknown.
        checksums: uint64 `[n]` of values of each split: of every frame of a series in
            memory, otherwise of some frames or examples. {} for generated data.
        fitted: statistics of the training period, by the names its data set chooses;
            empty if there are none.
    """

    name: str
    description: str
    layout: Layout
    input_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    examples: Mapping[str, int]
    frames: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    minutes: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    calendar: str = ""
    checksums: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    fitted: xr.Dataset = dataclasses.field(default_factory=xr.Dataset)

    def differences(
        self, other: "DataState", splits: Iterable[str] = LEARNED
    ) -> list[str]:
        """Lines that say how other data differ in what was learned from.

        Args:
            other: of the data at hand.
            splits: those that are compared.
        """
        lines = self.layout.differences(other.layout)
        for split in splits:
            before, now = self.minutes.get(split), other.minutes.get(split)
            if before != now:
                lines.append(f"{split} period: {_period(before)}, now {_period(now)}")
                continue
            if self.examples.get(split) != other.examples.get(split):
                lines.append(
                    f"{split} examples: {self.examples.get(split)}, now "
                    f"{other.examples.get(split)}"
                )
            a, b = self.checksums.get(split), other.checksums.get(split)
            if a is None or b is None or np.array_equal(a, b):
                continue
            if len(a) != len(b):
                lines.append(f"{split} frames: {len(a)}, now {len(b)}")
            else:
                count = int(np.sum(a != b))
                lines.append(f"{split} values: {count} of {len(a)} checksums differ")
        return lines

    def write(self, workdir: str | os.PathLike[str]) -> None:
        """Writes `FILE` into a folder, completely or not at all."""
        path = Path(workdir, FILE)
        unfinished = path.with_name(f".{FILE}.part")
        to_dataset(self).to_netcdf(unfinished, engine="netcdf4")
        os.replace(unfinished, path)


def read(workdir: str | os.PathLike[str]) -> DataState | None:
    """The state that a workdir holds; None if it has none.

    Raises:
        ConfigError: if there is one that cannot be read.
    """
    path = Path(workdir, FILE)
    if not path.exists():
        return None
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_times=False) as file:
            return from_dataset(file.load())
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"{path}, which holds the statistics that the model was trained with, "
            f"cannot be read ({error}); restore it, or use another workdir"
        ) from error


def to_dataset(state: DataState) -> xr.Dataset:
    """The state as a CF data set."""
    layout = state.layout
    dataset = state.fitted.assign_coords(channel=list(layout.channels))
    dataset["units"] = ("channel", list(layout.units))
    if any(layout.standard_names):
        dataset["standard_names"] = ("channel", list(layout.standard_names))
    splits = list(state.examples)
    dataset = dataset.assign_coords(split=splits)
    dataset["examples"] = ("split", [state.examples[s] for s in splits])
    for name, periods, attributes in (
        ("frames", state.frames, {"long_name": "first frame, and the one after"}),
        ("period", state.minutes, {"long_name": "first and last time", "units": EPOCH}),
    ):
        if periods:
            pairs = np.array([periods.get(s, (0, 0)) for s in splits], np.int64)
            dataset[name] = (("split", "bound"), pairs, attributes)
    for split, values in state.checksums.items():
        dataset[f"checksums_{split}"] = (f"{split}_frame", values)
    for name, units in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
        values = getattr(layout, name)
        if values is not None:
            axis = "y" if name == "latitude" else "x"
            dims = (axis,) if values.ndim == 1 else ("y", "x")
            attributes = {"standard_name": name, "units": units}
            dataset = dataset.assign_coords({name: (dims, values, attributes)})
    if layout.flipped is not None:
        dataset.attrs["rows_flipped"] = int(layout.flipped)
    return dataset.assign_attrs(
        Conventions="CF-1.11",
        title="What a model was trained with",
        version=VERSION,
        data_set=state.name,
        description=state.description,
        size=np.array(layout.size),
        frame=layout.frame,
        calendar=state.calendar,
        input_shape=np.array(state.input_shape),
        target_shape=np.array(state.target_shape),
    )


def from_dataset(dataset: xr.Dataset) -> DataState:
    """The inverse of `to_dataset`.

    Raises:
        ValueError: if it was written by a newer version.
        KeyError: if something is missing.
    """
    attributes = dataset.attrs
    if attributes["version"] > VERSION:
        raise ValueError("it was written by a newer version of this package")
    splits = [str(s) for s in dataset["split"].values]

    def pairs(name: str) -> dict[str, tuple[int, int]]:
        if name not in dataset:
            return {}
        values = dataset[name].values
        return {s: (int(a), int(b)) for s, (a, b) in zip(splits, values, strict=True)}

    height, width = (int(n) for n in attributes["size"])
    checksums = {
        s: dataset[f"checksums_{s}"].values
        for s in splits
        if f"checksums_{s}" in dataset
    }
    own = ["units", "examples", "frames", "period", "channel", "split"]
    own += [
        "latitude",
        "longitude",
        "standard_names",
        *(f"checksums_{s}" for s in splits),
    ]
    coordinates = {
        name: dataset[name].values if name in dataset.variables else None
        for name in ("latitude", "longitude")
    }
    return DataState(
        name=attributes["data_set"],
        description=attributes["description"],
        layout=Layout(
            channels=tuple(str(x) for x in dataset["channel"].values),
            units=tuple(str(x) for x in dataset["units"].values),
            size=(height, width),
            frame=attributes["frame"],
            standard_names=tuple(str(x) for x in dataset["standard_names"].values)
            if "standard_names" in dataset
            else (),
            flipped=bool(attributes["rows_flipped"])
            if "rows_flipped" in attributes
            else None,
            **coordinates,
        ),
        input_shape=tuple(int(n) for n in attributes["input_shape"]),
        target_shape=tuple(int(n) for n in attributes["target_shape"]),
        examples={
            s: int(n) for s, n in zip(splits, dataset["examples"].values, strict=True)
        },
        frames=pairs("frames"),
        minutes=pairs("period"),
        calendar=attributes["calendar"],
        checksums=checksums,
        fitted=xr.Dataset(dataset.drop_vars(own, errors="ignore").variables),
    )


def checksums(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """A checksum of the values of each array, uint64 `[n]`; all NaN are equal."""

    def one(values: np.ndarray) -> int:
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
        content = np.ascontiguousarray(values).tobytes()
        return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")

    return np.array([one(np.asarray(x)) for x in arrays], np.uint64)


def example_checksums(source: Source) -> np.ndarray:
    """Checksums of inputs and targets of some examples, spread over a source."""
    count = min(len(source), EXAMPLES_CHECKED)
    chosen = np.linspace(0, len(source) - 1, count).astype(int)
    examples = (source[int(i)] for i in chosen)
    return checksums(x[name] for x in examples for name in ("inputs", "targets"))


def _same_axis(a: np.ndarray, b: np.ndarray, turn: float) -> bool:
    """Whether coordinates are the same up to whole turns; 0: exactly."""
    if a.shape != b.shape:
        return False
    apart = a - b
    if turn:
        apart = apart - turn * np.round(apart / turn)
    return bool(np.all(np.abs(apart) <= GRID_TOLERANCE))


def _range(values: np.ndarray) -> str:
    first, last = np.ravel(values)[[0, -1]]
    return f"{first:.6g}..{last:.6g}"


def _period(period: tuple[int, int] | None) -> str:
    """ "2008-01-01..2015-09-13", or "unknown"."""
    if period is None:
        return "unknown"
    return "..".join(times.text(minute) for minute in period)
