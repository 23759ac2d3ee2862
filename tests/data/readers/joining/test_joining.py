"""Several files as one series: order, duplicates, variables side by side, meanings."""

import datetime

import numpy as np
import pytest

from earthformer_jax.data.readers.frames import FramesBeside
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.series import in_memory, open_cube
from tests.data import cube_files


@pytest.fixture
def ds():
    return cube_files.dataset(40)


def read(cube):
    return cube.frames.read(0, cube.frames.shape[0])


def joined(folder, files, wanted=None, **options):
    """The cube of data sets by file name, in a new folder."""
    folder = folder / str(len(list(folder.iterdir())))
    folder.mkdir()
    for name, ds in files.items():
        cube_files.write(ds, folder / name)
    return open_cube(f"{folder}/*.nc", wanted or Wanted(), **options)


def halves(ds, at=20):
    return ds.isel(time=slice(0, at)), ds.isel(time=slice(at, None))


class TestBeside:
    def test_a_variable_per_file(self, ds, tmp_path):
        cube = joined(tmp_path, {"p.nc": ds[["P"]], "t.nc": ds[["T"]]})
        assert (cube.names, cube.units) == (("P", "T"), ("mm/day", "K"))
        assert cube.segments.tolist() == [[0, 40]]
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds, ("P", "T")))

    def test_in_the_order_in_which_they_are_requested(self, ds, tmp_path):
        cube = joined(
            tmp_path, {"p.nc": ds[["P"]], "t.nc": ds[["T"]]}, Wanted(("T", "P"))
        )
        assert cube.names == ("T", "P")
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))
        frames = cube.frames.channels([1])
        np.testing.assert_array_equal(frames.read(3, 5)[..., 0], ds["P"][3:5])
        assert isinstance(frames, FramesBeside) and frames.shape == (40, 4, 5, 1)
        loaded = in_memory(cube)
        np.testing.assert_array_equal(read(loaded), cube_files.stacked(ds))

    def test_each_in_its_own_number_of_files(self, ds, tmp_path):
        early, late = halves(ds["P"].to_dataset(), 13)
        files = {"p1.nc": late, "p2.nc": early, "t.nc": ds[["T"]]}
        cube = joined(tmp_path, files, time_step=2, region=(11, 16, 31, 39))
        part = ds.sel(lat=slice(11, 16), lon=slice(31, 39)).isel(time=slice(0, None, 2))
        np.testing.assert_array_equal(read(cube), cube_files.stacked(part, ("P", "T")))

    def test_one_of_them_alone(self, ds, tmp_path):
        files = {"p.nc": ds[["P"]], "t.nc": ds[["T"]]}
        cube = joined(tmp_path, files, Wanted(("T",)))
        assert cube.names == ("T",)
        assert cube.notes == ("left out 1 file without T: p.nc",)

    def test_a_level_of_one_of_them(self, ds, tmp_path):
        high = ds[["T"]].expand_dims(level=[500, 850])
        files = {"p.nc": ds[["P"]], "t.nc": high}
        cube = joined(tmp_path, files, Wanted(("P", "T"), level=("850",)))
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds, ("P", "T")))
        with pytest.raises(ValueError, match="level=850 has no effect"):
            joined(tmp_path, {"t.nc": ds[["T"]]}, Wanted(level=("850",)))

    def test_on_a_grid_that_runs_the_other_way(self, ds, tmp_path):
        turned = ds[["P"]].isel(lat=slice(None, None, -1))
        cube = joined(tmp_path, {"p.nc": turned, "t.nc": ds[["T"]]})
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds, ("P", "T")))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (
                lambda p: p.isel(time=slice(0, 30)),
                r"p.nc .P, 30 times 2001-01-01..2001-01-30. and .*t.nc .T, 40 times "
                ".* have different variables, but not at the same times",
            ),
            (
                lambda p: p.assign_coords(time=p.time + np.timedelta64(12, "h")),
                "but not at the same times; cut them",
            ),
            (lambda p: p.drop_vars("time"), "p.nc has no times, but|only if both have"),
            (
                lambda p: p.isel(lat=slice(0, 3)),
                r"grids of \(3, 5\) and \(4, 5\) cells",
            ),
            (lambda p: p.assign_coords(lon=p.lon + 1), "have different longitudes"),
            (lambda p: p.drop_vars("lat"), "only .*t.nc has latitudes"),
        ],
    )
    def test_refused(self, ds, tmp_path, change, message):
        with pytest.raises(ValueError, match=message):
            joined(tmp_path, {"p.nc": change(ds[["P"]]), "t.nc": ds[["T"]]})

    def test_a_variable_in_none_of_them(self, ds, tmp_path):
        files = {"p.nc": ds[["P"]], "t.nc": ds[["T"]]}
        with pytest.raises(ValueError, match="p.nc has no variable 'TT'"):
            joined(tmp_path, files, Wanted(("P", "TT")))

    def test_a_variable_in_some_of_a_series(self, ds, tmp_path):
        early, late = halves(ds)
        with pytest.raises(ValueError, match="variables T, P and T; choose those they"):
            joined(tmp_path, {"a.nc": early, "b.nc": late[["T"]]})


class TestOrder:
    def test_frames_in_two_files(self, ds, tmp_path):
        a, b = ds.isel(time=slice(0, 20)), ds.isel(time=slice(17, 40))
        cube = joined(tmp_path, {"a.nc": a, "b.nc": b})
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))
        assert cube.notes == (
            "3 frames that two files have with the same values, from 2001-01-18, are "
            "used once",
        )

    def test_the_same_file_twice(self, ds, tmp_path):
        ds["T"].values[3, 1] = np.nan
        cube = joined(tmp_path, {"a.nc": ds, "b.nc": ds})
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))

    def test_hours_that_alternate(self, ds, tmp_path):
        files = {f"{i}.nc": ds.isel(time=slice(i, None, 3)) for i in range(3)}
        cube = joined(tmp_path, files)
        assert cube.segments.tolist() == [[0, 40]]
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))

    def test_files_that_contradict_each_other(self, ds, tmp_path):
        a, b = ds.isel(time=slice(0, 20)), ds.isel(time=slice(17, 40)).copy(deep=True)
        b["P"].values[1, 2, 3] = 7
        message = (
            r"a.nc and .*b.nc both have 2001-01-19 \(3 times are in more than one "
            r"file\), and 'P' differs: .* in one and 7 in the other. If they are versi"
        )
        with pytest.raises(ValueError, match=message):
            joined(tmp_path, {"a.nc": a, "b.nc": b})
        b["P"].values[1, 2, 3] = np.nan
        with pytest.raises(ValueError, match="and missing in the other"):
            joined(tmp_path, {"a.nc": a, "b.nc": b})

    def test_one_time_per_file_in_two_folders(self, ds, tmp_path):
        for i in range(40):
            folder = tmp_path / ("a", "b")[i % 2]
            folder.mkdir(exist_ok=True)
            cube_files.write(ds.isel(time=i), folder / f"{40 - i}.nc")
        cube = open_cube(f"{tmp_path}/*/*.nc", Wanted())
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))
        assert cube.cadence == 1440 and not cube.notes


class TestNames:
    """Files of one field each, without times."""

    def saved(self, ds, folder, names):
        for i, name in enumerate(names):
            cube_files.write(ds.isel(time=i).drop_vars("time"), folder / name)
        cube = open_cube(f"{folder}/*.nc", Wanted())
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds)[: len(names)])
        assert cube.segments.tolist() == [[0, len(names)]]
        return cube

    @pytest.mark.parametrize(
        ("name", "step"),
        [
            ("rad_%Y%m%d%H%M", 5),
            ("v2_%Y%m%d_%H%M%S_20010101", 60),
            ("%Y-%m-%d.x", 1440),
            ("sst.v5.%Y%m", 31 * 1440),
        ],
    )
    def test_dates(self, ds, tmp_path, name, step):
        start = datetime.datetime(2001, 1, 1)
        moments = [start + datetime.timedelta(minutes=step * i) for i in range(6)]
        cube = self.saved(ds, tmp_path, [m.strftime(name) + ".nc" for m in moments])
        want = np.array(moments, "datetime64[m]")
        want = want.astype("datetime64[M]") if step > 1440 else want
        np.testing.assert_array_equal(
            cube.minutes, want.astype("datetime64[m]").astype(np.int64)
        )
        assert cube.notes == (
            "files have no times: frames are dated by the names of the files",
        )

    @pytest.mark.parametrize("name", ["f{}", "f_2001010{}_2001020{}", "20010101_{}"])
    def test_no_dates(self, ds, tmp_path, name):
        """Also where two dates change, as in names of periods."""
        cube = self.saved(
            ds, tmp_path, [name.format(i, i) + ".nc" for i in range(1, 7)]
        )
        assert cube.times is None
        assert "in the order of their names, at equal steps" in cube.notes[0]

    def test_arrays_of_one_frame(self, tmp_path):
        for i in range(8, 12):
            np.save(tmp_path / f"{i}.npy", np.full((1, 6, 7), i))
        cube = open_cube(f"{tmp_path}/*.npy", Wanted(axes="thw"))
        assert cube.segments.tolist() == [[0, 4]]
        np.testing.assert_array_equal(read(cube)[:, 0, 0, 0], np.arange(8, 12))


class TestMeaning:
    @pytest.mark.parametrize(
        "change",
        [
            lambda ds: ds[["P", "T"]],
            lambda ds: ds.rename(lat="latitude", lon="longitude", time="valid_time"),
            lambda ds: ds.isel(lat=slice(None, None, -1)),
            lambda ds: ds.isel(lon=[2, 3, 4, 0, 1]),
            lambda ds: ds.assign_coords(lon=ds.lon.assign_attrs() - 360),
            lambda ds: ds.assign_coords(lon=ds.lon.astype("f4"), lat=ds.lat + 1e-6),
            lambda ds: ds.assign_coords(lon=ds.lon - 1e-3).isel(lon=[3, 4, 0, 1, 2]),
            lambda ds: ds.transpose("lon", "lat", "time"),
            lambda ds: ds.assign(P=ds["P"].assign_attrs(units="mm d-1")),
            lambda ds: ds.assign(T=ds["T"].assign_attrs(units="kelvin")),
        ],
    )
    def test_the_same(self, ds, tmp_path, change):
        early, late = halves(ds)
        other = change(late)
        for name in other.coords:
            if name.startswith(("lat", "lon")):
                units = f"degrees_{'north' if name.startswith('lat') else 'east'}"
                other[name].attrs["units"] = units
        cube = joined(tmp_path, {"a.nc": early, "b.nc": other})
        assert (cube.names, cube.units) == (("T", "P"), ("K", "mm/day"))
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))
        part = open_cube(f"{tmp_path}/0/*.nc", Wanted(), region=(11, 16, 34, 39))
        want = ds.sel(lat=slice(11, 16), lon=slice(34, 39))
        np.testing.assert_array_equal(read(part), cube_files.stacked(want))

    def test_spelling_where_standard_names_agree(self, ds, tmp_path):
        named = {"standard_name": "air_temperature"}
        ds["T"] = ds["T"].assign_attrs(named)
        early, late = halves(ds.rename(T="t_2m"))
        cube = joined(tmp_path, {"a.nc": early, "b.nc": late.rename(t_2m="T2M")})
        assert cube.names == ("t_2m", "P")
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))
        files = {"a.nc": late.rename(t_2m="T2M"), "b.nc": early}
        cube = joined(tmp_path, files, Wanted(("P", "t_2m")))
        assert (cube.names, cube.notes) == (("P", "t_2m"), ())
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds, ("P", "T")))
        with pytest.raises(ValueError, match="has no variable 'T_2m'; did you mean"):
            joined(tmp_path, files, Wanted(("T_2m",)))
        del late["t_2m"].attrs["standard_name"]
        with pytest.raises(ValueError, match="match: variables .*t_2m"):
            joined(tmp_path, {"a.nc": early, "b.nc": late.rename(t_2m="T2M")})

    def test_zarr_beside_netcdf(self, ds, tmp_path):
        """A store lists its variables in another order."""
        early, late = halves(ds)
        cube_files.write(early, tmp_path / "a.nc")
        cube_files.write(late, tmp_path / "b.zarr")
        cube = open_cube(f"{tmp_path}/*", Wanted())
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))

    @pytest.mark.parametrize("units", ["degC", "mK", "mm/day", "dBZ"])
    def test_other_units(self, ds, tmp_path, units):
        early, late = halves(ds)
        late["T"] = late["T"].assign_attrs(units=units)
        message = f"'T' has the units 'K' in one and '{units}' in the other; convert on"
        with pytest.raises(ValueError, match=message):
            joined(tmp_path, {"a.nc": early, "b.nc": late})

    def test_calendars(self, ds, tmp_path):
        def days(first, calendar):
            attributes = {"units": "days since 2001-01-01", "calendar": calendar}
            return {"time": ("time", first + np.arange(20.0), attributes)}

        early, late = (half.drop_vars("time") for half in halves(ds))
        early = early.assign_coords(days(0, "standard"))
        same = late.assign_coords(days(20, "proleptic_gregorian"))
        cube = joined(tmp_path, {"a.nc": early, "b.nc": same})
        assert cube.segments.tolist() == [[0, 40]]
        message = "the calendar 'standard', .*b.nc 'noleap', and they have different da"
        with pytest.raises(ValueError, match=message):
            other = late.assign_coords(days(20, "noleap"))
            joined(tmp_path, {"a.nc": early, "b.nc": other})

    def test_curvilinear_grids(self, ds, tmp_path):
        """Rows and columns are those of the file; only their coordinates turn over."""
        lat, lon = np.meshgrid(ds.lat, ds.lon, indexing="ij")
        ds = ds.rename(lat="y", lon="x").drop_vars(["y", "x"])
        ds = ds.assign_coords(
            lat=(("y", "x"), lat, {"units": "degrees_north"}),
            lon=(("y", "x"), lon, {"units": "degrees_east"}),
        )
        early, late = halves(ds)
        turned = late.isel(y=slice(None, None, -1))
        cube = joined(tmp_path, {"a.nc": early, "b.nc": turned})
        np.testing.assert_array_equal(read(cube), cube_files.stacked(ds))
        other = late.assign_coords(lon=(("y", "x"), lon + 1, late.lon.attrs))
        with pytest.raises(ValueError, match="have different longitudes"):
            joined(tmp_path, {"a.nc": early, "b.nc": other})
