"""The seasonal linear inverse model with a memory of every cell.

    H[m] = -sum over j = 1 .. REACH of exp(-RATE / 12)^(j - 1) x[m - j]

x is the anomaly of a cell in K and H, in K months, a leaky integral of what came before
(`statistics.memory`, which has that of Nino3.4 alone, without an end). The state are
the amplitudes of the leading EOFs, and the standardised memories of Nino3.4 and of the
first few EOFs.

The forecast is the mean of systems fitted to the whole record and to later parts of it:
early months have more noise, late ones are few, and neither kind is the best choice
everywhere.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.eof import fit_eofs, on_grid
from earthformer_jax.statistics.linear_system import MONTHS, LinearSystem
from earthformer_jax.statistics.memory import Months, check_fields
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import check_enough, fit_system

RATE = 0.75  # per year; the skill hardly depends on it
REACH = 36  # months that are remembered; older ones would have a weight below a tenth
KEPT = float(np.exp(-RATE / MONTHS))  # from a month to the next
PARTS = (1.0, 2 / 3, 1 / 2, 1 / 4)  # the last parts of the record that are fitted
SHORTEST = 360  # months of a part, unless it is the whole record
# Cross-validation: withheld blocks, the latest months that they cover, leads, and the
# EOFs that it works with in place of cells.
BLOCKS, RECENT, LEADS, COMPONENTS = 5, 720, 12, 40
LONGEST = 2400  # latest months that cross-validation uses


def memory_of_cells(fields, reach: int = REACH) -> np.ndarray:
    """The memory of every cell; months before the first one count as 0.

    Args:
        fields: `[m, h, w]` anomalies in K of consecutive months, finite.
        reach: months that are remembered.

    Returns:
        float32 `[m, h, w]` in K months; that of month m knows the months up to m - 1.
    """
    memory = np.zeros(np.shape(fields), np.float32)
    now = np.zeros(memory.shape[1:])
    for m in range(1, len(memory) if reach else 0):
        now = KEPT * now - fields[m - 1]
        if m > reach:
            now += KEPT**reach * fields[m - 1 - reach]
        memory[m] = now
    return memory


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A system with n state variables, fitted to a part of the record.

    Attributes:
        projection: `[h, w, n]`, from a field in K to the state; zero on land.
        memory_projection: `[h, w, n]`, from the memory in K months to the state.
        offset: `[n]`, added to the state.
        patterns: `[n, h, w]` K, from the state to a field; zero on land.
        system: dynamics of the state from month to month.
    """

    projection: np.ndarray
    memory_projection: np.ndarray
    offset: np.ndarray
    patterns: np.ndarray
    system: LinearSystem

    def states(self, fields, memory) -> np.ndarray:
        """`[..., h, w]` fields in K and memories in K months to `[..., n]` states."""
        add = functools.partial(np.tensordot, axes=2)
        from_fields = add(np.asarray(fields, np.float64), self.projection)
        from_memory = add(np.asarray(memory, np.float64), self.memory_projection)
        return from_fields + from_memory + self.offset


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is chosen before the systems are fitted.

    Attributes:
        modes: EOFs in the state.
        remembered: how many of them have a memory, beside Nino3.4.
        ridge: penalty on the coefficients (`statistics.seasonal_fit`).
    """

    modes: int = 16
    remembered: int = 2
    ridge: float = 0.03


CANDIDATES = tuple(
    Choices(modes, remembered, ridge)
    for modes in (12, 16)
    for remembered in (0, 1, 2, 3)
    for ridge in (0.01, 0.03, 0.1, 0.3)
)


@dataclasses.dataclass(frozen=True, eq=False)
class FieldMemoryModel:
    """A fitted model.

    Attributes:
        parts: the systems whose mean is the forecast.
        out_len: months of the forecast.
        choices: what they were fitted with.
    """

    parts: Sequence[Part]
    out_len: int
    choices: Choices

    def __call__(self, inputs, start_month, memory) -> np.ndarray:
        """Forecasts from the last month of the inputs.

        Args:
            inputs: `[b, t, h, w, 1]` in K, zero on land.
            start_month: `[b]`, calendar month of the first forecast month.
            memory: `[b, h, w]` in K months, of the last input month, zero on land.

        Returns:
            float32 `[b, k, h, w, 1]` in K.

        Raises:
            ValueError: if the shapes do not match.
        """
        inputs, memory = np.asarray(inputs), np.asarray(memory)
        cells = self.parts[0].projection.shape[:2]
        check_fields(inputs, memory, cells)
        total = np.zeros((len(inputs), self.out_len, *cells))
        for part in self.parts:
            state = part.states(inputs[:, -1, ..., 0], memory)
            states = part.system.forecast(state, start_month, self.out_len)
            total += np.einsum("bkn,nhw->bkhw", states, part.patterns)
        return (total / len(self.parts))[..., None].astype(np.float32)


def fit_field_memory(
    months: Sequence[Months],
    memories: Sequence[np.ndarray],
    ocean_mask,
    latitude,
    index_weights,
    out_len: int,
    *,
    choices: Choices | None = None,
) -> FieldMemoryModel:
    """Fits the model to the whole record and to its later parts (`PARTS`).

    Parts that are too short are left out.

    Args:
        months: training months, in the order of time, or of many climate model runs.
        memories: the memory `[m, h, w]` of each, as from `memory_of_cells`, from the
            whole known past.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        index_weights: `[h, w]` of the Nino3.4 index.
        out_len: months of the forecast.
        choices: None: those of `chosen`.

    Raises:
        ValueError: if the whole record is too short.
    """
    record = Record.of(months, ocean_mask, latitude, index_weights)
    memory = np.concatenate([x[:, record.ocean_mask] for x in memories])
    if memory.shape != record.cells.shape:
        raise ValueError(
            f"memories of {len(memory)} months do not match the {len(record)} months "
            "of the record"
        )
    everything = np.ones(len(record), bool)
    if choices is None:
        usual = Choices()
        n = min(usual.modes, record.cells.shape[1]) + 1 + usual.remembered
        check_enough(len(record.pairs(everything)), n)
        late = slice(-LONGEST, None)
        choices = chosen(*_reduced(record.part(late), memory[late], latitude))
    parts = _fit_parts(record, memory, everything, latitude, choices)
    return FieldMemoryModel(parts, out_len, choices)


def chosen(record: Record, memory) -> Choices:
    """The best of `CANDIDATES` by blocked cross-validation inside a record.

    Blocks of consecutive months are withheld in turn. The score of a candidate is the
    mean of two skills over all withheld forecasts of 1 to 12 months, of the index and
    of the map, each 1 - squared error / variance.

    Args:
        record: of few components in place of cells (`_reduced`).
        memory: `[m, components]`.

    Returns:
        the first candidate if the record is too short for a comparison.
    """
    scores = [_skill(record, memory, candidate) for candidate in CANDIDATES]
    return CANDIDATES[int(np.argmax(scores))]


def _skill(record: Record, memory, choices: Choices) -> float:
    """The score of a candidate (`chosen`); -inf if it cannot be compared."""
    errors, month = np.zeros(4), np.arange(len(record))
    blocks = _blocks(len(record))
    for first, stop in blocks:
        kept = (month < first) | (month >= stop)
        try:
            parts = _fit_parts(record, memory, kept, np.zeros(1), choices)
        except ValueError:  # too few months for so many coefficients
            return -np.inf
        model = FieldMemoryModel(parts, LEADS, choices)
        errors += _errors(model, record, memory, first, stop)
    if not blocks:
        return -np.inf
    index, index_variance, fields, variance = errors
    return 1 - (index / index_variance + fields / variance) / 2


def _blocks(months: int) -> list[tuple[int, int]]:
    """First months and ends of the withheld blocks, which cover the latest years."""
    length = min(months, RECENT) // BLOCKS
    if length < 3 * LEADS:
        return []
    edges = months - length * np.arange(BLOCKS, -1, -1)
    return [(int(a), int(b)) for a, b in zip(edges, edges[1:], strict=False)]


def _errors(model: FieldMemoryModel, record: Record, memory, first: int, stop: int):
    """Sums of squares `[4]`: errors and values of the index, and of the components.

    Of the forecasts from months of a block whose targets are in it.
    """
    starts = np.arange(max(first - 1, 0), stop - LEADS)
    starts = starts[record.series[starts] == record.series[starts + LEADS]]
    targets = starts[:, None] + np.arange(1, LEADS + 1)
    forecast = model(
        record.cells[starts][:, None, None, :, None],
        (record.calendar[starts] + 1) % MONTHS,
        memory[starts][:, None],
    )[:, :, 0, :, 0]
    truth = record.cells[targets]
    index, true = forecast @ record.index_weights, record.index[targets]
    return np.array(
        [np.sum(x**2) for x in (index - true, true, forecast - truth, truth)]
    )


def _reduced(record: Record, memory, latitude) -> tuple[Record, np.ndarray]:
    """The record and its memory in `COMPONENTS` EOFs, which have equal areas."""
    fields = on_grid(record.cells, record.ocean_mask)
    basis = fit_eofs([fields], record.ocean_mask, latitude).part(slice(COMPONENTS))
    count = len(basis.variance)
    small = dataclasses.replace(
        record,
        ocean_mask=np.ones((1, count), bool),
        cells=record.cells @ basis.projection,
        index_weights=basis.patterns @ record.index_weights,
        root_area=np.ones(count),
    )
    return small, memory @ basis.projection


def _fit_parts(record: Record, memory, kept, latitude, choices: Choices) -> list[Part]:
    """Fits systems to the months that are kept, and to the later ones of them."""
    parts: list[Part] = []
    for share in PARTS:
        late = kept & (np.arange(len(record)) >= round((1 - share) * len(record)))
        if parts and late.sum() < SHORTEST:
            break
        parts.append(_fit_part(record, memory, late, latitude, choices))
    return parts


def _fit_part(record: Record, memory, kept, latitude, choices: Choices) -> Part:
    """Fits one system to the months that are kept."""
    ocean = record.ocean_mask
    fields = on_grid(record.cells[kept], ocean)
    basis = fit_eofs([fields], ocean, latitude).part(slice(choices.modes))
    modes = basis.patterns.shape[0]
    remembered = np.concatenate(
        [record.index_weights[:, None], basis.projection[:, : choices.remembered]], 1
    )
    seen = memory[kept] @ remembered
    mean, std = seen.mean(axis=0), seen.std(axis=0)
    if not std.all():
        raise ValueError("the memory is the same in all months; no system has it")
    extra = remembered.shape[1]
    projection = np.pad(basis.projection, ((0, 0), (0, extra)))
    from_memory = np.pad(remembered / std, ((0, 0), (modes, 0)))
    offset = np.concatenate([np.zeros(modes), -mean / std])
    states = record.cells @ projection + memory @ from_memory + offset
    pairs = record.pairs(kept)
    return Part(
        projection=on_grid(projection.T, ocean).transpose(1, 2, 0),
        memory_projection=on_grid(from_memory.T, ocean).transpose(1, 2, 0),
        offset=offset,
        patterns=on_grid(np.pad(basis.patterns, ((0, extra), (0, 0))), ocean),
        system=fit_system(states, record.calendar, pairs, choices.ridge),
    )
