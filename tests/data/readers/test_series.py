"""Files as one series: order, gaps, regions, thinning, and files that do not fit."""

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.readers import series
from earthformer_jax.data.readers.frames import ArrayFrames, FileFrames
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import in_memory, open_cube
from tests import golden_files
from tests.data import cube_files


def opened(ds, folder, name="cube.nc", wanted=None, **options):
    path = cube_files.write(ds, folder / name)
    return open_cube(path, wanted or Wanted(), **options)


def read(cube):
    return cube.frames.read(0, cube.frames.shape[0])


@pytest.fixture
def ds():
    return cube_files.dataset(40)


class TestOneFile:
    def test_cube(self, ds, tmp_path):
        cube = opened(ds, tmp_path)
        assert cube.label == "cube.nc"
        assert str(cube) == "T, P on 4 x 5 cells 10N..17.5N 30E..40E"
        assert cube.segments.tolist() == [[0, 40]]
        assert cube.cadence == 1440
        assert cube.south_first
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))

    def test_descending_latitude_is_turned_over(self, ds, tmp_path):
        cube = opened(ds.isel(lat=slice(None, None, -1)), tmp_path)
        assert cube.south_first
        np.testing.assert_array_equal(cube.latitude, ds.lat)
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))

    def test_rows_without_latitude_stay(self, tmp_path):
        array = np.random.default_rng(0).random((20, 6, 7)).astype(np.float32)
        np.save(tmp_path / "a.npy", array)
        cube = open_cube(str(tmp_path / "a.npy"), Wanted())
        assert not cube.south_first and cube.latitude is None
        np.testing.assert_array_equal(read(cube)[..., 0], array)

    def test_gaps(self, ds, tmp_path):
        cube = opened(ds.isel(time=np.r_[0:10, 12:30, 31:40]), tmp_path)
        assert cube.segments.tolist() == [[0, 10], [10, 28], [28, 37]]
        assert cube.notes == (
            "2 gaps in steps of 1 day (after 2001-01-10, 2001-01-30), not crossed by "
            "any window",
        )

    def test_every_third_frame(self, ds, tmp_path):
        """Each stretch without gaps starts anew."""
        cube = opened(ds.isel(time=np.r_[0:10, 12:40]), tmp_path, time_step=3)
        want = [*range(0, 10, 3), *range(12, 40, 3)]
        assert cube.segments.tolist() == [[0, 4], [4, 14]]
        assert cube.cadence == 3 * 1440
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds)[want])
        np.testing.assert_array_equal(
            cube.frames.read(3, 7), cube_files.stacked(ds)[want[3:7]]
        )

    def test_blocks_of_cells(self, ds, tmp_path):
        cube = opened(ds.isel(lat=slice(None, None, -1)), tmp_path, space_step=2)
        coarse = ds.isel(lon=slice(0, 4)).coarsen(lat=2, lon=2).mean()
        np.testing.assert_allclose(read(cube), cube_files.stacked(coarse), rtol=1e-6)
        np.testing.assert_allclose(cube.latitude, coarse.lat)
        np.testing.assert_allclose(cube.longitude, coarse.lon)

    def test_curvilinear_coordinates_are_averaged(self, ds, tmp_path):
        lat, lon = np.meshgrid(ds.lat, ds.lon, indexing="ij")
        ds = ds.rename(lat="y", lon="x").drop_vars(["y", "x"])
        ds = ds.assign_coords(
            lat=(("y", "x"), lat, {"units": "degrees_north"}),
            lon=(("y", "x"), lon, {"units": "degrees_east"}),
        )
        cube = opened(ds, tmp_path, space_step=2)
        np.testing.assert_allclose(cube.latitude, [[11.25] * 2, [16.25] * 2])
        assert cube.south_first
        with pytest.raises(ValueError, match="has those of a curvilinear grid"):
            opened(ds, tmp_path, "b.nc", region=(0, 1, 2, 3))

    def test_memory(self, ds, tmp_path):
        cube = opened(ds, tmp_path)
        size = 40 * 4 * 5 * 2 * 4
        assert isinstance(in_memory(cube, size - 1).frames, FileFrames)
        loaded = in_memory(cube, size)
        assert isinstance(loaded.frames, ArrayFrames)
        assert in_memory(loaded) is loaded
        np.testing.assert_array_equal(read(loaded), read(cube))


class TestRegion:
    @pytest.fixture
    def world(self):
        """Values are the longitude of the cell, 0..360 and rows from the north."""
        lat, lon = np.arange(80.0, -81, -20), np.arange(0.0, 360, 15)
        values = np.broadcast_to(lon, (6, len(lat), len(lon))).astype(np.float32)
        time = np.datetime64("2001-01-01", "ns") + np.arange(6) * np.timedelta64(1, "D")
        return xr.Dataset(
            {"x": (("time", "lat", "lon"), values)},
            coords={"time": time, "lat": lat, "lon": lon},
        )

    @pytest.mark.parametrize(
        ("region", "longitude"),
        [
            ((-20, 20, 30, 60), [30, 45, 60]),
            ((-25, 25, -30, 20), [330, 345, 360, 375]),
            ((-20, 20, 340, 380), [345, 360, 375]),
            ((-20, 20, 170, -170), [180]),
        ],
    )
    def test_columns(self, world, tmp_path, region, longitude):
        cube = opened(world, tmp_path, region=region)
        np.testing.assert_array_equal(cube.latitude, [-20, 0, 20])
        np.testing.assert_array_equal(cube.longitude, longitude)
        want = np.broadcast_to(np.array(longitude) % 360, (6, 3, len(longitude)))
        np.testing.assert_array_equal(read(cube)[..., 0], want)

    def test_the_whole_circle(self, world, tmp_path):
        cube = opened(world, tmp_path, region=(-90, 90, -180, 180))
        assert cube.frames.shape[1:3] == (9, 24)
        assert np.all(np.diff(cube.longitude) == 15)

    def test_refused(self, world, tmp_path):
        with pytest.raises(
            ValueError, match="region=1,2,3,4 contains no cells of the grid"
        ):
            opened(world, tmp_path, region=(1, 2, 3, 4))
        np.save(tmp_path / "a.npy", np.zeros((20, 6, 7)))
        with pytest.raises(ValueError, match="latitudes of rows .*a.npy has none"):
            open_cube(str(tmp_path / "a.npy"), Wanted(), region=(1, 2, 3, 4))
        with pytest.raises(
            ValueError, match="space_step=10 is larger than the grid of 9 x 24"
        ):
            opened(world, tmp_path, space_step=10)


class TestManyFiles:
    def test_in_order_of_time(self, ds, tmp_path):
        for name, part in {"b": slice(0, 15), "a": slice(15, 40)}.items():
            cube_files.write(ds.isel(time=part), tmp_path / f"{name}.nc")
        cube = open_cube(f"{tmp_path}/*.nc", Wanted())
        assert cube.label == "*.nc (2 files)"
        assert cube.segments.tolist() == [[0, 40]]
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))
        np.testing.assert_array_equal(np.diff(cube.minutes), 1440)

    def test_each_without_times_is_a_piece(self, tmp_path):
        for i, frames in enumerate((5, 7)):
            np.save(tmp_path / f"{i}.npy", np.full((frames, 6, 7), i))
        cube = open_cube(f"{tmp_path}/*.npy", Wanted())
        assert cube.segments.tolist() == [[0, 5], [5, 12]]
        np.testing.assert_array_equal(read(cube)[:, 0, 0, 0], 5 * [0] + 7 * [1])

    def test_sequences_are_pieces(self, tmp_path):
        array = np.arange(3 * 4).repeat(42).reshape(3, 4, 6, 7)
        np.save(tmp_path / "a.npy", array)
        cube = open_cube(str(tmp_path / "a.npy"), Wanted(axes="nthw"), time_step=2)
        assert cube.segments.tolist() == [[0, 2], [2, 4], [4, 6]]
        np.testing.assert_array_equal(read(cube)[:, 0, 0, 0], [0, 2, 4, 6, 8, 10])

    def test_a_field_each(self, tmp_path):
        for i in range(12):
            np.save(tmp_path / f"frame_{i}.npy", np.full((6, 7), i))
        cube = open_cube(f"{tmp_path}/*.npy", Wanted())
        assert cube.segments.tolist() == [[0, 12]]
        np.testing.assert_array_equal(read(cube)[:, 0, 0, 0], np.arange(12))

    def refused(self, tmp_path, a, b, message):
        cube_files.write(a, tmp_path / "a.nc")
        cube_files.write(b, tmp_path / "b.nc")
        with pytest.raises(ValueError, match=message):
            open_cube(f"{tmp_path}/*.nc", Wanted())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda ds: ds.rename(T="S"), "match: variables T, P and S, P"),
            (lambda ds: ds.isel(lat=slice(1, 4)), "grids of .4, 5. and .3, 5. cells"),
            (lambda ds: ds.assign_coords(lon=ds.lon + 1), "have different longitudes"),
            (lambda ds: ds.drop_vars("time"), "b.nc has no times, but .*a.nc does"),
        ],
    )
    def test_other_files(self, ds, tmp_path, change, message):
        a, b = ds.isel(time=slice(0, 20)), ds.isel(time=slice(20, 40))
        self.refused(tmp_path, a, change(b), message)

    def test_era_interim(self):
        """Three months in three packed NetCDF-3 files."""
        folder = golden_files.shared_file("data", "climate")
        cube = open_cube(f"{folder}/ERA_Interim_2017*.nc", Wanted(), space_step=16)
        assert cube.names == ("sp", "t2m", "tp", "u10", "v10")
        assert series.times_lib.frame_name(cube.cadence) == "1 month"
        assert cube.segments.tolist() == [[0, 3]]
        values = read(cube)
        assert values.shape == (3, 15, 30, 5)
        assert 200 < values[..., 1].min() < values[..., 1].max() < 320  # K
        assert cube.latitude[0] < 0 < cube.latitude[-1]
        southern, northern = values[:, 0, :, 1].mean(), values[:, 7, :, 1].mean()
        assert southern < 260 < 290 < northern  # Antarctica, the equator


class TestRefused:
    @pytest.mark.parametrize(
        ("order", "message"),
        [
            ([0, 1, 3, 2], "cube.nc: time goes back from 2001-01-04 .step 2. to 2001-"),
            ([0, 1, 1, 2], "cube.nc: steps 1 and 2 are both at 2001-01-02; remove the"),
        ],
    )
    def test_times(self, ds, tmp_path, order, message):
        with pytest.raises(ValueError, match=message):
            opened(ds.isel(time=order), tmp_path)

    def test_empty(self, ds, tmp_path):
        with pytest.raises(ValueError, match="is empty: 1 sequences of 0 steps of 4 x"):
            opened(ds.isel(time=slice(0, 0)), tmp_path)
