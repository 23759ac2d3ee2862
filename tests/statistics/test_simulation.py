import functools

import numpy as np
import pytest

from earthformer_jax.data.enso import twin
from earthformer_jax.statistics import simulation


@functools.cache
def series() -> np.ndarray:
    return twin.training_series(0, 1200)


@functools.cache
def source() -> simulation.SimulatedSource:
    return simulation.simulated_source(
        [series()], twin.OCEAN_MASK, twin.LATITUDE, 0, in_len=4, out_len=3
    )


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
    z = np.stack(
        [
            background.basis.amplitudes(
                background.simulate(np.random.default_rng(i), 40)
            )
            for i in range(60)
        ]
    )
    found = np.sum(z[:, 1:] * z[:, :-1], (0, 1)) / np.sum(z[:, :-1] ** 2, (0, 1))
    np.testing.assert_allclose(found, background.lag_one, atol=0.12)
    np.testing.assert_allclose(
        np.mean(z**2, (0, 1)), background.basis.variance, rtol=0.6
    )


def test_indices_outside_are_refused():
    with pytest.raises(IndexError):
        source()[len(source())]
    with pytest.raises(IndexError):
        source()[-1]
