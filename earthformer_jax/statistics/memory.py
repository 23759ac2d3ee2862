"""The memory that past El Nino indices carry, and months to fit systems with it on.

    h[m] = exp(-rate / 12) h[m - 1] - T[m - 1]

T is the monthly Nino3.4 anomaly in K and h, in K months, a leaky integral of what came
before. It stands for the heat content of the equatorial Pacific, which discharges while
the surface is warm, and uses months up to m - 1 only.

Reference:
    Jin 1997, "An equatorial ocean recharge paradigm for ENSO".
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.linear_system import MONTHS

RATES = (0.5, 0.75, 1.0, 1.5)  # per year


def leaky_integrals(
    index,
    rates: Sequence[float] = RATES,
    start=None,
    *,
    reach: int | None = None,
) -> np.ndarray:
    """The memory of an index for several rates of forgetting.

    Args:
        index: `[m]` monthly anomalies in K, of consecutive months; or `[m, ...]`.
        rates: r rates per year.
        start: `[..., r]` memory of the first month; None: 0.
        reach: months that are remembered; None: all.

    Returns:
        float64 `[m, ..., r]` in K months; that of month m knows the index up to m - 1.

    Raises:
        ValueError: if the index has months that are not finite.
    """
    index = np.asarray(index, np.float64)
    if not np.all(np.isfinite(index)):
        raise ValueError("the index has months that are not finite")
    kept = np.exp(-np.asarray(rates, np.float64) / MONTHS)
    memory = np.zeros((*index.shape, len(rates)))
    if start is not None and len(index):
        memory[0] = start
    for m in range(1, len(index)):
        memory[m] = kept * memory[m - 1] - index[m - 1, ..., None]
    if reach is not None and reach < len(index):
        memory[reach:] -= kept**reach * memory[: len(index) - reach].copy()
    return memory


@dataclasses.dataclass(frozen=True, eq=False)
class Months:
    """Consecutive months to fit a system on; a left-out block gives two of them.

    Attributes:
        fields: `[m, h, w]` anomalies in K, finite over the ocean.
        memory: `[m, r]` in K months, for each of `RATES`, from the whole known past.
        first_month: calendar month of the first one, January = 0.

    Raises:
        ValueError: if the shapes do not match, or the memory is not finite.
    """

    fields: np.ndarray
    memory: np.ndarray
    first_month: int

    def __post_init__(self) -> None:
        shape, expected = np.shape(self.memory), (len(self.fields), len(RATES))
        if np.ndim(self.fields) != 3 or shape != expected:
            raise ValueError(
                f"fields of shape {np.shape(self.fields)} need the axes (months, h, w) "
                f"and a memory of shape (months, {len(RATES)}); its shape is {shape}"
            )
        if not np.all(np.isfinite(self.memory)):
            raise ValueError("the memory has months that are not finite")
        if not 0 <= self.first_month < MONTHS:
            raise ValueError(
                f"first_month={self.first_month} is not a calendar month, 0 to 11"
            )


def check_fields(inputs: np.ndarray, memory: np.ndarray, cells: tuple[int, ...]):
    """Refuses inputs and memory of forecasts that are not on a grid.

    Args:
        inputs: expected `[b, t, h, w, 1]`.
        memory: expected `[b, h, w]`.
        cells: (h, w).

    Raises:
        ValueError: naming the one that is not.
    """
    if inputs.ndim != 5 or inputs.shape[2:] != (*cells, 1):
        raise ValueError(
            f"inputs have shape {inputs.shape}; expected (b, t, {cells[0]}, "
            f"{cells[1]}, 1)"
        )
    if memory.shape != (len(inputs), *cells):
        raise ValueError(
            f"memory has shape {memory.shape}; expected {(len(inputs), *cells)}"
        )
