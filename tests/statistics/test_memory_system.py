import numpy as np

from earthformer_jax.statistics.memory import RATES
from earthformer_jax.statistics.memory_system import fit_memory_system
from earthformer_jax.statistics.seasonal_fit import Choices
from tests.statistics import small_ocean

TWO = Choices(modes=2, ridge=1e-8, rate=small_ocean.RATE)


def fit(months, choices=TWO, out_len=6):
    return fit_memory_system(
        months,
        small_ocean.OCEAN,
        small_ocean.LATITUDE,
        small_ocean.WEIGHTS,
        out_len,
        choices=choices,
    )


class TestFixedChoices:
    def test_recovers_a_known_system(self):
        record = small_ocean.months(40000, 0)
        model = fit([record])
        index = np.einsum("nhw,hw->n", model.patterns, small_ocean.WEIGHTS)
        states = model.states(record.fields[1000:1012], record.memory[1000:1012])
        after = np.einsum(
            "mij,mj->mi", model.system.transition[(1000 + np.arange(12)) % 12], states
        )
        truth = record.fields[1000:1012, 1, 2:4].mean(-1)
        month = (1000 + np.arange(12)) % 12
        expected = (
            small_ocean.SEASON[month] * truth
            + small_ocean.FEEDBACK
            * record.memory[1000:1012, RATES.index(small_ocean.RATE)]
        )
        np.testing.assert_allclose(after @ index, expected, atol=0.03)
