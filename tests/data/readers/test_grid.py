import numpy as np
import pytest

from earthformer_jax.data.readers import grid as grid_lib
from earthformer_jax.data.readers.grid import NINO34, Box, Grid


def ocean(latitude, longitude):
    latitude, longitude = np.asarray(latitude, float), np.asarray(longitude, float)
    return Grid(latitude, longitude, np.ones((len(latitude), len(longitude)), bool))


class TestOrder:
    def test_west_longitudes_become_east(self):
        order, longitude = grid_lib.order_longitude([-180, -90, 0, 90])
        np.testing.assert_array_equal(longitude, [0, 90, 180, 270])
        np.testing.assert_array_equal(order, [2, 3, 0, 1])

    def test_region_across_greenwich_stays_together(self):
        order, longitude = grid_lib.order_longitude([0, 10, 20, 340, 350])
        np.testing.assert_array_equal(longitude, [340, 350, 360, 370, 380])
        np.testing.assert_array_equal(order, [3, 4, 0, 1, 2])

    def test_region_across_the_date_line_stays_together(self):
        order, longitude = grid_lib.order_longitude([160, 170, 180, -170, -160])
        np.testing.assert_array_equal(longitude, [160, 170, 180, 190, 200])
        np.testing.assert_array_equal(order, np.arange(5))

    @pytest.mark.parametrize(
        ("latitude", "message"),
        [
            ([0, 2, 4, 9], "latitude is not evenly spaced: 4 is followed by 9"),
            ([0], "1 latitude value"),
            ([0, 2, 1], "not evenly spaced"),
        ],
    )
    def test_wrong_latitudes(self, latitude, message):
        with pytest.raises(ValueError, match=message):
            grid_lib.check_spacing(np.array(latitude), "latitude")

    @pytest.mark.parametrize(
        ("longitude", "message"),
        [
            ([0, 120, 240, 360], "longitude 0 occurs twice"),
            ([0, 10, 20, 40, 50], "20 is followed by 40"),
        ],
    )
    def test_wrong_longitudes(self, longitude, message):
        with pytest.raises(ValueError, match=message):
            grid_lib.order_longitude(longitude)

    def test_gaussian_latitudes_are_let_through(self):
        nodes = np.rad2deg(np.arcsin(np.polynomial.legendre.leggauss(32)[0]))
        grid_lib.check_spacing(nodes, "latitude")


class TestBox:
    def test_hand_computed_shares(self):
        """Cells of 4 degrees: the outer ones lie half in a box of 4S-4N, 12E-20E."""
        grid = ocean([-4, 0, 4], [12, 16, 20])
        weights = grid_lib.box_weights(grid, Box("b", -4, 4, 12, 20))
        edge, middle = np.cos(np.deg2rad(4)) / 2, 1
        rows = np.array([edge, middle, edge])
        expected = np.outer(rows, [0.5, 1, 0.5])
        np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-12)

    def test_full_cover_sums_to_one(self):
        grid = ocean(np.arange(-89.5, 90), np.arange(0.5, 360))
        area = grid_lib.box_area(grid.latitude, grid.longitude, NINO34)
        assert area.sum() == pytest.approx(1, rel=1e-4)
        assert area[grid.latitude > 5.5].sum() == 0

    def test_box_is_found_on_either_side_of_360(self):
        area = grid_lib.box_area([-5.0, 0, 5], np.arange(190, 241, 5.0) + 360, NINO34)
        assert area.sum() == pytest.approx(1, rel=0.01)

    def test_land_is_left_out(self):
        grid = ocean(np.arange(-7.5, 8, 5), np.arange(182.5, 258, 5))
        land = np.zeros_like(grid.ocean)
        land[1, 3] = True  # one of the 20 cells of the box
        weights = grid_lib.box_weights(Grid(grid.latitude, grid.longitude, ~land))
        assert weights[land] == 0
        assert weights.sum() == pytest.approx(1)
        land[2, 3] = True
        with pytest.raises(ValueError, match="covers 90% of Nino3.4"):
            grid_lib.box_weights(Grid(grid.latitude, grid.longitude, ~land))

    def test_grid_that_misses_the_box(self):
        with pytest.raises(ValueError, match=r"covers 0% of Nino3.4 \(5S-5N, 190E-240"):
            grid_lib.box_weights(ocean([20, 22, 24], [190, 200, 210]))

    def test_points_of_the_icar_grid(self):
        """The reference takes [10:13, 19:30] of the 24 x 48 grid."""
        grid = ocean(np.arange(-55, 61, 5), np.arange(95, 331, 5))
        weights = grid_lib.point_weights(grid)
        assert weights[10:13, 19:30].sum() == pytest.approx(1)
        assert np.unique(weights[weights > 0]).size == 1
        with pytest.raises(ValueError, match="no cell centre in Nino3.4"):
            grid_lib.point_weights(ocean([20, 25], [190, 200]))
