"""The seasonal linear inverse model with memory.

Its state is the amplitudes of the leading EOFs and the standardised memory of the
Nino3.4 index (`statistics.memory`); each has its own equation, whose coefficients
follow the season (`statistics.seasonal_fit`).
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np

from earthformer_jax.statistics.cross_validation import (
    ENOUGH_MONTHS,
    RIDGES,
    Candidate,
    Space,
    best_choices,
)
from earthformer_jax.statistics.eof import RANK_TOLERANCE, fit_eofs, on_grid
from earthformer_jax.statistics.memory import RATES, Months
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import Choices, fit_model
from earthformer_jax.statistics.state_model import StateModel

MODES = (6, 8, 12, 16, 20)
DENSE = 60  # rows of a matrix up to which finding all of its eigenvectors is quick


def fit_memory_system(
    months: Sequence[Months],
    ocean_mask,
    latitude,
    index_weights,
    out_len: int,
    *,
    choices: Choices | None = None,
) -> StateModel:
    """Fits the seasonal linear inverse model with memory.

    Args:
        months: training months, in the order of time, or of many climate model runs.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        index_weights: `[h, w]` of the Nino3.4 index.
        out_len: months of the forecast.
        choices: number of EOFs, ridge, rate and skipped months; None: by withheld
            blocks of the training (`statistics.cross_validation`).

    Raises:
        ValueError: if there are too few months.
    """
    record = Record.of(months, ocean_mask, latitude, index_weights)
    if choices is None:
        choices = cross_validated(record, out_len)
    fields = on_grid(record.cells[choices.skip :], record.ocean_mask)
    basis = fit_eofs([fields], record.ocean_mask, latitude).part(slice(choices.modes))

    def patterns(_states) -> np.ndarray:
        return np.pad(basis.patterns, ((0, 1), (0, 0)))

    return fit_model(record, choices, basis.projection, patterns, out_len)


def cross_validated(record: Record, out_len: int) -> Choices:
    """Chooses the number of EOFs, ridge, rate and skipped months."""
    record = record.thinned(ENOUGH_MONTHS)
    coordinates, index = _coordinates(record)
    variance, _ = _leading(coordinates.T @ coordinates, max(MODES))
    rank = int(np.sum(variance > RANK_TOLERANCE * variance[0]))
    modes = [m for m in MODES if m <= rank] or [rank]
    cautious = Choices(ridge=max(RIDGES), rate=1.0, modes=min(modes))
    spaces = _eof_spaces(record, coordinates, index, modes)
    return best_choices(record, spaces, cautious, out_len)


def _eof_spaces(
    record: Record, coordinates: np.ndarray, index: np.ndarray, modes: Sequence[int]
) -> Callable[[np.ndarray], Space]:
    most = max(modes)

    @functools.cache
    def products_from(first: int) -> np.ndarray:
        return coordinates[first:].T @ coordinates[first:]

    def space(kept: np.ndarray) -> Space:
        first = int(np.argmax(kept))
        withheld = coordinates[first:][~kept[first:]]
        products = products_from(first) - withheld.T @ withheld
        _, vectors = _leading(products, most)
        memory = record.memory - record.memory[kept].mean(axis=0)
        amplitudes = coordinates @ vectors
        candidates = []
        for count in modes:
            on_map = np.append(np.ones(count), 0.0)
            for r, rate in enumerate(RATES):
                chosen = np.append(np.arange(count), most + r)
                candidate = Candidate(
                    Choices(ridge=0.0, rate=rate, modes=count),
                    chosen,
                    np.append(index @ vectors[:, :count], 0.0),
                    np.diag(on_map),
                    np.append(amplitudes, memory, axis=1)[:, chosen] * on_map,
                )
                candidates.append(candidate)
        return Space(np.append(amplitudes, memory, axis=1), candidates)

    return space


def _coordinates(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Fields `[m, r]` weighted by area, in r orthonormal directions that hold them all.

    Also the weights `[r]` of the index. The directions are the cells, or, where there
    are fewer months than cells, those of the months; nothing is lost.
    """
    cells = record.cells * record.root_area
    if cells.shape[1] <= len(cells):
        return cells, record.index_weights / record.root_area
    square, vectors = np.linalg.eigh(cells @ cells.T)
    held = square > RANK_TOLERANCE * square[-1]
    length = np.sqrt(square[held])
    return vectors[:, held] * length, record.index @ vectors[:, held] / length


def _leading(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues `[k]` of a symmetric matrix, with vectors `[n, k]`."""
    from scipy import linalg  # slow; a trained model does not need it
    from scipy.sparse.linalg import eigsh

    n = len(matrix)
    if n <= DENSE:
        values, vectors = linalg.eigh(
            matrix, subset_by_index=[max(n - count, 0), n - 1]
        )
    else:
        values, vectors = eigsh(matrix, count, v0=np.ones(n))
    return values[::-1], vectors[:, ::-1]
