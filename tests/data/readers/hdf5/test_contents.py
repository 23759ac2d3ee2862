"""Links, other files, and named axes in HDF5."""

import os

import h5py
import numpy as np
import pytest

from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import open_cube
from tests.data.readers.hdf5 import files

TIME = ("time", 1800 * np.arange(30), "seconds since 2020-01-01")
LON = ("lon", np.arange(10.0, 34), "degrees_east")
LAT = ("lat", np.arange(-8.0, 8), "degrees_north")


def opened(path, *variables, **options):
    return open_cube(str(path), Wanted(variables=variables), **options)


def read(cube):
    return cube.frames.read(0, cube.frames.shape[0])


class TestLinks:
    def test_dangling(self, tmp_path):
        path = tmp_path / "a.h5"
        for link in (h5py.SoftLink("/nowhere"), h5py.ExternalLink("gone.h5", "/x")):
            with h5py.File(path, "w") as file:
                file["x"] = link
            with pytest.raises(ValueError, match="'x' is a link to .*, which does not"):
                opened(path)
            with pytest.raises(ValueError, match="'x' is a link to .*, which does not"):
                opened(path, "x")
            with h5py.File(path, "a") as file:
                file["y"] = files.frames()
            cube = opened(path)
            assert cube.names == ("y",)
            assert "'x' is a link to" in cube.notes[-1]

    def test_that_lead_somewhere(self, tmp_path):
        files.write(tmp_path / "b.h5", {"x": files.frames()})
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["far"] = h5py.ExternalLink("b.h5", "/x")
            file["near"] = h5py.SoftLink("/group/x")
        np.testing.assert_array_equal(read(opened(path))[..., 0], files.frames())

    def test_loops_and_second_names(self, tmp_path):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file["group/x"] = files.frames()
            file["group/again"] = file["group"]
            file["group/up"] = file["/"]
            file["round"] = h5py.SoftLink("/round")
            file["alias"] = h5py.SoftLink("/group/x")
        assert opened(path).names == ("group/x",)
        assert opened(path, "alias").names == ("alias",)

    def test_values_in_other_files(self, tmp_path):
        path = tmp_path / "a.h5"
        (tmp_path / "secret").write_bytes(bytes(4000))
        with h5py.File(path, "w") as file:
            place = [(str(tmp_path / "secret"), 0, 4000)]
            file.create_dataset("x", (40, 10, 10), "u1", external=place)
        for names in ((), ("x",)):
            with pytest.raises(ValueError, match="secret, HDF5 external storage"):
                opened(path, *names)

    def test_a_view_of_files_that_are_gone(self, tmp_path):
        """HDF5 would give zeros."""
        path = tmp_path / "a.h5"
        layout = h5py.VirtualLayout((40, 10, 12), "f4")
        layout[:] = h5py.VirtualSource("gone.h5", "x", (40, 10, 12))
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("x", layout)
        with pytest.raises(ValueError, match="is a view of gone.h5, which does not ex"):
            opened(path)
        files.write(tmp_path / "gone.h5", {"x": files.frames()})
        np.testing.assert_array_equal(read(opened(path))[..., 0], files.frames())

    def test_deep_groups(self, tmp_path):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            group = file
            for _ in range(1500):
                group = group.create_group("g")
            group["x"] = files.frames()
        np.testing.assert_array_equal(read(opened(path))[..., 0], files.frames())

    def test_never_written(self, tmp_path):
        """HDF5 would give zeros."""
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", (40, 10, 12), "f4")
        with pytest.raises(ValueError, match="'x' was never written"):
            opened(path)

    def test_chunks_that_were_never_written(self, tmp_path):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            data = file.create_dataset("x", (40, 10, 12), "f4", chunks=(10, 10, 12))
            data[:25] = files.frames(25)
        note = "1 of 4 chunks of 'x' were never written and are read as 0.0"
        assert note in opened(path).notes

    def test_unknown_compression(self, tmp_path):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_chunk((40, 10, 12))
            plan.set_filter(300, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
            space = h5py.h5s.create_simple((40, 10, 12))
            kind = h5py.h5t.IEEE_F32LE
            data = h5py.h5d.create(file.id, b"x", kind, space, plan)
            data.write_direct_chunk((0, 0, 0), bytes(100))
        with pytest.raises(ValueError, match="filter 300 .*h5repack -f GZIP=4 a.h5 a"):
            opened(path)

    def test_no_link_to_a_pipe_is_followed(self, tmp_path):
        os.mkfifo(tmp_path / "pipe.h5")
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["x"] = h5py.ExternalLink("pipe.h5", "/x")
        with pytest.raises(ValueError, match="link to pipe.h5, which does not exist"):
            opened(tmp_path / "a.h5")


class TestNamedAxes:
    @pytest.mark.parametrize("order", ["thw", "twh", "wht", "hwt"])
    @pytest.mark.parametrize("group", ["", "Grid/", "a/b/"])
    def test_scales(self, tmp_path, order, group):
        every = files.frames(30, 16, 24)
        axes = [{"t": TIME, "h": LAT, "w": LON}[letter] for letter in order]
        array = every.transpose(["thw".index(letter) for letter in order])
        path = files.with_scales(tmp_path / "a.h5", f"{group}rain", array, axes)
        cube = opened(path)
        assert cube.cadence == 30
        np.testing.assert_array_equal(cube.latitude, LAT[1])
        np.testing.assert_array_equal(cube.longitude, LON[1])
        np.testing.assert_array_equal(read(cube)[..., 0], every)

    def test_region_in_many_files_of_one_time(self, tmp_path):
        every = files.frames(5, 16, 24)
        for k in range(5):
            axes = [(TIME[0], TIME[1][k : k + 1], TIME[2]), LON, LAT]
            array = every[k : k + 1].transpose(0, 2, 1)
            files.with_scales(tmp_path / f"{k}.h5", "Grid/rain", array, axes)
        cube = opened(f"{tmp_path}/*.h5", "Grid/rain", region=(0, 5, 12, 20))
        np.testing.assert_array_equal(read(cube)[..., 0], every[:, 8:14, 2:11])

    def test_names_in_an_attribute(self, tmp_path):
        every = files.frames(30, 16, 24)
        arrays = {"Grid/rain": every.transpose(0, 2, 1)}
        arrays |= {"Grid/nlat": LAT[1], "Grid/nlon": LON[1]}
        names = {"Grid/rain": {"DimensionNames": np.bytes_("time,nlon,nlat")}}
        cube = opened(files.write(tmp_path / "a.h5", arrays, names))
        assert cube.latitude is not None
        np.testing.assert_array_equal(read(cube)[..., 0], every)

    def test_further_axes(self, tmp_path):
        every = files.frames(30, 16, 24)
        one = ("height", np.array([10.0]), "m")
        path = files.with_scales(
            tmp_path / "a.h5", "g/x", every[:, None], [TIME, one, LAT, LON]
        )
        np.testing.assert_array_equal(read(opened(path))[..., 0], every)
        bands = ("band", np.arange(3.0), "")
        array = np.stack([every, 2 * every, 3 * every])
        path = files.with_scales(
            tmp_path / "b.h5", "g/x", array, [bands, TIME, LAT, LON]
        )
        cube = opened(path)
        assert cube.names == ("g/x_0", "g/x_1", "g/x_2")
        np.testing.assert_array_equal(read(cube)[..., 2], 3 * every)
        many = ("lev", np.arange(9.0), "hPa")
        path = files.with_scales(
            tmp_path / "c.h5", "g/x", np.stack([every] * 9), [many, TIME, LAT, LON]
        )
        with pytest.raises(ValueError, match="'lev' is neither time nor grid.*ncks -d"):
            opened(path)

    def test_lengths_of_coordinates(self, tmp_path):
        """Axes without names, but coordinates of their lengths."""
        every = files.frames(30, 16, 24)
        arrays = {"rain": every.transpose(2, 1, 0), "lat": LAT[1], "lon": LON[1]}
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        np.testing.assert_array_equal(read(cube)[..., 0], every)
        assert not cube.notes

    def test_coordinates_of_the_same_group_come_first(self, tmp_path):
        arrays = {"a/lat": LAT[1] + 1, "b/x": files.frames(30, 16, 24)}
        arrays |= {"b/lat": LAT[1], "b/lon": LON[1], "lon": LON[1] + 5}
        cube = opened(files.write(tmp_path / "a.h5", arrays))
        np.testing.assert_array_equal(cube.latitude, LAT[1])
        np.testing.assert_array_equal(cube.longitude, LON[1])

    def test_no_coordinate_is_missing(self, tmp_path):
        arrays = {"x": files.frames(), "lat": np.arange(10.0), "lon": np.arange(12.0)}
        fill = {"lat": {"_FillValue": 0.0}, "lon": {"scale_factor": 2.0}}
        cube = opened(files.write(tmp_path / "a.h5", arrays, fill))
        np.testing.assert_array_equal(cube.latitude, np.arange(10))
        np.testing.assert_array_equal(cube.longitude, 2 * np.arange(12))

    def test_metres_are_no_degrees(self, tmp_path):
        arrays = {"x": files.frames(), "lat": 1000 * np.arange(10.0)}
        arrays["lon"] = 1000 * np.arange(12.0)
        assert opened(files.write(tmp_path / "a.h5", arrays)).latitude is None
