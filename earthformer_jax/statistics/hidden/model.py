"""The seasonal linear inverse model with hidden states.

The state are the amplitudes of the leading EOFs and a few states that nothing shows,
such as the heat below the surface. All months of the inputs are noisy views of the
first ones; the forecast begins with the expectation of the whole state given all of
them and, where it is known, the memory of the months before (`field_memory`). The
system is estimated by expectation maximisation, which starts with a system whose last
states are memories (`hidden.estimation`).

The constants were chosen inside the training period of observed Pacific temperature,
1856-1979, by withholding five blocks of twelve years of 1920-1979, and on other months
of the synthetic twin than those that it is tested on. One half of the forecast is that
of a system of the later half of the record (`field_memory` tells why).
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.eof import fit_eofs, on_grid
from earthformer_jax.statistics.field_memory import (
    KEPT,
    REACH,
    SHORTEST,
    memory_of_cells,
)
from earthformer_jax.statistics.hidden.estimation import Blocks, improved
from earthformer_jax.statistics.linear_system import MONTHS, LinearSystem
from earthformer_jax.statistics.memory import Months, check_fields
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import check_enough, fit_system

MODES, HIDDEN = 12, 3
PARTS = (1.0, 1 / 2)  # the last parts of the record that are fitted
ITERATIONS = 20  # more of them fit the training better, and other months worse
FIRST_RIDGE = 0.03  # of the system with memories that the estimate starts with
RIDGE_MONTHS = 5.0  # penalty of the estimate, as a number of months
FIRST_NOISE = 0.05  # of the observations, as a share of their variance


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A system with n states, of which the first q are seen, fitted to a record.

    Attributes:
        projection: `[h, w, q]`, from a field in K to amplitudes; zero on land.
        patterns: `[q, h, w]` K, from amplitudes to a field; zero on land.
        system: dynamics of the state, with its noisy observation.
    """

    projection: np.ndarray
    patterns: np.ndarray
    system: LinearSystem

    @functools.lru_cache(maxsize=4)  # noqa: B019 (parts are few and long-lived)
    def gains(self, in_len: int, reach: int) -> np.ndarray:
        """`[12, n, in_len + 1, q]`, the expected state of the last input month.

        From the amplitudes of the input months and, at the end, those of the memory of
        the last one. The first axis is its calendar month.

        Args:
            in_len: months of the inputs.
            reach: months that the memory reaches back.
        """
        a, r = self.system.transition, self.system.observation_noise
        n, q = a.shape[-1], len(r)
        before = max(reach + 1 - in_len, 0)
        months = before + in_len
        # Known are the input months, and one sum of those before.
        sums = np.zeros((in_len + (before > 0), months))
        sums[:in_len, before:] = np.eye(in_len)
        ages = np.arange(months - 1, in_len - 1, -1)
        sums[in_len:, :before] = -(KEPT ** (ages - 1.0))
        known, states = len(sums), LinearSystem(a, self.system.noise)
        gains = np.zeros((MONTHS, n, in_len + 1, q))
        for last in range(MONTHS):
            whole = states.window_covariance(last + 1 - months, months)
            whole = whole.reshape(months, n, months, n)
            seen = np.tensordot(sums, whole[:, :q], 1)
            covariance = np.tensordot(seen[..., :q], sums, (2, 1)).transpose(0, 1, 3, 2)
            covariance += np.einsum("at,bt,pq->apbq", sums, sums, r)
            right = seen[:, :, -1].reshape(known * q, n)
            solved = np.linalg.solve(covariance.reshape(known * q, known * q), right)
            gains[last, :, :known] = solved.T.reshape(n, known, q)
        # The memory of the last month holds the inputs, too: they are taken off.
        weights = KEPT ** np.arange(in_len - 2, -1, -1)
        gains[:, :, : in_len - 1] += gains[:, :, in_len:] * weights[:, None]
        return gains


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenStateModel:
    """A fitted model.

    Attributes:
        parts: the systems whose mean is the forecast.
        out_len: months of the forecast.
        reach: months before the last input month that its memory knows.
    """

    parts: Sequence[Part]
    out_len: int
    reach: int

    def __call__(self, inputs, start_month, memory) -> np.ndarray:
        """Forecasts from all months of the inputs.

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
        known = np.concatenate([inputs[..., 0], memory[:, None]], 1, dtype=np.float64)
        start_month = np.asarray(start_month)
        total = np.zeros((len(inputs), self.out_len, *cells))
        for part in self.parts:
            gains = part.gains(inputs.shape[1], self.reach)[(start_month - 1) % MONTHS]
            amplitudes = np.tensordot(known, part.projection, 2)
            state = np.einsum("bntq,btq->bn", gains, amplitudes)
            states = part.system.forecast(state, start_month, self.out_len)
            seen = states[..., : amplitudes.shape[-1]]
            total += np.einsum("bkq,qhw->bkhw", seen, part.patterns)
        return (total / len(self.parts))[..., None].astype(np.float32)


def fit_hidden_states(
    months: Sequence[Months],
    ocean_mask,
    latitude,
    index_weights,
    out_len: int,
    reach: int = REACH,
) -> HiddenStateModel:
    """Fits the model.

    Args:
        months: training months, in the order of time, or of many climate model runs.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        index_weights: `[h, w]` of the Nino3.4 index.
        out_len: months of the forecast.
        reach: months before the last input month that its memory knows.

    Raises:
        ValueError: if there are too few months.
    """
    record = Record.of(months, ocean_mask, latitude, index_weights)
    parts: list[Part] = []
    for share in PARTS:
        kept = np.arange(len(record)) >= round((1 - share) * len(record))
        if parts and kept.sum() < SHORTEST:
            break
        parts.append(_fit_part(record, kept, latitude))
    return HiddenStateModel(parts, out_len, reach)


def _fit_part(record: Record, kept, latitude) -> Part:
    """Fits one system to the months that are kept."""
    ocean = record.ocean_mask
    fields = on_grid(record.cells[kept], ocean)
    basis = fit_eofs([fields], ocean, latitude).part(slice(MODES))
    modes = len(basis.variance)
    amplitudes = record.cells @ basis.projection
    # The index, and the first amplitudes, are what the first estimate remembers.
    index = basis.patterns @ record.index_weights
    onto = np.concatenate([index[:, None], np.eye(modes)], 1)[:, :HIDDEN]
    memory = _memory(amplitudes @ onto, record.series)
    memory = memory - memory[kept].mean(axis=0)
    spread = memory[kept].std(axis=0)
    if not spread.all():
        raise ValueError("the memory is the same in all months; no system has it")
    states = np.concatenate([amplitudes, memory / spread], axis=1)
    pairs, n = record.pairs(kept), states.shape[1]
    check_enough(len(pairs), n)
    first = fit_system(states, record.calendar, pairs, FIRST_RIDGE)
    noise = np.diag(FIRST_NOISE * amplitudes[kept].var(axis=0))
    start = LinearSystem(first.transition, first.noise, np.eye(modes, n), noise)
    blocks = Blocks.of(amplitudes, record.calendar, record.series, kept)
    return Part(
        projection=on_grid(basis.projection.T, ocean).transpose(1, 2, 0),
        patterns=on_grid(basis.patterns, ocean),
        system=improved(start, blocks, RIDGE_MONTHS / len(pairs), ITERATIONS),
    )


def _memory(values: np.ndarray, series: np.ndarray) -> np.ndarray:
    """The memory `[m, r]` of values `[m, r]` within each series."""
    edges = np.flatnonzero(np.diff(series)) + 1
    pieces = np.split(values[:, :, None], edges)
    return np.concatenate([memory_of_cells(x)[..., 0] for x in pieces])
