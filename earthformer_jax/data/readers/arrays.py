"""Fields in .npy files, whose axes have no names."""

import math
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from earthformer_jax.data.readers import axes as axes_lib
from earthformer_jax.data.readers.layout import (
    Layout,
    Wanted,
    check_no_level,
    check_numbers,
)
from earthformer_jax.data.readers.values.missing import coding

BLOCK_BYTES = 2**24  # read at once, at most
SPARSE_BYTES = 2**16  # read at once even if little of it is needed


class NpyArray:
    """An array in a .npy file, of which `array[slices]` reads only what it needs.

    The file is read, not mapped to memory: if it is cut meanwhile, a read raises an
    exception, whereas touching a page that is gone ends the process.

    Attributes:
        shape: of the array.
        dtype: of the array.
    """

    def __init__(self, path: Path):
        """Opens the file and reads its header.

        Raises:
            TypeError: if it contains Python objects.
            ValueError: if it is damaged, or shorter than its header says.
        """
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._lock = threading.Lock()  # of the position in the file
        try:
            version = np.lib.format.read_magic(self._file)
            read_header = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read_header = np.lib.format.read_array_header_2_0
            self.shape, self._fortran, self.dtype = read_header(self._file)
            self._offset = self._file.tell()
            size = os.fstat(self._file.fileno()).st_size
        except Exception:  # NumPy has an exception for each kind of damage
            self._file.close()
            raise
        if self.dtype.hasobject:
            self._file.close()
            raise TypeError(
                "it contains Python objects, which are not opened because they can run "
                "code; save a plain array of numbers"
            )
        if any(length < 0 for length in self.shape):
            self._file.close()
            raise ValueError(f"its header gives the shape {self.shape}")
        need = self._offset + math.prod(self.shape) * self.dtype.itemsize
        if size < need:
            self._file.close()
            raise ValueError(f"its header needs {need} bytes")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __getitem__(self, key: int | slice | tuple[int | slice, ...]) -> np.ndarray:
        """The values of integers and slices with positive steps, of the first axes.

        Raises:
            ValueError: if the file has become too short.
        """
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None),) * (self.ndim - len(key)))
        if self._fortran:  # stored as a C array of the reversed axes
            return self._read(key[::-1], self.shape[::-1], self._offset).T
        return self._read(key, self.shape, self._offset)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _read(self, key, shape: Sequence[int], offset: int) -> np.ndarray:
        """Reads whole entries of the first axis that is not an integer."""
        if not key:
            return self._values(offset, 1).reshape(())
        entry = math.prod(shape[1:])  # values in one entry of the first axis
        if isinstance(key[0], int | np.integer):
            at = range(shape[0])[int(key[0])]
            return self._read(key[1:], shape[1:], offset + at * self._bytes(entry))
        chosen = range(shape[0])[key[0]]
        needed = math.prod(
            _length(k, n) for k, n in zip(key[1:], shape[1:], strict=True)
        )
        sparse = 4 * needed < entry and self._bytes(entry) > SPARSE_BYTES
        if sparse or self._bytes(entry) > BLOCK_BYTES:
            parts = [
                self._read(key[1:], shape[1:], offset + i * self._bytes(entry))
                for i in chosen
            ]
            if parts:
                return np.stack(parts)
        count = max(1, BLOCK_BYTES // max(1, self._bytes(entry)) // chosen.step)
        parts = []
        for first in range(0, max(1, len(chosen)), count):
            part = chosen[first : first + count]
            length = part[-1] - part[0] + 1 if part else 0
            start = offset + (part[0] if part else 0) * self._bytes(entry)
            values = self._values(start, length * entry).reshape(length, *shape[1:])
            parts.append(values[:: chosen.step][(slice(None), *key[1:])])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _bytes(self, count: int) -> int:
        return count * self.dtype.itemsize

    def _values(self, offset: int, count: int) -> np.ndarray:
        buffer = bytearray(self._bytes(count))
        view, done = memoryview(buffer), 0
        with self._lock:
            self._file.seek(offset)
            while done < len(buffer):  # the system may return less than asked
                got = self._file.readinto(view[done:])
                if not got:
                    raise ValueError(
                        f"{self._path} is shorter than when training began: it has "
                        f"{os.fstat(self._file.fileno()).st_size} bytes. Restore it"
                    )
                done += got
        return np.frombuffer(buffer, self.dtype, count)


def _length(key: int | slice, length: int) -> int:
    return len(range(length)[key]) if isinstance(key, slice) else 1


class NpyFile:
    """A .npy file; `layout` describes its contents."""

    def __init__(self, path: Path, wanted: Wanted):
        """Reads the header.

        Raises:
            ValueError: if the file is damaged, not numeric, or has other axes.
        """
        check_no_level(wanted, path)
        self._path, self._missing = path, wanted.missing
        array = self.open()
        array.close()
        check_numbers(path.name, array.dtype, path)
        self._axes, notes = choose_axes(wanted.axes, array.shape, str(path))
        sizes = dict(zip(self._axes, array.shape, strict=True))
        self.layout = Layout(
            path=path,
            format=".npy",
            names=_channel_names(wanted.variables, sizes.get("c"), path),
            units=("",) * sizes.get("c", 1),
            sequences=sizes.get("n", 1),
            steps=sizes.get("t", 1),
            size=(sizes["h"], sizes["w"]),
            codings=(coding({}, array.dtype),) * sizes.get("c", 1),
            notes=notes,
            single="t" not in self._axes,
        )

    def open(self) -> NpyArray:
        """The array, which the caller closes."""
        try:
            return NpyArray(self._path)
        except TypeError as error:
            raise ValueError(f"path={self._path} cannot be read: {error}") from None
        except Exception as error:  # NumPy has an exception for each kind of damage
            raise ValueError(
                f"path={self._path} cannot be read: it is truncated, damaged or not a "
                f".npy file ({self._path.stat().st_size} bytes; {error}). Download or "
                "write it again"
            ) from None

    def read(self, handle, sequence: int, steps, rows, columns) -> np.ndarray:
        """float32 `[t, h, w, c]` of slices of the axes; NaN where missing."""
        values = axes_lib.read_array(handle, self._axes, sequence, steps, rows, columns)
        return self.layout.codings[0].decode(values, self._missing)


def choose_axes(
    axes: str, shape: Sequence[int], what: str
) -> tuple[str, tuple[str, ...]]:
    """The axes that were given, or the likely ones and a note.

    Raises:
        ValueError: if the letters do not match the shape, or several readings fit.
    """
    if axes:
        axes_lib.check_axes(axes, shape, what)
        return axes, ()
    axes = axes_lib.guess_axes(shape, what)
    return axes, (axes_lib.axes_note(axes, shape),)


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
