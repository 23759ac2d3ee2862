"""Chooses how to fit a system with memory, by blocks withheld inside the training.

Every candidate is fitted without a block of months and forecasts them; all that depends
on the fields (EOFs, means, regressions) is fitted without the block as well. Only the
memory of months after a block still knows the index in it, as it does in a forecast.

The loss of a candidate is the mean of two relative squared errors over all blocks and
leads, squared error / squared anomaly: of the Nino3.4 index, which is what El Nino
forecasts are for, and of the whole map by area, which is lost if a state follows the
index alone. Unlike a correlation, both count forecasts that overshoot.

Many candidates differ by less than the blocks can tell. Of those that are worse than
the best by at most one standard error of the difference (from block to block), the
one that fits least closely is chosen: most months, then fewest EOFs, largest ridge and
shortest memory. This was tried inside the training period of observed Pacific
temperature, 1856-1979: chosen by the months before 1920, 1930, ... 1960 and scored in
the twenty years after, it did better than the candidate of least loss (skill .289 and
.271, the mean of both), and 16 blocks of five years better than 8 or 5 of ten.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from earthformer_jax.statistics.linear_system import MONTHS
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import (
    Choices,
    Sums,
    is_enough,
    transitions,
)

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3)
LAST_YEARS = (80, 50, 30)  # of the training, besides all of them
BLOCKS = 16  # at most; they are the end of the training, which is observed best
BLOCK_MONTHS = 60  # at most
MIN_BLOCK_MONTHS = 24  # of shorter blocks too few windows could be verified
MIN_MONTHS = 6 * MIN_BLOCK_MONTHS  # fewer are not divided
# From so many series on, whole ones are withheld, in up to so many blocks, and none is
# skipped, nor is in a record that is longer than observations.
MANY_SERIES, SERIES_BLOCKS = 5, 10
LONGEST_OBSERVED = 2400
ENOUGH_MONTHS = 12_000  # of more, in many series, some series are chosen by
LEADS = 12
MAX_STARTS = 200  # verified in each block
STRIDES = (1, 5, 7, 11, 13)  # between them, in months; each meets every calendar month


@dataclasses.dataclass(frozen=True, eq=False)
class Candidate:
    """A state to try, of n variables.

    Attributes:
        choices: the number of EOFs and the rate.
        chosen: indices of its variables among those of the `Space`.
        index: `[n]`, the Nino3.4 of its map for unit state.
        metric: `[n, n]`, products by area of the maps for unit states.
        products: `[m, n]`, products by area of the field of each month with them.
    """

    choices: Choices
    chosen: np.ndarray
    index: np.ndarray
    metric: np.ndarray
    products: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
    """State variables `[m, n]` of all months, and the candidates made of them."""

    states: np.ndarray
    candidates: Sequence[Candidate]


def best_choices(
    record: Record,
    space_of: Callable[[np.ndarray], Space],
    cautious: Choices,
    out_len: int,
) -> Choices:
    """Chooses by withheld blocks.

    Args:
        record: the training months.
        space_of: from the months `[m]` bool that may be fitted to, the candidates; they
            come in the same order for any months.
        cautious: what is chosen if the months are too few to withhold some.
        out_len: months of the forecast.
    """
    losses = {}
    for skip in _skips(record):
        losses |= _losses(record, space_of, skip, out_len)
    return _within_one_error(losses) if losses else cautious


def blocks(record: Record) -> list[tuple[int, int]]:
    """First month and the month after the last of each withheld block; may be none."""
    months, count = len(record), int(record.series[-1]) + 1
    if count >= MANY_SERIES:
        firsts = np.searchsorted(record.series, np.arange(count + 1))
        number = min(count, SERIES_BLOCKS)
        edges = firsts[np.arange(number + 1) * count // number]
    elif months < MIN_MONTHS:
        return []
    else:
        length = min(BLOCK_MONTHS, months * MIN_BLOCK_MONTHS // MIN_MONTHS)
        number = min(BLOCKS, months // length - 1)
        edges = months - length * np.arange(number + 1)[::-1]
    return [(int(a), int(b)) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _within_one_error(losses: Mapping[Choices, np.ndarray]) -> Choices:
    """The closest fit is not chosen if others are as good within their error."""
    best = losses[min(losses, key=lambda x: losses[x].sum())]

    def as_good(loss: np.ndarray) -> bool:
        difference = loss - best
        error = np.std(difference, ddof=1) * np.sqrt(len(loss))  # of the sum
        return bool(difference.sum() <= error)

    return min(
        (choices for choices, loss in losses.items() if as_good(loss)),
        key=lambda x: (x.skip, x.modes, -x.ridge, -x.rate),
    )


def _skips(record: Record) -> list[int]:
    """Candidates of how many months to leave out at the beginning."""
    if record.series[-1] + 1 >= MANY_SERIES or len(record) > LONGEST_OBSERVED:
        return [0]
    later = [len(record) - MONTHS * years for years in LAST_YEARS]
    return [0, *(skip for skip in later if skip > 0)]


def _losses(
    record: Record, space_of: Callable[[np.ndarray], Space], skip: int, out_len: int
) -> dict[Choices, np.ndarray]:
    """Loss of each block, for the candidates that every block leaves enough months.

    The sum over the blocks is the loss of a candidate.
    """
    leads, months = min(LEADS, out_len), np.arange(len(record))
    map_square = np.sum((record.cells * record.root_area) ** 2, axis=1)
    errors: dict[Choices, list[np.ndarray]] = {}
    squares, verified = np.zeros(2), 0
    for first, stop in blocks(record):
        starts = _starts(record, first, stop, leads)
        if not len(starts):
            continue
        verified += 1
        targets = starts[:, None] + np.arange(1, leads + 1)
        squares += np.sum(record.index[targets] ** 2), np.sum(map_square[targets])
        kept = (months >= skip) & ((months < first) | (months >= stop))
        space = space_of(kept)
        for choices, error in _errors(record, space, kept, starts, leads, map_square):
            choices = dataclasses.replace(choices, skip=skip)
            errors.setdefault(choices, []).append(error)
    return {
        choices: np.mean(error / squares, axis=1)
        for choices, error in errors.items()
        if len(error) == verified > 1
    }


def _starts(record: Record, first: int, stop: int, leads: int) -> np.ndarray:
    """Months of a block that have all leads inside it and their series."""
    starts = np.arange(first, max(stop - leads, first))
    starts = starts[record.series[starts] == record.series[starts + leads]]
    for stride in STRIDES:
        if len(starts) <= MAX_STARTS * stride:
            return starts[::stride]
    return starts[:: STRIDES[-1]][:MAX_STARTS]


def _errors(
    record: Record, space: Space, kept, starts, leads: int, map_square
) -> Iterator[tuple[Choices, np.ndarray]]:
    """Squared errors `[2]` of index and map, summed over starts and leads.

    Forecasts that begin in one calendar month share their transitions, so starts are
    laid out as `[12, s]`, filled up with starts of no weight.
    """
    pairs = record.pairs(kept)
    sums = Sums.of(space.states, record.calendar, pairs)
    by_month = [starts[record.calendar[starts] == m] for m in range(MONTHS)]
    most = max(len(x) for x in by_month)
    weight = np.stack([np.arange(most) < len(x) for x in by_month]).astype(float)
    laid = np.stack([np.resize(np.append(x, starts[:1]), most) for x in by_month])
    targets = laid + np.arange(1, leads + 1)[:, None, None]  # [leads, 12, s]
    index, square = record.index[targets], map_square[targets]
    for candidate in space.candidates:
        n = len(candidate.chosen)
        if not is_enough(len(pairs), n):
            continue
        steps = transitions(sums.part(candidate.chosen).coefficients(RIDGES))
        steps = steps.swapaxes(-1, -2)  # states are rows
        x = np.empty((leads, len(RIDGES), *laid.shape, n))
        now = space.states[laid][..., candidate.chosen]
        for lead in range(leads):
            months = (np.arange(MONTHS) + lead) % MONTHS
            now = np.matmul(now, steps[:, months], out=x[lead])
        product = candidate.products[targets][:, None]
        on_index = (x @ candidate.index - index[:, None]) ** 2
        on_map = (x.reshape(-1, n) @ candidate.metric).reshape(x.shape) - 2 * product
        on_map = np.einsum("lrmsn,lrmsn->lrms", on_map, x) + square[:, None]
        errors = np.einsum("elrms,ms->re", np.stack([on_index, on_map]), weight)
        for ridge, error in zip(RIDGES, errors, strict=True):
            yield dataclasses.replace(candidate.choices, ridge=ridge), error
