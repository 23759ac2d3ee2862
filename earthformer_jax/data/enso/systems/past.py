"""What months remember of the months before them. NumPy alone."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.field_memory import REACH, memory_of_cells
from earthformer_jax.statistics.memory import RATES, leaky_integrals


@dataclasses.dataclass(frozen=True, eq=False)
class Past:
    """What consecutive months remember of those before.

    Attributes:
        index: float32 `[m, r]`, the memory of Nino3.4 for each of `RATES`, K months.
        cells: float32 `[m, h, w]`, that of every cell, K months.
    """

    index: np.ndarray
    cells: np.ndarray

    def between(self, first: int, stop: int) -> "Past":
        """The memory of some of the months."""
        return Past(self.index[first:stop], self.cells[first:stop])

    @property
    def behind(self) -> dict[str, np.ndarray]:
        """By the names that windows have them under."""
        return {"memory": self.index, "cell_memory": self.cells}


def past_of(
    fields: np.ndarray,
    nino_weights: np.ndarray,
    segments: Sequence[Sequence[int]] | np.ndarray,
    reach: int | None = None,
) -> Past:
    """What each month remembers of those before it in its segment.

    Args:
        fields: `[m, h, w]` anomalies in K, without gaps.
        nino_weights: `[h, w]` of the index.
        segments: first month and end of the pieces without gaps in time.
        reach: months that are remembered; None: as many as each memory does.
    """
    index = np.zeros((len(fields), len(RATES)), np.float32)
    cells = np.zeros(fields.shape, np.float32)
    for first, stop in segments:
        piece = fields[first:stop]
        nino = np.einsum("mhw,hw->m", piece, nino_weights, dtype=np.float64)
        index[first:stop] = leaky_integrals(nino, reach=reach)
        cells[first:stop] = memory_of_cells(piece, REACH if reach is None else reach)
    return Past(index, cells)
