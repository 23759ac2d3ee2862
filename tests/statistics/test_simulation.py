import functools
import pickle

import numpy as np
import pytest

from earthformer_jax.data.enso import twin
from earthformer_jax.statistics import simulation
from earthformer_jax.statistics.field_memory import KEPT, memory_of_cells
from earthformer_jax.statistics.memory import RATES, Months, leaky_integrals

WEIGHTS = np.zeros(twin.OCEAN_MASK.shape)
WEIGHTS[
    np.ix_(np.abs(twin.LATITUDE) <= 5, (twin.LONGITUDE > 190) & (twin.LONGITUDE < 240))
] = 1
WEIGHTS /= WEIGHTS.sum()


@functools.cache
def series() -> np.ndarray:
    return twin.training_series(0, 1200)


@functools.cache
def source(in_len: int = 4) -> simulation.SimulatedSource:
    index = np.einsum("mhw,hw->m", series(), WEIGHTS)
    months = Months(series(), leaky_integrals(index), 0)
    where = twin.OCEAN_MASK, twin.LATITUDE, WEIGHTS
    return simulation.simulated_source([months], *where, in_len=in_len, out_len=3)


def test_a_window_depends_on_its_index_alone():
    first, other = source()[5], source()[6]
    again = source()[5]
    for key, value in first.items():
        np.testing.assert_array_equal(value, again[key])
    assert np.any(first["inputs"] != other["inputs"])


def test_shapes_units_and_land():
    example = source()[0]
    assert example["inputs"].shape == (4, 24, 48, 1)
    assert example["targets"].shape == (3, 24, 48, 1)
    assert example["inputs"].dtype == np.float32
    assert example["start_month"].dtype == np.int32
    assert not example["targets"][:, ~twin.OCEAN_MASK].any()


def test_variance_is_that_of_the_data():
    found = np.mean([source()[i]["targets"] ** 2 for i in range(400)], axis=(0, 1))
    found = found[..., 0][twin.OCEAN_MASK]
    expected = np.mean(series() ** 2, axis=0)[twin.OCEAN_MASK]
    assert abs(found.mean() / expected.mean() - 1) < 0.1
    assert np.corrcoef(found, expected)[0, 1] > 0.97


def test_every_calendar_month_occurs():
    months = [int(source()[i]["start_month"]) for i in range(200)]
    assert set(months) == set(range(12))


def test_background_keeps_its_persistence():
    background = source().background
    z = np.stack([background.simulate(np.random.default_rng(i), 40) for i in range(60)])
    found = np.sum(z[:, 1:] * z[:, :-1], (0, 1)) / np.sum(z[:, :-1] ** 2, (0, 1))
    np.testing.assert_allclose(found, background.lag_one, atol=0.12)
    np.testing.assert_allclose(
        np.mean(z**2, (0, 1)), background.basis.variance, rtol=0.6
    )


def test_states_are_those_of_the_system():
    one, system = source(), source().model.system
    draws = np.stack([one._states(np.random.default_rng(i), 7, 4) for i in range(4000)])
    for i in (0, 3):
        expected = system.covariance[(7 + i) % 12]
        found = draws[:, i].T @ draws[:, i] / len(draws)
        np.testing.assert_allclose(found, expected, atol=0.08 * expected.max())
    later = draws[:, 3].T @ draws[:, 2] / len(draws)
    expected = system.transition[9] @ system.covariance[9]
    np.testing.assert_allclose(later, expected, atol=0.08 * np.abs(expected).max())


def test_the_memory_of_the_index_follows_its_definition():
    example = source(30)[3]
    index = np.einsum("mhwc,hw->m", example["inputs"], WEIGHTS)
    assert example["memory"].shape == (30, len(RATES))
    expected = leaky_integrals(index, start=example["memory"][0])
    np.testing.assert_allclose(example["memory"], expected, atol=1e-4)


def test_the_memory_of_cells_follows_its_definition():
    """Months that remember the window alone remember what they should."""
    example, reach = source(60)[3], simulation.SPIN_UP
    own = memory_of_cells(example["inputs"][..., 0])
    found = example["cell_memory"]
    np.testing.assert_allclose(found[reach:], own[reach:], atol=1e-4)
    assert np.abs(found[0]).max() > 0.5  # that of the months before the window
    step = KEPT * found[:-1] - example["inputs"][:-1, ..., 0]
    assert np.corrcoef(step.ravel(), found[1:].ravel())[0, 1] > 0.98


def test_windows_begin_with_the_memory_of_their_state():
    one, rate = source(), RATES.index(simulation.RATE)
    found, of_states = [], []
    for i in range(300):
        rng = simulation.generator(one.seed, simulation.SIMULATION_KEY, i)
        first = int(rng.integers(12))
        states = one._states(rng, first - simulation.SPIN_UP, simulation.SPIN_UP + 7)
        of_states.append(states[simulation.SPIN_UP, -1])
        found.append(one[i]["memory"][0, rate])
    found = (np.array(found) - one.model.memory_mean) / one.model.memory_std
    assert np.corrcoef(found, of_states)[0, 1] > 0.9
    assert abs(np.std(found) - 1) < 0.15


def test_few_months_have_few_modes():
    index = np.einsum("mhw,hw->m", series(), WEIGHTS)
    short = Months(series()[:40], leaky_integrals(index[:40]), 0)
    few = simulation.simulated_source(
        [short], twin.OCEAN_MASK, twin.LATITUDE, WEIGHTS, in_len=4, out_len=3
    )
    assert few.model.choices["modes"] == 5
    assert np.all(np.isfinite(few[0]["targets"]))


def test_it_can_be_pickled():
    again = pickle.loads(pickle.dumps(source()))
    for key, value in source()[7].items():
        np.testing.assert_array_equal(value, again[7][key])


def test_indices_outside_are_refused():
    with pytest.raises(IndexError):
        source()[len(source())]
    with pytest.raises(IndexError):
        source()[-1]
