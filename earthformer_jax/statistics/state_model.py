"""A forecast of fields from a few numbers that describe the ocean, and their dynamics.

    state = sum over cells of field * projection + memory_gain * (h - mean) / std
    field = sum over the state of state * patterns

The dynamics of the state are a seasonal linear system; h is the memory of
`statistics.memory`.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from earthformer_jax.statistics.linear_system import LinearSystem
from earthformer_jax.statistics.memory import RATES


@dataclasses.dataclass(frozen=True, eq=False)
class StateModel:
    """A fitted linear model with memory, of n state variables on an `[h, w]` grid.

    Attributes:
        projection: `[h, w, n]`, from a field in K to the state; zero on land.
        memory_gain: `[n]`, from the standardised memory to the state.
        rate: the rate of the memory per year, one of `RATES`.
        memory_mean: of the memory over the training months, K months.
        memory_std: its standard deviation, K months.
        patterns: `[n, h, w]` K, from the state to a field; zero on land.
        system: dynamics of the state from month to month.
        out_len: months of the forecast.
        choices: what was chosen to fit it, such as "modes" and "ridge".

    Raises:
        ValueError: if the shapes do not match, or the rate is not one of `RATES`.
    """

    projection: np.ndarray
    memory_gain: np.ndarray
    rate: float
    memory_mean: float
    memory_std: float
    patterns: np.ndarray
    system: LinearSystem
    out_len: int
    choices: Mapping[str, float]

    def __post_init__(self) -> None:
        n = self.system.transition.shape[-1]
        cells = self.projection.shape[:2]
        for name, shape in (
            ("projection", (*cells, n)),
            ("memory_gain", (n,)),
            ("patterns", (n, *cells)),
        ):
            if (found := getattr(self, name).shape) != shape:
                raise ValueError(f"{name} has shape {found}, expected {shape}")
        if self.rate not in RATES:
            raise ValueError(f"rate={self.rate:g} is not one of {RATES}")

    def standardised(self, memory) -> np.ndarray:
        """`[..., r]` memory for each of `RATES` to `[...]`, that of this rate."""
        chosen = np.asarray(memory, np.float64)[..., RATES.index(self.rate)]
        return (chosen - self.memory_mean) / self.memory_std

    def states(self, fields, memory) -> np.ndarray:
        """`[..., h, w]` fields in K and `[..., r]` memory to `[..., n]` states."""
        used = np.any(self.projection != 0, axis=-1)
        cells = np.asarray(fields, np.float64)[..., used]
        states = np.tensordot(cells, self.projection[used], axes=1)
        return states + self.standardised(memory)[..., None] * self.memory_gain

    def fields(self, states) -> np.ndarray:
        """`[..., n]` states to `[..., h, w]` fields in K, zero on land."""
        return np.einsum("...n,nhw->...hw", states, self.patterns)

    def __call__(self, inputs, start_month, memory) -> np.ndarray:
        """Forecasts from the last month of the inputs.

        Args:
            inputs: `[b, t, h, w, 1]` in K.
            start_month: `[b]`, calendar month of the first forecast month.
            memory: `[b, r]` in K months, for each of `RATES`, of the last input month.

        Returns:
            float32 `[b, k, h, w, 1]` in K.

        Raises:
            ValueError: if the shapes do not match.
        """
        inputs, memory = np.asarray(inputs), np.asarray(memory)
        cells = self.projection.shape[:2]
        if inputs.ndim != 5 or inputs.shape[2:] != (*cells, 1):
            raise ValueError(
                f"inputs have shape {inputs.shape}; expected (b, t, {cells[0]}, "
                f"{cells[1]}, 1)"
            )
        if memory.shape != (len(inputs), len(RATES)):
            raise ValueError(
                f"memory has shape {memory.shape}; expected {len(inputs)} rows, one "
                f"for each example, of {len(RATES)} values"
            )
        state = self.states(inputs[:, -1, ..., 0], memory)
        states = self.system.forecast(state, start_month, self.out_len)
        return self.fields(states)[..., None].astype(np.float32)
