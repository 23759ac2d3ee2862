"""Writes forecasts into a file, or into memory."""

import contextlib
import errno
import functools
import itertools
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from earthformer_jax.forecast import packing as packing_lib
from earthformer_jax.forecast import stores
from earthformer_jax.forecast.chunks import Chunk
from earthformer_jax.forecast.outline import Outline, Piece
from earthformer_jax.forecast.packing import Packing
from earthformer_jax.forecast.stores import Store
from earthformer_jax.forecast.unfinished import completed

CONVENTIONS = "CF-1.11"
FORMATS = {".nc": stores.NetCDF, ".zarr": stores.Zarr}
ZARR = (".zgroup", ".zarray", "zarr.json")  # of stores, in formats 2 and 3
LARGEST_PART = 2**18  # most values that are compressed together: 1 MiB of float32
LEAST_FREE = 2**22  # bytes: a disk with fewer is full


def write(
    path: str | os.PathLike[str], outline: Outline, chunks: Iterable[Chunk]
) -> None:
    """Writes forecasts in the units of the input, completely or not at all.

    Memory does not grow with the number of forecasts, nor with that of their steps.

    Args:
        path: of a file `NAME.nc` or a folder `NAME.zarr`; what is there is replaced.
        outline: what is written.
        chunks: all forecasts, in any order.

    Raises:
        ValueError: if the suffix is another one, or if a forecast is missing.
        OSError: if it cannot be written.
    """
    path = Path(path)
    check_path(path)
    guard = functools.partial(_one_error, path)
    with contextlib.ExitStack() as stack:
        with guard():
            unfinished = stack.enter_context(completed(path))
        shape, chunks = _shape_of_first(outline, chunks)
        sizes, entries = outline.describe(shape[-3:-1])
        pieces, packings = _pieces(outline, chunks), {}
        if outline.packed:
            names = [entry.name for entry in entries if entry.packable]
            packings, pieces = stack.enter_context(
                packing_lib.after_all(pieces, names, unfinished.parent, guard)
            )
        with guard():
            store = FORMATS[path.suffix](unfinished, sizes, _attributes(outline))
        try:
            with guard():
                _add(store, outline, shape, packings)
            for name, where, values in pieces:
                if name in packings:
                    values = packings[name].encode(values)
                with guard():
                    store.put(name, where, values)
        except BaseException:
            with contextlib.suppress(RuntimeError, OSError):
                store.close()  # a full disk fails here as well
            raise
        with guard():
            store.close()


def to_dataset(outline: Outline, chunks: Iterable[Chunk]) -> xr.Dataset:
    """Forecasts in memory: what xarray makes of the file that `write` writes.

    Args:
        outline: what there is; `packed` is for files.
        chunks: all forecasts, in any order.

    Raises:
        ValueError: if a forecast is missing.
    """
    shape, chunks = _shape_of_first(outline, chunks)
    sizes, _ = outline.describe(shape[-3:-1])
    memory = stores.Memory(sizes, _attributes(outline))
    _add(memory, outline, shape, {})
    for piece in _pieces(outline, chunks):
        memory.put(*piece)
    return memory.dataset()


def check_path(path: str | os.PathLike[str]) -> None:
    """Refuses outputs that cannot be written, before anything is computed.

    Raises:
        ValueError: if the suffix is neither `.nc` nor `.zarr`, or if there is a folder
            where a file should be, the reverse, or a folder of other things.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(
            f"output={str(path)!r}: forecasts are written as a NetCDF file, NAME.nc, "
            "or a Zarr folder, NAME.zarr; end the name with one of the two"
        )
    if path.suffix == ".nc" and path.is_dir():
        raise ValueError(f"output={str(path)!r} is a folder, not a file; use another")
    if path.suffix == ".zarr" and path.exists() and not path.is_dir():
        raise ValueError(f"output={str(path)!r} is a file, not a folder; use another")
    if path.is_dir() and not any((path / name).exists() for name in ZARR):
        if other := next(path.iterdir(), None):
            raise ValueError(
                f"output={str(path)!r} is a folder with other contents, such as "
                f"{other.name}, not a Zarr store; use another"
            )


def _shape_of_first(
    outline: Outline, chunks: Iterable[Chunk]
) -> tuple[tuple[int, ...], Iterator[Chunk]]:
    """The shape `(n, m, k, h, w, c)` of the first chunk, and all chunks."""
    rest = iter(chunks)
    for first in rest:
        shape = first.values.shape
        shape = shape if outline.members else (shape[0], 1, *shape[1:])
        return shape, itertools.chain([first], rest)
    raise ValueError("there are no forecasts to write")


def _pieces(outline: Outline, chunks: Iterable[Chunk]) -> Iterator[Piece]:
    """All parts of the variables; fails if a forecast is missing in the end."""
    covered = np.zeros((outline.count, max(outline.members, 1), outline.steps), bool)
    for chunk in chunks:
        yield from outline.pieces(chunk)
        (count, *_), steps = chunk.values.shape, chunk.values.shape[-4]
        members = chunk.values.shape[1] if outline.members else 1
        part = covered[chunk.first :, chunk.member :, chunk.step :]
        part[:count, :members, :steps] = True
    if not covered.all():
        start, member, step = np.argwhere(~covered)[0]
        which = f" of member {member + 1}" if outline.members else ""
        raise ValueError(
            f"step {step + 1}{which} of forecast {start + 1} was not computed"
        )


def _add(
    store: Store,
    outline: Outline,
    shape: tuple[int, ...],
    packings: Mapping[str, Packing],
) -> None:
    """Creates all variables of a store."""
    sizes, entries = outline.describe(shape[-3:-1])
    for entry in entries:
        if entry.packable:
            parts = _parts(outline, shape)
        else:
            parts = _limited([sizes[name] for name in entry.dims])
        store.add(entry, parts, packings.get(entry.name))


def _parts(outline: Outline, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes of the parts of a field that are compressed together.

    Every part lies in one chunk, so that it is written once.
    """
    count, members, steps, height, width, _ = shape
    height, width = _limited([height, width])
    room = LARGEST_PART // (height * width)
    steps = _largest_divisor(steps, room)
    members = _largest_divisor(members, room // steps)
    count = _largest_divisor(count, room // (steps * members))
    return (
        *(() if outline.is_single else (count,)),
        steps,
        *((members,) if outline.members else ()),
        height,
        width,
    )


def _limited(sizes: Iterable[int]) -> tuple[int, ...]:
    """Sizes of which the first ones are reduced until they are small together."""
    found: list[int] = []
    room = LARGEST_PART
    for size in reversed(list(sizes)):
        found.insert(0, max(1, min(size, room)))
        room //= found[0]
    return tuple(found)


def _largest_divisor(number: int, most: int) -> int:
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(most, 1))


def _attributes(outline: Outline) -> dict[str, str]:
    return {"Conventions": CONVENTIONS, **outline.attributes}


@contextlib.contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Errors of the libraries that write files, as an OSError with the path."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = getattr(error, "errno", None) or errno.EIO
        unclear = f"{error}; the disk may be full, or a quota reached"
        reason = getattr(error, "strerror", None) or unclear
        with contextlib.suppress(OSError):
            if shutil.disk_usage(path.parent).free < LEAST_FREE:
                code, reason = errno.ENOSPC, os.strerror(errno.ENOSPC)
        raise OSError(code, reason, str(path)) from error
