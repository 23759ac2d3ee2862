"""Training months, and what each of them remembers of the months before."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from earthformer_jax.data.enso.systems.past import Past
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.series import Cube
from earthformer_jax.data.splits import Period
from earthformer_jax.statistics.memory import Months

MOST_MONTHS = 12_000  # systems with memory are fitted to the latest of them


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """Training months, as pieces that are each without gaps in time.

    Attributes:
        fields: `[m, h, w]` anomalies in K of each piece, without gaps.
        known: the same, NaN where the ocean was not observed.
        past: of each piece.
        first_months: calendar month of the first one of each, January = 0.
    """

    fields: Sequence[np.ndarray]
    known: Sequence[np.ndarray]
    past: Sequence[Past]
    first_months: Sequence[int]

    @functools.cached_property
    def latest(self) -> "Training":
        """The latest `MOST_MONTHS`."""
        rest, kept = MOST_MONTHS, []
        for i in reversed(range(len(self.fields))):
            skip = max(len(self.fields[i]) - rest, 0)
            if rest <= 0:
                break
            kept.insert(0, (i, skip, len(self.fields[i])))
            rest -= len(self.fields[i]) - skip
        return Training(
            [self.fields[i][a:b] for i, a, b in kept],
            [self.known[i][a:b] for i, a, b in kept],
            [self.past[i].between(a, b) for i, a, b in kept],
            [(self.first_months[i] + a) % 12 for i, a, _ in kept],
        )

    @functools.cached_property
    def months(self) -> list[Months]:
        """What systems with a memory are fitted to."""
        return [
            Months(x, past.index, first)
            for x, past, first in zip(
                self.fields, self.past, self.first_months, strict=True
            )
        ]


def months_of(
    cube: Cube,
    fields: np.ndarray,
    known: np.ndarray,
    past: Past,
    pieces: Sequence[Period],
) -> Training:
    """Some pieces of a series, as months to fit on."""
    return Training(
        [fields[first:stop] for first, stop in pieces],
        [known[first:stop] for first, stop in pieces],
        [past.between(*piece) for piece in pieces],
        [calendar_month(cube, first) for first, _ in pieces],
    )


def memory_scale(training: Training, ocean: np.ndarray) -> float:
    """The standard deviation of the memory of the ocean's cells, K months.

    Args:
        training: the training months.
        ocean: bool `[h, w]`.

    Raises:
        ValueError: if there is no memory.
    """
    pieces = [past.cells[:, ocean] for past in training.past]
    squares = sum(np.sum(np.square(x, dtype=np.float64)) for x in pieces)
    scale = float(np.sqrt(squares / max(sum(x.size for x in pieces), 1)))
    if not scale:
        raise ValueError(
            "memory=True: the training months remember nothing, since there are no "
            "months before them; use more months, a longer `in_len`, or memory=False"
        )
    return scale


def calendar_month(cube: Cube, frame: int) -> int:
    """Calendar month of a frame of a series with dates, January = 0."""
    assert cube.minutes is not None  # `gridded_sst` and `icar` give months dates
    return int(times.month_of(cube.minutes[frame]) % 12)
