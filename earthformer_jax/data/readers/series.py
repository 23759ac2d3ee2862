"""Files as one time series of fields: joined, checked, cropped and coarsened."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from earthformer_jax.data.readers import formats
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.frames import (
    ArrayFrames,
    Cut,
    FileFrames,
    Frames,
    FramesBeside,
)
from earthformer_jax.data.readers.joining import beside
from earthformer_jax.data.readers.layout import Layout, Wanted
from earthformer_jax.data.readers.times import Times
from earthformer_jax.data.readers.values.missing import Coding

# A cube of at most this many bytes of float32 is read once and kept in memory.
MEMORY_BYTES = 2**30
MOST_NOTES = 3  # of the files after the first
VALIDATION_SHARE = 0.15  # of a group train in a file without one for validation


@dataclasses.dataclass(frozen=True)
class Cube:
    """A time series of fields of several variables.

    Attributes:
        label: human-readable name of the file or files.
        format: "NetCDF", "Zarr", "HDF5" or ".npy".
        names: of the channels.
        units: of the channels; "" where unknown.
        frames: the frames, read by number.
        segments: int `[s, 2]`, first frame and end of stretches without gaps.
        times: of the frames, increasing; None if unknown.
        cadence: minutes from frame to frame; 0 if unknown.
        latitude: degrees north `[h]`, ascending, or `[h, w]`; None if unknown.
        longitude: degrees east `[w]` or `[h, w]`; None if unknown.
        south_first: whether row 0 is the southernmost.
        flipped: whether rows run the other way in the files.
        codings: of the channels: how numbers are stored (in the first file); () if
            unknown.
        standard_names: of the channels in the CF conventions; () if unknown.
        long_names: of the channels, human-readable; () if unknown.
        converted_from: units in the files of channels whose values are converted to
            `units`, "" of others; () if none is.
        notes: assumptions, and what was left out.
        splits: first frame and end of each split, if the file says.
    """

    label: str
    format: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    frames: Frames
    segments: np.ndarray
    times: Times | None = None
    cadence: float = 0.0
    latitude: np.ndarray | None = None
    longitude: np.ndarray | None = None
    south_first: bool = False
    flipped: bool = False
    codings: tuple[Coding, ...] = ()
    standard_names: tuple[str, ...] = ()
    long_names: tuple[str, ...] = ()
    converted_from: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    splits: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def minutes(self) -> np.ndarray | None:
        """int64 `[t]` since 1970-01-01 UTC; None if unknown."""
        return None if self.times is None else self.times.minutes

    def channels(self, places: Sequence[int]) -> "Cube":
        """The same series with these channels, in this order."""

        def chosen(of_channels: tuple) -> tuple:
            return tuple(of_channels[i] for i in places) if of_channels else ()

        if list(places) == list(range(len(self.names))):
            return self
        return dataclasses.replace(
            self,
            names=chosen(self.names),
            units=chosen(self.units),
            codings=chosen(self.codings),
            standard_names=chosen(self.standard_names),
            long_names=chosen(self.long_names),
            converted_from=chosen(self.converted_from),
            frames=self.frames.channels(places),
        )

    def period(self, first: int, stop: int) -> str:
        """ "2008-01-01..2015-09-13" of frames first..stop - 1, or "frames 0..69"."""
        if self.minutes is None:
            return f"frames {first}..{stop - 1}"
        return times_lib.period_text(self.minutes[first:stop], self.cadence)

    def __str__(self) -> str:
        _, height, width, _ = self.frames.shape
        text = f"{', '.join(self.names)} on {height} x {width} cells"
        return text + grid_text(self.latitude, self.longitude)


def open_cube(
    path: str,
    wanted: Wanted,
    *,
    region: tuple[float, ...] = (),
    space_step: int = 1,
    time_step: int = 1,
    phase: int | None = None,
) -> Cube:
    """Opens the files at a path or pattern as a series; fields are read later.

    Rows run from south to north if the latitudes of the rows are known (files that run
    the other way are flipped), and as stored otherwise. Files of the same variables
    follow each other in time; files of different variables are put side by side if
    their times and grids agree.

    Args:
        path: a file, a Zarr store, or a pattern that matches many.
        wanted: variables, level, axes, missing values.
        region: (south, north, west, east) in degrees; () for all.
        space_step: n × n cells are averaged into one.
        time_step: use every n-th frame.
        phase: minutes since 1970-01-01 UTC of a frame that would be used if the series
            held it; None: the first frame of every stretch without gaps is used.

    Raises:
        FileNotFoundError: if `path` does not exist.
        ValueError: if a file cannot be read or used, or the files do not match.
    """
    files, left_out = beside.opened(formats.find(path), wanted)
    for file in files:
        _check_filled(file.layout)
    parts = beside.parts(files)
    layouts = [file.layout for part in parts for file in part.files]
    times, segments = parts[0].times, parts[0].segments()
    tables = [part.table for part in parts]
    if time_step > 1:
        pieces = _thinned_steps(segments, times, time_step, phase)
        chosen = np.concatenate(pieces)
        ends = np.cumsum([len(piece) for piece in pieces])
        segments = np.stack([np.concatenate([[0], ends[:-1]]), ends], axis=1)
        tables = [table[chosen] for table in tables]
        times = None if times is None else times[chosen]
    first = layouts[0]
    cut, latitude, longitude = _cut(first, region, space_step)
    notes = _notes([layout.notes for layout in layouts])
    notes += [*left_out, *(note for part in parts for note in part.notes)]
    splits = _splits(layouts, tables[0][:, 1], notes)
    frames = [
        FileFrames(part.files, table, cut, time_step)
        for part, table in zip(parts, tables, strict=True)
    ]
    channels = beside.order_of_channels(parts, wanted)
    leading = [part.files[0].layout for part in parts]
    names = [name for layout in leading for name in layout.names]
    units = [unit for layout in leading for unit in layout.units]
    codings = [coding for layout in leading for coding in layout.codings]
    standard_names, long_names = (
        [name for layout in leading for name in _described(layout, kind)]
        for kind in ("standard_names", "long_names")
    )
    cadence = times_lib.cadence(times)
    if times is not None and len(segments) > 1:
        notes.append(_gaps_text(times, segments, cadence))
    return Cube(
        label=_label(path, len(files), first),
        format=first.format,
        names=tuple(names[i] for i in channels),
        units=tuple(units[i] for i in channels),
        frames=frames[0] if len(frames) == 1 else FramesBeside(frames, channels),
        segments=segments,
        times=times,
        cadence=cadence,
        latitude=latitude,
        longitude=longitude,
        south_first=_south_first(latitude),
        flipped=cut.flip,
        codings=tuple(codings[i] for i in channels),
        standard_names=tuple(standard_names[i] for i in channels),
        long_names=tuple(long_names[i] for i in channels),
        notes=tuple(notes),
        splits=splits,
    )


def in_memory(cube: Cube, limit: float = MEMORY_BYTES) -> Cube:
    """The same cube with its values in memory, if they take at most `limit` bytes."""
    if isinstance(cube.frames, ArrayFrames):
        return cube
    if 4 * int(np.prod(cube.frames.shape, dtype=np.int64)) > limit:
        return cube
    frames = cube.frames.in_memory()
    cube.frames.close()
    return dataclasses.replace(cube, frames=frames)


def grid_text(latitude: np.ndarray | None, longitude: np.ndarray | None) -> str:
    """ " 4.76N..21.9N 30E..50.6E", or "" if unknown."""
    if latitude is None or longitude is None:
        return ""

    def degrees(value, positive, negative):
        return f"{abs(value):.4g}{positive if value >= 0 else negative}"

    south, north = (degrees(f(latitude), "N", "S") for f in (np.min, np.max))
    west, east = (degrees(f(longitude), "E", "W") for f in (np.min, np.max))
    return f" {south}..{north} {west}..{east}"


def check_regular(
    latitude, longitude, label: str | Path, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns latitudes of rows and longitudes of columns, or rejects the grid.

    Args:
        latitude: degrees north, or None.
        longitude: degrees east, or None.
        label: the file or files, for the message.
        what: the feature that needs a regular grid, for the message.

    Raises:
        ValueError: if the grid is not regular.
    """
    if latitude is not None and longitude is not None:
        if latitude.ndim == longitude.ndim == 1:
            return latitude, longitude
    there = "none" if latitude is None else "those of a curvilinear grid"
    raise ValueError(
        f"{what} needs latitudes of rows and longitudes of columns; {label} has "
        f"{there}. Interpolate it to a regular latitude-longitude grid first"
    )


def _notes(of_files: Sequence[Sequence[str]]) -> list[str]:
    """The notes of files, each once; of the files after the first a few."""
    first = list(dict.fromkeys(of_files[0]))
    others = [note for notes in of_files[1:] for note in notes if note not in first]
    others = list(dict.fromkeys(others))
    more = len(others) - MOST_NOTES
    shown = first + others[:MOST_NOTES]
    return shown + ([f"{more} more notes like these"] if more > 0 else [])


def _described(layout: Layout, kind: str) -> tuple[str, ...]:
    """Standard or long names of all channels; "" where unknown."""
    return getattr(layout, kind) or ("",) * len(layout.names)


def _label(path: str, count: int, first: Layout) -> str:
    """ "sst.nc", or "era*.nc (3 files)"."""
    return first.path.name if count == 1 else f"{Path(path).name} ({count} files)"


def _check_filled(layout: Layout) -> None:
    height, width = layout.size
    if not layout.steps or not layout.sequences or not height or not width:
        raise ValueError(
            f"{layout.path} is empty: {layout.sequences} sequences of {layout.steps} "
            f"steps of {height} x {width} cells; leave it out"
        )


def _splits(
    layouts: Sequence[Layout], sequences: np.ndarray, notes: list[str]
) -> dict[str, tuple[int, int]]:
    """First frame and end of each split of a file that has groups for them.

    Args:
        layouts: of the files.
        sequences: the sequence of each frame.
        notes: what is assumed is added here.
    """
    counts = dict(layouts[0].splits)
    if not any(layout.splits for layout in layouts):
        return {}
    choice = "give `variables`=train to use one group and divide it"
    if len(layouts) > 1:
        raise ValueError(
            f"{layouts[0].path} and {layouts[1].path} have groups for the splits; use "
            f"one such file, or {choice}"
        )
    if not {"train", "test"} <= set(counts):
        raise ValueError(
            f"{layouts[0].path} has groups for {' and '.join(counts)}; expected train "
            f"and test, and perhaps validation. Rename them, or {choice}"
        )
    if "validation" not in counts:
        last = max(1, round(VALIDATION_SHARE * counts["train"]))
        counts = {"train": counts["train"] - last, "validation": last} | {
            "test": counts["test"]
        }
        notes.append(f"the last {last} sequences of the group train are for validation")
    notes.append(f"the groups of {layouts[0].path.name} are the splits")
    ends = np.searchsorted(sequences, np.cumsum(list(counts.values()))).tolist()
    return dict(zip(counts, zip([0, *ends], ends, strict=False), strict=True))


def _cut(
    layout: Layout, region: tuple[float, ...], space_step: int
) -> tuple[Cut, np.ndarray | None, np.ndarray | None]:
    """The part of the fields that is used, and its coordinates."""
    latitude, longitude = layout.latitude, layout.longitude
    regular = False
    if latitude is not None and longitude is not None:
        regular = latitude.ndim == longitude.ndim == 1
    height, width = layout.size
    rows, columns = slice(0, height), (slice(0, width),)
    if region:
        what = f"region={_region_text(region)}"
        lat, lon = check_regular(latitude, longitude, layout.path, what)
        rows, columns = _find_region(lat, lon, region)
    flip = False
    if regular and latitude is not None:
        flip = bool(latitude[rows][0] > latitude[rows][-1])
    cut = Cut(rows, columns, flip, space_step)
    if min(cut.size) < 1:
        raise ValueError(
            f"space_step={space_step} is larger than the grid of {cut.stored[0]} x "
            f"{cut.stored[1]} cells"
        )
    if latitude is None or longitude is None:
        return cut, None, None
    if regular:
        latitude = latitude[rows][::-1] if flip else latitude[rows]
        longitude = np.concatenate([longitude[part] for part in columns])
        longitude = np.unwrap(longitude, period=360.0)
    return cut, _thinned(latitude, space_step), _thinned(longitude, space_step)


def _thinned_steps(
    segments: np.ndarray, times: Times | None, step: int, phase: int | None
) -> list[np.ndarray]:
    """Every n-th frame of stretches without gaps, in step with `phase` if given."""
    pieces = [np.arange(start, stop, step) for start, stop in segments]
    cadence = times_lib.cadence(times)
    if times is None or phase is None or not cadence:
        return pieces
    if phase in times.minutes[np.concatenate(pieces)]:  # the series itself holds it
        return pieces
    late = (times.minutes[segments[:, 0]] - phase) / cadence
    if times_lib.is_monthly(cadence):
        months = times_lib.month_of(np.append(times.minutes[segments[:, 0]], phase))
        late = months[:-1] - months[-1]
    firsts = segments[:, 0] + -np.rint(late).astype(np.int64) % step
    stops = segments[:, 1]
    return [np.arange(*ends, step) for ends in zip(firsts, stops, strict=True)]


def _thinned(x: np.ndarray, step: int) -> np.ndarray:
    """Means of blocks of `step` coordinates along every axis; a rest is left out."""
    for axis in range(x.ndim):
        x = np.moveaxis(x, axis, -1)
        x = x[..., : x.shape[-1] // step * step]
        x = x.reshape(*x.shape[:-1], -1, step).mean(axis=-1)
        x = np.moveaxis(x, -1, axis)
    return x


def _find_region(
    latitude: np.ndarray, longitude: np.ndarray, region: tuple[float, ...]
) -> tuple[slice, tuple[slice, ...]]:
    """Slices of rows and columns whose centres lie in a region or on its border."""
    south, north, west, east = region
    inside = np.flatnonzero((latitude >= south - 1e-6) & (latitude <= north + 1e-6))
    width = 360.0 if east - west >= 360 else (east - west) % 360
    distance = (longitude - west + 1e-6) % 360
    chosen = distance <= width + 2e-6
    if not len(inside) or not chosen.any():
        raise ValueError(
            f"region={_region_text(region)} contains no cells of the grid"
            f"{grid_text(latitude, longitude)}; write south, north, west, east in "
            "degrees"
        )
    edges = np.flatnonzero(np.diff(np.concatenate([[False], chosen, [False]])))
    runs = [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]
    if len(runs) > 2:
        raise ValueError(
            f"region={_region_text(region)}: the longitudes of the file are not sorted"
        )
    runs.sort(key=lambda run: min(distance[run.start], distance[run.stop - 1]))
    return slice(int(inside[0]), int(inside[-1]) + 1), tuple(runs)


def _region_text(region: tuple[float, ...]) -> str:
    return ",".join(f"{x:g}" for x in region)


def _south_first(latitude: np.ndarray | None) -> bool:
    if latitude is None:
        return False
    return bool(np.mean(latitude[0]) < np.mean(latitude[-1]))


def _gaps_text(times: Times, segments: np.ndarray, cadence: float) -> str:
    """ "2 gaps in steps of 1 day (after 2001-02-03), not crossed by any window" """
    before = [times_lib.text(int(times.minutes[stop - 1])) for _, stop in segments[:-1]]
    shown = ", ".join(before[:3]) + (", ..." if len(before) > 3 else "")
    count = len(before)
    step = times_lib.frame_name(cadence)
    return (
        f"{count} gap{'s' if count > 1 else ''} in steps of {step} (after {shown}), "
        "not crossed by any window"
    )
