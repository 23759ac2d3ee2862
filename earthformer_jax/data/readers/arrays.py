"""Fields in arrays whose axes have no names: HDF5 data sets and .npy files.

The letters of `axes` name the axes: n independent sequences, t time, h rows (north to
south, as in an image), w columns, c channels. "hw" is one field per file.
"""

import contextlib
import posixpath
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from earthformer_jax.data.readers import decoding
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.layout import (
    MIN_DIMENSIONS,
    NUMBERS,
    Layout,
    Wanted,
    check_numbers,
    no_variable,
    to_float,
)

LETTERS = "nthwc"
MOST_CHANNELS = 8  # a last axis of at most this length is assumed to be channels
COORDINATES = {"latitude": ("latitude", "lat"), "longitude": ("longitude", "lon")}
TIME_NAMES = ("time", "t", "date")
FILL_ATTRIBUTES = ("_FillValue", "missing_value")


def guess_axes(shape: Sequence[int]) -> str:
    """The most likely meaning of axes of these lengths.

    "thw", "hwt" if only the first two are equal, "nthw", "nhwt" if only the middle two
    are equal, "thwc" if the last is short, "nthwc", "hw".

    Raises:
        ValueError: if there are too few or too many axes.
    """
    dims = len(shape)
    if dims == 2:
        return "hw"
    if dims == 3:
        return "hwt" if shape[0] == shape[1] != shape[2] else "thw"
    if dims == 4:
        if shape[3] <= MOST_CHANNELS:
            return "thwc"
        return "nhwt" if shape[1] == shape[2] != shape[3] else "nthw"
    if dims == 5:
        return "nthwc"
    raise ValueError(
        f"an array of shape {tuple(shape)}; expected time, rows and columns, and "
        "optionally sequences or channels"
    )


def check_axes(axes: str, shape: Sequence[int], what: str) -> None:
    """Rejects letters that do not match an array.

    Raises:
        ValueError: if they do not; the message lists the expected letters.
    """
    known = set(axes) <= set(LETTERS) and len(set(axes)) == len(axes)
    if not known or not set("hw") <= set(axes) or ("t" not in axes and axes != "hw"):
        raise ValueError(
            f"axes={axes!r}: expected the letters t, h and w, each once, "
            "and n for sequences or c for channels if there are any, such as 'thw' "
            "or 'nhwt'"
        )
    if len(axes) != len(shape):
        raise ValueError(
            f"axes={axes!r} names {len(axes)} axes; {what} has "
            f"{len(shape)}: {tuple(shape)}"
        )


def axes_text(axes: str, shape: Sequence[int]) -> str:
    """ "t=40, h=1226, w=760" """
    return ", ".join(f"{a}={n}" for a, n in zip(axes, shape, strict=True))


def read_array(array, axes: str, sequence: int, steps, rows, columns) -> np.ndarray:
    """Stored values `[t, h, w, c]` of slices of an array-like with named axes."""
    cut = {"n": sequence, "t": steps, "h": rows, "w": columns, "c": slice(None)}
    values = np.asarray(array[tuple(cut[axis] for axis in axes)])
    left = axes.replace("n", "")
    for axis in "thwc":
        if axis not in left:
            values, left = values[..., None], left + axis
    return values.transpose([left.index(axis) for axis in "thwc"])


class NpyFile:
    """A memory-mapped .npy file; `layout` describes its contents."""

    def __init__(self, path: Path, wanted: Wanted):
        """Reads the header.

        Raises:
            ValueError: if the file is damaged, not numeric, or has other axes.
        """
        self._path, self._missing = path, wanted.missing
        array = self.open()
        check_numbers(path.name, array.dtype, path)
        self._axes = _choose_axes(wanted.axes, array.shape, path, str(path))
        sizes = dict(zip(self._axes, array.shape, strict=True))
        self.layout = Layout(
            path=path,
            format=".npy",
            names=_channel_names(wanted.variables, sizes.get("c"), path),
            units=("",) * sizes.get("c", 1),
            sequences=sizes.get("n", 1),
            steps=sizes.get("t", 1),
            size=(sizes["h"], sizes["w"]),
            notes=_axes_note(wanted.axes, self._axes, array.shape),
            single=self._axes == "hw",
        )

    def open(self) -> np.memmap:
        """The array, mapped to memory."""
        try:
            array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # NumPy has a message for each kind of damage
            raise ValueError(self._unreadable(error)) from None
        if not isinstance(array, np.memmap):
            raise ValueError(
                f"{self._path} is an archive of arrays; save one as .npy with np.save"
            )
        return array

    def read(self, handle, sequence: int, steps, rows, columns) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        values = read_array(handle, self._axes, sequence, steps, rows, columns)
        return to_float(values, self._missing)

    def _unreadable(self, error: Exception) -> str:
        size = self._path.stat().st_size
        if "object" in str(error).lower():
            return (
                f"{self._path} contains Python objects, which are not opened because "
                "they can run code; save a plain array of numbers"
            )
        return (
            f"path={self._path} cannot be read: it is truncated, damaged "
            f"or not a .npy file ({size} bytes; {error}). Download or write it again"
        )


class Hdf5File:
    """Data sets of an HDF5 file; `layout` describes its contents."""

    def __init__(self, path: Path, wanted: Wanted):
        """Reads everything but the fields.

        Raises:
            ValueError: if the file is damaged or lacks the requested data sets.
        """
        self._path = path
        with contextlib.closing(self.open()) as file:
            arrays = datasets(file)
            self._names = _choose_datasets(arrays, wanted, path)
            first = arrays[self._names[0]]
            what = f"{self._names[0]!r} of {path}"
            self._axes = _choose_axes(wanted.axes, first.shape, path, what)
            sizes = dict(zip(self._axes, first.shape, strict=True))
            channels = sizes.get("c")
            self._missing = {
                name: (*wanted.missing, *_declared_missing(arrays[name]))
                for name in self._names
            }
            self._packing = {name: _packing(arrays[name]) for name in self._names}
            sequences, steps = sizes.get("n", 1), sizes.get("t", 1)
            left = [
                name
                for name, array in arrays.items()
                if array.ndim >= MIN_DIMENSIONS and name not in self._names
            ]
            notes = _axes_note(wanted.axes, self._axes, first.shape)
            times = _find_times(arrays, steps, path) if sequences == 1 else None
            self.layout = Layout(
                path=path,
                format="HDF5",
                names=_dataset_channels(self._names, channels),
                units=tuple(
                    _text(arrays[name].attrs.get("units", ""))
                    for name in self._names
                    for _ in range(channels or 1)
                ),
                sequences=sequences,
                steps=steps,
                size=(sizes["h"], sizes["w"]),
                times=times,
                latitude=_find_coordinate(arrays, "latitude", sizes["h"]),
                longitude=_find_coordinate(arrays, "longitude", sizes["w"]),
                notes=notes + ((f"left out: {', '.join(left)}",) if left else ()),
                single=self._axes == "hw",
            )

    def open(self) -> h5py.File:
        """The open file, which the caller closes."""
        try:
            return h5py.File(self._path, "r")
        except OSError as error:
            raise ValueError(self._unreadable(error)) from None

    def read(self, handle, sequence: int, steps, rows, columns) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        channels = []
        for name in self._names:
            try:
                values = read_array(
                    handle[name], self._axes, sequence, steps, rows, columns
                )
            except (OSError, KeyError) as error:
                raise ValueError(self._unreadable(error)) from None
            scale, offset = self._packing[name]
            floats = to_float(values, self._missing[name])
            channels.append(floats if (scale, offset) == (1, 0) else None)
            if channels[-1] is None:
                channels[-1] = (floats * scale + offset).astype(np.float32)
        return np.concatenate(channels, axis=-1)

    def _unreadable(self, error: Exception) -> str:
        size = self._path.stat().st_size
        return (
            f"path={self._path} is an HDF5 file that cannot be read: it is "
            f"truncated or damaged ({size} bytes; {error}). Download or write it again"
        )


def datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All data sets of a file by their path, without the leading "/"."""
    found = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(visit)
    return found


def _choose_datasets(arrays, wanted: Wanted, path: Path) -> list[str]:
    """Names of the requested data sets, or of all with the shape of the largest."""
    variables = wanted.variables
    fields = [name for name, array in arrays.items() if array.ndim >= MIN_DIMENSIONS]
    if variables:
        for name in variables:
            if name not in arrays:
                raise no_variable(path, name, fields)
            check_numbers(name, arrays[name].dtype, path)
            if arrays[name].shape != arrays[variables[0]].shape:
                raise ValueError(
                    f"{path}: {variables[0]!r} has shape {arrays[variables[0]].shape} "
                    f"and {name!r} {arrays[name].shape}; variables must share axes"
                )
        return list(variables)
    numeric = [name for name in fields if arrays[name].dtype.kind in NUMBERS]
    if not numeric:
        for name in fields[:1]:
            check_numbers(name, arrays[name].dtype, path)
        there = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(
            f"{path} has no data set of three or more dimensions; there are: "
            f"{there or 'none'}"
        )
    if wanted.quantity is not None:
        attributes = {
            name: {key: _text(value) for key, value in arrays[name].attrs.items()}
            for name in numeric
        }
        return [wanted.quantity.find(attributes, path)]
    largest = max(numeric, key=lambda name: arrays[name].size)
    return [name for name in numeric if arrays[name].shape == arrays[largest].shape]


def _choose_axes(axes: str, shape: Sequence[int], path: Path, what: str) -> str:
    if not axes:
        try:
            return guess_axes(shape)
        except ValueError as error:
            raise ValueError(f"{path} contains {error}") from None
    check_axes(axes, shape, what)
    return axes


def _axes_note(asked: str, axes: str, shape: Sequence[int]) -> tuple[str, ...]:
    if asked:
        return ()
    return (f"axes assumed to be {axes!r} ({axes_text(axes, shape)})",)


def _channel_names(variables: tuple[str, ...], channels: int | None, path: Path):
    """Names of the channels of an array without names."""
    if variables and len(variables) != (channels or 1):
        raise ValueError(
            f"variables={','.join(variables)} names {len(variables)} "
            f"channels; {path} has {channels or 1}"
        )
    if variables:
        return variables
    if channels is None:
        return ("value",)
    return tuple(f"value_{i}" for i in range(channels))


def _dataset_channels(names: Sequence[str], channels: int | None) -> tuple[str, ...]:
    if channels is None:
        return tuple(names)
    return tuple(f"{name}_{i}" for name in names for i in range(channels))


def _declared_missing(array: h5py.Dataset) -> tuple[float, ...]:
    values = [array.attrs[name] for name in FILL_ATTRIBUTES if name in array.attrs]
    return tuple(
        float(v)
        for x in values
        for v in np.asarray(x).ravel()
        if np.asarray(v).dtype.kind in "iuf"
    )


def _packing(array: h5py.Dataset) -> tuple[float, float]:
    """scale_factor and add_offset."""

    def number(name, default):
        return float(np.asarray(array.attrs.get(name, default)).flat[0])

    return number("scale_factor", 1.0), number("add_offset", 0.0)


def _find_times(arrays, steps: int, path: Path) -> times_lib.Times | None:
    """Times in a data set "time..." with one value per step, if they can be decoded."""
    for name, array in arrays.items():
        short = posixpath.basename(name).lower()
        named = short in TIME_NAMES or short.startswith(("time", "date"))
        if not named or array.shape != (steps,):
            continue
        try:
            times = decoding.decode(
                array[()],
                _text(array.attrs.get("units", "")),
                _text(array.attrs.get("calendar", "")),
            )
        except ValueError as error:
            raise ValueError(f"{path}: the times in {name!r}: {error}") from None
        if times is not None:
            return times
    return None


def _find_coordinate(arrays, axis: str, size: int) -> np.ndarray | None:
    for name, array in arrays.items():
        short = posixpath.basename(name).lower()
        if short in COORDINATES[axis] and array.shape == (size,):
            return np.asarray(array[()], np.float64)
    return None


def _text(value) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode() if isinstance(value, bytes) else str(value)
