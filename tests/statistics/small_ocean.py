"""A small ocean whose dynamics are known, to fit systems with memory to."""

import numpy as np

from earthformer_jax.statistics.linear_system import harmonics_of
from earthformer_jax.statistics.memory import Months, leaky_integrals

LATITUDE = np.array([-10.0, 0.0, 10.0])
OCEAN = np.ones((3, 6), bool)
OCEAN[0, :2] = False
WEIGHTS = np.zeros((3, 6))
WEIGHTS[1, 2:4] = 0.5
RATE = 1.0
SEASON = harmonics_of(np.arange(12) + 0.5, 1) @ np.array([0.9, 0.04, -0.05])
FEEDBACK = 0.03  # of the memory (K months) on the index
WEST = 0.8  # damping of the second pattern, whose index is 0


def patterns() -> np.ndarray:
    """`[2, 3, 6]`: one with index 1, and one with index 0."""
    rng = np.random.default_rng(0)
    found = rng.normal(size=(2, 3, 6)) * OCEAN
    found[:, 1, 2:4] = [[1.0, 1.0], [1.0, -1.0]]
    return found


def months(length: int, seed: int, noise: float = 0.3, first_month: int = 0) -> Months:
    """Simulated months: T' = season T + feedback h + noise, h as it is defined."""
    rng = np.random.default_rng(seed)
    drive = noise * rng.normal(size=(length, 2))
    state, known = np.zeros((length, 2)), 0.0
    state[0] = rng.normal(size=2)
    for m in range(length - 1):
        growth = SEASON[(first_month + m) % 12]
        state[m + 1, 0] = growth * state[m, 0] + FEEDBACK * known + drive[m, 0]
        state[m + 1, 1] = WEST * state[m, 1] + drive[m, 1]
        known = np.exp(-RATE / 12) * known - state[m, 0]
    fields = np.tensordot(state, patterns(), 1)
    return Months(fields, leaky_integrals(state[:, 0]), first_month)
