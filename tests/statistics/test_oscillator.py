import numpy as np
import pytest

from earthformer_jax.statistics.memory import Months
from earthformer_jax.statistics.oscillator import box_means, fit_oscillator
from earthformer_jax.statistics.seasonal_fit import Choices

LATITUDE = np.arange(-27.5, 28, 5.0)
LONGITUDE = np.arange(182.5, 290, 5.0)
FIXED = Choices(ridge=0.01, rate=1.0)


def box(south, north, west, east) -> np.ndarray:
    rows = (LATITUDE > south) & (LATITUDE < north)
    columns = (LONGITUDE > west) & (LONGITUDE < east)
    return rows[:, None] & columns[None, :]


def test_boxes_are_area_means_of_the_ocean():
    ocean = np.ones((12, 22), bool)
    ocean[1, 14] = False  # in the south Pacific box
    means = box_means(ocean, LATITUDE, LONGITUDE)
    assert len(means) == 4
    for name, edges in {
        "north Pacific meridional mode": (10, 25, 200, 240),
        "south Pacific meridional mode": (-25, -15, 250, 270),
        "Nino1+2": (-10, 0, 270, 280),
        "western equatorial Pacific": (-5, 5, 182, 210),
    }.items():
        area = np.cos(np.deg2rad(LATITUDE))[:, None] * box(*edges) * ocean
        np.testing.assert_allclose(means[name], (area / area.sum())[ocean])


@pytest.mark.parametrize("west_of", (270.0, 200.0))
def test_boxes_outside_the_grid_are_left_out(west_of):
    inside = LONGITUDE < west_of
    means = box_means(np.ones((12, inside.sum()), bool), LATITUDE, LONGITUDE[inside])
    assert "Nino1+2" not in means
    assert ("north Pacific meridional mode" in means) == (west_of > 200)
    assert "western equatorial Pacific" in means


def test_longitudes_may_be_counted_to_the_west():
    ocean = np.ones((12, 22), bool)
    east = box_means(ocean, LATITUDE, LONGITUDE)
    west = box_means(ocean, LATITUDE, LONGITUDE - 360)
    for name, weights in east.items():
        np.testing.assert_array_equal(weights, west[name])


def test_the_index_of_its_map_is_that_of_its_state():
    rng = np.random.default_rng(0)
    fields = rng.normal(size=(400, 12, 22))
    weights = box(-5, 5, 190, 240) / 20
    months = Months(fields, rng.normal(size=(400, 4)), 3)
    model = fit_oscillator(
        [months],
        np.ones((12, 22), bool),
        LATITUDE,
        LONGITUDE,
        weights,
        5,
        choices=FIXED,
    )
    index = np.einsum("nhw,hw->n", model.patterns, weights)
    np.testing.assert_allclose(index, np.eye(6)[0], atol=1e-10)
    states = model.states(fields, months.memory)
    np.testing.assert_allclose(states[:, 0], np.einsum("mhw,hw->m", fields, weights))
