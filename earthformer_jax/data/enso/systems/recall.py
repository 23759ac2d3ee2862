"""What the input months of forecasts remember of the months before them."""

import numpy as np

from earthformer_jax.data.enso.learned import TWIN, Learned
from earthformer_jax.data.forecasting.encoding import Memory
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.statistics.field_memory import KEPT, REACH, memory_of_cells

MOST_MISSING = 0.1  # of the months that are remembered, without a note


def encoded(learned: Learned) -> Memory | None:
    """The memory of the cells as an input, if it is one."""
    if not learned.memory_scale:
        return None
    # Windows of the twin stand alone.
    before = 0 if learned.origin == TWIN else REACH
    return Memory(reach=REACH, before=before, kept=KEPT, scale=learned.memory_scale)


def _segment_begin(cube: Cube, months: np.ndarray) -> np.ndarray:
    """The first month of the piece without gaps in time that each month is in."""
    begin = cube.segments[:, 0]
    return begin[np.searchsorted(begin, months, side="right") - 1]


def remembered(cube: Cube, first: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Numbers of the months that windows use, and of those that these remember."""
    before = first[:, None] - np.arange(1, REACH + 1)
    before = before[before >= _segment_begin(cube, first)[:, None]]
    return np.union1d(before, used)


def note_if_short(cube: Cube, last: np.ndarray, missing: np.ndarray) -> tuple[str, ...]:
    """A note if less than `MOST_MISSING` allows is known of what is remembered.

    Args:
        cube: the series.
        last: last input months of the forecasts.
        missing: `[m]`, share of the ocean that was filled in each month.
    """
    begin = np.maximum(_segment_begin(cube, last), last - REACH)
    sums = np.concatenate([[0.0], np.cumsum(1 - missing)])
    known = sums[last] - sums[begin]
    short = known < (1 - MOST_MISSING) * REACH
    if not short.any():
        return ()
    return (
        f"memory: {int(short.sum())} of {len(last)} forecasts know less than the "
        f"{REACH} months before the last input ({known.min():.0f} at the least); those "
        "missing count as 0, which makes these forecasts weaker",
    )


def advanced(learned: Learned, known: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """The memory `[k, h, w, 1]` of the months after the inputs.

    Months before the inputs, whose sum alone is known, fade instead of being forgotten
    one by one.

    Args:
        learned: what the model knows.
        known: inputs and forecast `[t + k, h, w, 1]` in model units.
        memory: of the inputs `[t, h, w]`, in model units.
    """
    kelvin = learned.normalization.decode(known[..., 0].astype(np.float64))
    last, months = len(memory) - 1, len(known) - len(memory)
    own = memory_of_cells(kelvin)
    before = memory[last].astype(np.float64) * learned.memory_scale - own[last]
    fading = KEPT ** np.arange(1, months + 1)[:, None, None] * before
    return ((own[last + 1 :] + fading) / learned.memory_scale)[..., None]
