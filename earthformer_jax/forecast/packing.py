"""Fields as 16-bit integers: value = offset + scale * integer."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from earthformer_jax.forecast.outline import Piece

MISSING = np.int16(-32767)
LARGEST = 32766  # integers from -LARGEST to LARGEST are values


@dataclasses.dataclass(frozen=True)
class Packing:
    """How the values of a variable are stored.

    Attributes:
        scale: of one integer step.
        offset: of the integer 0.
    """

    scale: float
    offset: float

    def encode(self, values: np.ndarray) -> np.ndarray:
        """The int16 numbers of values; `MISSING` for NaN."""
        missing = np.isnan(values)
        known = np.where(missing, self.offset, values).astype(np.float64)
        integers = np.rint((known - self.offset) / self.scale)
        return np.where(missing, MISSING, integers).astype(np.int16)


def between(least: float, most: float) -> Packing:
    """The packing whose integers cover a range.

    The error of a value is at most half a step, 1/131064 of the range.

    Args:
        least: of the values.
        most: of the values; below `least` if there are none.
    """
    if most < least:
        return Packing(1.0, 0.0)
    scale = (most - least) / (2 * LARGEST)
    return Packing(scale or 1.0, least + (most - least) / 2)


@contextlib.contextmanager
def after_all(
    pieces: Iterable[Piece],
    names: Collection[str],
    folder: Path,
    guard: Callable[[], contextlib.AbstractContextManager],
) -> Iterator[tuple[dict[str, Packing], Iterator[Piece]]]:
    """Waits for all pieces, so that the range of the values is known.

    Meanwhile they are kept in a file without a name, which ends with the process.

    Args:
        pieces: parts of variables.
        names: of the variables to be packed.
        folder: on a disk with room for the values.
        guard: context of all that can fail because of the disk.

    Yields:
        how each variable is packed, and the same pieces again.
    """
    ranges = {name: (np.inf, -np.inf) for name in names}
    with tempfile.TemporaryFile(dir=folder) as file:
        kept: list[tuple[str, tuple[slice, ...]]] = []
        for name, where, values in pieces:
            kept.append((name, where))
            with guard():
                np.lib.format.write_array(file, values, allow_pickle=False)
            known = values[~np.isnan(values)]
            if name in ranges and known.size:
                least, most = ranges[name]
                ends = min(least, float(known.min())), max(most, float(known.max()))
                ranges[name] = ends
        with guard():
            file.seek(0)  # what is left in a buffer is written

        def again() -> Iterator[Piece]:
            for name, where in kept:
                with guard():
                    values = np.lib.format.read_array(file, allow_pickle=False)
                yield Piece(name, where, values)

        yield {name: between(*ends) for name, ends in ranges.items()}, again()
