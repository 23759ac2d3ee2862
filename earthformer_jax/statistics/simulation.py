"""Any number of windows of simulated months, on the grid of the original data.

Their dynamics are the seasonal linear system with memory (`statistics.memory_system`),
whose index has the persistence of the observed one, its seasons, and its change of sign
after two years. That of a system of three lags without memory, fitted to the same
months, hardly changes its sign.

Quadratic terms (T^2 and T h of the index and its memory, fitted to what the system
leaves of the changes) were tried and are not used: inside the training period of
observed Pacific temperature, over 16 withheld blocks of five years, they lower the
skill of the index from .458 to .443 (T^2 alone) and .431 (both), by more than twice
the standard error, and that of the map as well.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.eof import EofBasis, fit_eofs, on_grid
from earthformer_jax.statistics.field_memory import REACH, memory_of_cells
from earthformer_jax.statistics.linear_system import MONTHS, generator
from earthformer_jax.statistics.memory import RATES, Months, leaky_integrals
from earthformer_jax.statistics.memory_system import fit_memory_system
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import Choices, most_states
from earthformer_jax.statistics.state_model import StateModel

SIMULATION_KEY = 4  # separates these random numbers from those of other sources
# Near what withheld blocks choose, which matters less than that all months are used.
MODES, RIDGE, RATE = 16, 0.03, 1.0
SPIN_UP = REACH  # months before a window, which its memory knows
# EOFs after those of the dynamics are red noise, up to this share of the variance that
# is left; the last ones are white noise.
BACKGROUND_SHARE, BACKGROUND_MODES = 0.99, 200
MAX_LAG_ONE = 0.98


@dataclasses.dataclass(frozen=True, eq=False)
class RedNoise:
    """Independent first-order autoregressive amplitudes of spatial patterns.

    Represents the variance outside the leading EOFs: spatially coherent, with the
    observed persistence, but without dynamics that would help to forecast it.

    Attributes:
        basis: the r patterns.
        lag_one: `[r]`, autocorrelation of each amplitude from month to month.
        cell_std: float32 `[cells]` K, of white noise for the variance outside the
            patterns.
    """

    basis: EofBasis
    lag_one: np.ndarray
    cell_std: np.ndarray

    @classmethod
    def fit(cls, series, basis: EofBasis, last: EofBasis) -> "RedNoise":
        """Takes lag-one autocorrelations from `[months, h, w]` anomalies.

        Args:
            series: list of anomalies.
            basis: the patterns of the red noise.
            last: the following patterns, of which only the variance per cell is used.
        """
        product, months = 0.0, 0
        for fields in series:
            z = basis.amplitudes(fields)
            product = product + np.sum(z[1:] * z[:-1], axis=0)
            months += len(z) - 1
        lag_one = np.clip(product / (months * basis.variance), 0.0, MAX_LAG_ONE)
        white = np.sqrt(last.variance @ last.patterns**2)
        return cls(basis, lag_one, white.astype(np.float32))

    def simulate(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """Amplitudes `[length, r]` of the patterns."""
        z = rng.standard_normal((length, len(self.lag_one)), np.float32)
        lag_one = self.lag_one.astype(np.float32)
        z[1:] *= np.sqrt(1 - lag_one**2)
        for before, now in itertools.pairwise(z):
            now += lag_one * before
        return z * np.sqrt(self.basis.variance, dtype=np.float32)

    def white(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """White noise `[length, cells]` in K, for the variance outside the patterns."""
        return self.cell_std * rng.standard_normal(
            (length, len(self.cell_std)), np.float32
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatedSource:
    """Random-access windows drawn from a fitted system with memory.

    Window i is a pure function of (seed, i). It begins in a random calendar month.
    Items are {"inputs": `[in_len, h, w, 1]`, "targets": `[out_len, h, w, 1]`} float32
    in K, zero on land, "start_month", the calendar month of the first target, and of
    the input months float32 "memory" `[in_len, r]` of the index, for each of `RATES`,
    and "cell_memory" `[in_len, h, w]`, both in K months. The memories know `SPIN_UP`
    months before the window.

    Attributes:
        model: the patterns whose amplitudes have dynamics, and these.
        background: the variance outside of them.
        index_weights: `[cells]` of the Nino3.4 index.
        in_len, out_len: months of input and of target.
        seed: of the random numbers.
        size: number of windows.
    """

    model: StateModel
    background: RedNoise
    index_weights: np.ndarray
    in_len: int
    out_len: int
    seed: int = 0
    size: int = 1_000_000

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < self.size:
            raise IndexError(f"window {index} of {self.size}")
        rng = generator(self.seed, SIMULATION_KEY, index)
        first_month, months = int(rng.integers(MONTHS)), self.in_len + self.out_len
        length = SPIN_UP + months
        states = self._states(rng, first_month - SPIN_UP, length)
        red = self.background.simulate(rng, length)
        amplitudes = np.concatenate([states, red], axis=1).astype(np.float32)
        past = SPIN_UP + self.in_len
        remembered = self._cell_weights @ amplitudes[:past]
        cells = _synthesis(
            np.concatenate([amplitudes[SPIN_UP:], remembered]), self._patterns
        )
        fields, cell_memory = cells[:months], cells[months:]
        if self.background.cell_std.any():
            white = self.background.white(rng, months)
            fields = fields + white
            cell_memory = cell_memory + memory_of_cells(white[: self.in_len])
        nino = np.concatenate(
            [
                amplitudes[:SPIN_UP] @ self._index_of_patterns,
                fields[: self.in_len] @ self.index_weights,
            ]
        )
        start = states[0, -1] * self.model.memory_std + self.model.memory_mean
        memory = self._index_memory @ np.append(nino, start)
        ocean = self.background.basis.ocean_mask
        return window(on_grid(fields, ocean), first_month, self.in_len) | {
            "memory": memory.T.astype(np.float32),
            "cell_memory": on_grid(cell_memory, ocean),
        }

    def _states(self, rng, first_month: int, length: int) -> np.ndarray:
        """`LinearSystem.simulate` of one sequence `[length, n]`, faster."""
        system, month = self.model.system, (first_month + np.arange(length)) % MONTHS
        draws = rng.standard_normal((length, len(self.model.patterns)))
        states = np.einsum("tij,tj->ti", system.noise_factor[month - 1], draws)
        states[0] = system.stationary_factor[month[0]] @ draws[0]
        steps = system.transition[month]
        for i in range(1, length):
            states[i] += steps[i - 1] @ states[i - 1]
        return states

    @functools.cached_property
    def _patterns(self) -> np.ndarray:
        """Float32 `[n + r, cells]`, of the state and of the background."""
        ocean = self.background.basis.ocean_mask
        both = [self.model.patterns[:, ocean], self.background.basis.patterns]
        return np.concatenate(both).astype(np.float32)

    @functools.cached_property
    def _index_of_patterns(self) -> np.ndarray:
        return self._patterns @ self.index_weights

    @functools.cached_property
    def _cell_weights(self) -> np.ndarray:
        """Float32 `[in_len, months]`: the memory of a cell is linear in its past."""
        months = np.eye(SPIN_UP + self.in_len)
        return memory_of_cells(months)[SPIN_UP:]

    @functools.cached_property
    def _index_memory(self) -> np.ndarray:
        """`[r, in_len, months + 1]`: so is that of the index, also in its start."""
        months = np.eye(SPIN_UP + self.in_len, SPIN_UP + self.in_len + 1)
        start = np.zeros((months.shape[1], len(RATES)))
        start[-1] = 1
        return np.moveaxis(leaky_integrals(months, start=start)[SPIN_UP:], -1, 0)


def _synthesis(amplitudes: np.ndarray, patterns: np.ndarray) -> np.ndarray:
    """Sum of patterns, without the threads of a BLAS (`eof.synthesis`)."""
    return np.einsum("mk,kc->mc", amplitudes, patterns)


def window(fields: np.ndarray, first_month: int, in_len: int) -> dict[str, np.ndarray]:
    """Cuts `[months, h, w]` fields in K into one example of inputs and targets."""
    fields = fields[..., None].astype(np.float32)
    return {
        "inputs": fields[:in_len],
        "targets": fields[in_len:],
        "start_month": np.asarray((first_month + in_len) % MONTHS, np.int32),
    }


def simulated_source(
    months: Sequence[Months],
    ocean_mask,
    latitude,
    index_weights,
    *,
    in_len: int,
    out_len: int,
    seed: int = 0,
    size: int = 1_000_000,
) -> SimulatedSource:
    """Fits a seasonal system with memory to training months, to draw windows from.

    Args:
        months: the training months.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        index_weights: `[h, w]` of the Nino3.4 index.
        in_len, out_len: months of input and of target in a window.
        seed: of the random numbers.
        size: number of windows.

    Raises:
        ValueError: if there are too few months.
    """
    record = Record.of(months, ocean_mask, latitude, index_weights)
    pairs = len(record.pairs(np.ones(len(record), bool)))
    modes = max(min(MODES, most_states(pairs) - 1), 1)
    choices = Choices(ridge=RIDGE, rate=RATE, modes=modes)
    model = fit_memory_system(
        months, ocean_mask, latitude, index_weights, out_len, choices=choices
    )
    series = [x.fields for x in months]
    basis = fit_eofs(series, ocean_mask, latitude)
    share = np.cumsum(basis.variance[modes:])
    red_modes = int(np.searchsorted(share, BACKGROUND_SHARE * share[-1:].sum())) + 1
    end = modes + min(red_modes, BACKGROUND_MODES)
    red, last = basis.part(slice(modes, end)), basis.part(slice(end, None))
    return SimulatedSource(
        model,
        RedNoise.fit(series, red, last),
        record.index_weights,
        in_len,
        out_len,
        seed=seed,
        size=size,
    )
