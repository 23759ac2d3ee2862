"""Any number of windows of simulated months, on the grid of the original data."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from earthformer_jax.statistics.eof import EofBasis, fit_eofs, on_grid, synthesis
from earthformer_jax.statistics.linear_system import (
    MONTHS,
    LinearSystem,
    generator,
)

SIMULATION_KEY = 4  # separates these random numbers from those of other sources
DEFAULT_MODES = 12
BACKGROUND_MODES = 200  # EOFs after those of the dynamics; the last are white noise
MAX_LAG_ONE = 0.98


@dataclasses.dataclass(frozen=True, eq=False)
class RedNoise:
    """Independent first-order autoregressive amplitudes of spatial patterns.

    Represents the variance outside the leading EOFs: spatially coherent, with the
    observed persistence, but without dynamics that would help to forecast it.

    Attributes:
        basis: the r patterns.
        lag_one: `[r]`, autocorrelation of each amplitude from month to month.
        cell_std: `[cells]` K, of white noise for the variance outside the patterns.
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
        return cls(basis, lag_one, np.sqrt(last.variance @ last.patterns**2))

    def simulate(self, rng: np.random.Generator, length: int) -> np.ndarray:
        """`[length, h, w]` fields in K."""
        z = rng.standard_normal((length, len(self.lag_one)))
        z[1:] *= np.sqrt(1 - self.lag_one**2)
        for i in range(1, length):
            z[i] += self.lag_one * z[i - 1]
        cells = synthesis(z * np.sqrt(self.basis.variance), self.basis.patterns)
        if self.cell_std.any():
            cells += self.cell_std * rng.standard_normal(cells.shape, np.float32)
        return on_grid(cells, self.basis.ocean_mask)


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatedSource:
    """Random-access windows drawn from a fitted linear system.

    Window i is a pure function of (seed, i). It begins in a random calendar month.
    Items are {"inputs": `[in_len, h, w, 1]`, "targets": `[out_len, h, w, 1]`} float32
    in K, zero on land, and "start_month", the calendar month of the first target.

    Attributes:
        system: dynamics of the amplitudes of `basis`.
        basis: the patterns whose amplitudes the system describes.
        background: the variance outside of them.
        in_len, out_len: months of input and of target.
        seed: of the random numbers.
        size: number of windows.
    """

    system: LinearSystem
    basis: EofBasis
    background: RedNoise
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
        first_month = int(rng.integers(MONTHS))
        length = self.in_len + self.out_len
        states = self.system.simulate(rng, first_month, length)[0]
        fields = self.basis.fields(self.system.observe(states, rng))
        fields += self.background.simulate(rng, length)
        return window(fields, first_month, self.in_len)


def window(fields: np.ndarray, first_month: int, in_len: int) -> dict[str, np.ndarray]:
    """Cuts `[months, h, w]` fields in K into one example of inputs and targets."""
    fields = fields[..., None].astype(np.float32)
    return {
        "inputs": fields[:in_len],
        "targets": fields[in_len:],
        "start_month": np.asarray((first_month + in_len) % MONTHS, np.int32),
    }


def simulated_source(
    series,
    ocean_mask,
    latitude,
    first_month: int | Sequence[int],
    *,
    in_len: int,
    out_len: int,
    seed: int = 0,
    size: int = 1_000_000,
    modes: int = DEFAULT_MODES,
) -> SimulatedSource:
    """Fits a seasonal system with memory to training anomalies, to draw windows from.

    Args:
        series: list of `[months, h, w]` anomalies in K, finite over the ocean.
        ocean_mask: `[h, w]` bool.
        latitude: `[h]`, degrees north.
        first_month: calendar month of the first row of all series, or of each; 0 is
            January.
        in_len, out_len: months of input and of target in a window.
        seed: of the random numbers.
        size: number of windows.
        modes: EOFs with dynamics of their own; the others become red noise.
    """
    basis = fit_eofs(series, ocean_mask, latitude)
    dynamic = basis.part(slice(modes))
    red = basis.part(slice(modes, modes + BACKGROUND_MODES))
    last = basis.part(slice(modes + BACKGROUND_MODES, None))
    system = LinearSystem.fit([dynamic.amplitudes(x) for x in series], first_month)
    background = RedNoise.fit(series, red, last)
    return SimulatedSource(
        system, dynamic, background, in_len, out_len, seed=seed, size=size
    )
