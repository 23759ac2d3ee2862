"""Named variables of NetCDF files and Zarr stores."""

import contextlib
import pathlib

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.readers.layout import Undecided, Wanted
from earthformer_jax.data.readers.netcdf import NamedFile
from tests import golden_files
from tests.data import cube_files

ALL = slice(None)


def opened(ds, folder, name="cube.nc", wanted=None, **options):
    path = pathlib.Path(cube_files.write(ds, folder / name, **options))
    return NamedFile(path, wanted or Wanted())


def read(file, steps=ALL, rows=ALL, columns=ALL):
    with contextlib.closing(file.open()) as handle:
        return file.read(handle, 0, steps, rows, columns)


@pytest.fixture
def ds():
    return cube_files.dataset(12)


class TestUnderstood:
    def check(self, ds, file):
        layout = file.layout
        assert layout.names == ("T", "P")
        assert layout.units == ("K", "mm/day")
        assert (layout.sequences, layout.steps, layout.size) == (1, 12, (4, 5))
        assert str(layout.times.minutes[0].astype("datetime64[m]"))[:10] == "2001-01-01"
        np.testing.assert_array_equal(layout.latitude, [10, 12.5, 15, 17.5])
        np.testing.assert_array_equal(layout.longitude, [30, 32.5, 35, 37.5, 40])
        np.testing.assert_array_equal(read(file), cube_files.stacked(ds))

    @pytest.mark.parametrize("name", ["cube.nc", "cube.zarr"])
    def test_netcdf_and_zarr(self, ds, tmp_path, name):
        self.check(ds, opened(ds, tmp_path, name, Wanted(variables=("T", "P"))))

    def test_variables_of_a_store_have_an_order(self, ds, tmp_path):
        """A file has one; the listing of a folder depends on the file system."""
        assert opened(ds, tmp_path).layout.names == ("T", "P")
        assert opened(ds, tmp_path, "cube.zarr").layout.names == ("P", "T")

    def test_classic_netcdf(self, ds, tmp_path):
        self.check(ds, opened(ds, tmp_path, format="NETCDF3_CLASSIC"))

    def test_order_of_the_axes(self, ds, tmp_path):
        self.check(ds, opened(ds.transpose("lon", "time", "lat"), tmp_path))

    def test_axes_are_known_by_attributes(self, ds, tmp_path):
        named = ds.rename(lat="b", lon="c", time="a")
        self.check(ds, opened(named, tmp_path))

    def test_axes_are_known_by_usual_names(self, ds, tmp_path):
        for name in ("lat", "lon"):
            ds[name].attrs.clear()
        self.check(ds, opened(ds.rename(lat="latitude", lon="longitude"), tmp_path))

    def test_a_part(self, ds, tmp_path):
        file = opened(ds, tmp_path)
        part = read(file, slice(2, 9, 3), slice(1, 3), slice(0, 4))
        want = cube_files.stacked(ds)[2:9:3, 1:3, 0:4]
        np.testing.assert_array_equal(part, want)

    def test_chosen_variables_in_their_order(self, ds, tmp_path):
        file = opened(ds, tmp_path, wanted=Wanted(variables=("P", "T")))
        np.testing.assert_array_equal(read(file), cube_files.stacked(ds, ("P", "T")))

    def test_what_is_not_on_the_grid_is_left_out(self, ds, tmp_path):
        ds["other"] = (("time", "cell", "kind"), np.zeros((12, 3, 2)))
        ds["words"] = (("time", "lat", "lon"), np.full((12, 4, 5), "a"))
        ds["flat"] = ("time", np.zeros(12))
        file = opened(ds, tmp_path)
        self.check(ds, file)
        assert file.layout.notes == ("left out: other, words",)

    def test_packed_integers_with_missing_values(self, ds, tmp_path):
        ds["T"].values[3, 1, 2] = np.nan
        packing = dict(
            dtype="int16", scale_factor=0.01, add_offset=290, _FillValue=-32767
        )
        file = opened(ds, tmp_path, format="NETCDF3_CLASSIC", encoding={"T": packing})
        values = read(file)
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, cube_files.stacked(ds), atol=0.006)

    def test_values_named_missing(self, ds, tmp_path):
        ds["T"].values[3, 1, 2] = -999.9
        ds["P"].values[0, 0, 0] = np.inf
        file = opened(ds, tmp_path, wanted=Wanted(missing=(-999.9,)))
        missing = np.argwhere(np.isnan(read(file))).tolist()
        assert missing == [[0, 0, 0, 1], [3, 1, 2, 0]]

    def test_levels(self, ds, tmp_path):
        """One level, several, by name, beside a variable without."""
        levels = xr.concat([ds["T"], ds["T"] + 10, ds["T"] + 20], "level")
        ds = ds.assign(T=levels).assign_coords(level=[200, 500, 850])
        values = ds["T"].values

        def channels(*level):
            file = opened(ds, tmp_path, wanted=Wanted(level=level))
            return file.layout.names, read(file)

        for level in ("500", "500.0", "level=500"):
            names, got = channels(level)
            assert names == ("T", "P")
            np.testing.assert_array_equal(got[..., 0], values[1])
        names, got = channels("850", "200")
        assert names == ("T_850", "T_200", "P")
        np.testing.assert_array_equal(got[..., 0], values[2])
        np.testing.assert_array_equal(got[..., 1], values[0])

    @pytest.mark.parametrize("labels", [[1, 5], [5, 1], ["0001", "0005"]])
    def test_versions_that_complete_each_other(self, ds, tmp_path, labels):
        """ERA5 where it has values, else the preliminary ERA5T (expver=5)."""
        values = ds["T"].values
        old, new = values.copy(), values + 1
        old[8:] = np.nan
        new[:5] = np.nan
        parts = {1: old, 5: new}
        ordered = np.stack([parts[int(label)] for label in labels], axis=1)
        dims = ("time", "expver", "lat", "lon")
        ds = ds[["T"]].assign(T=(dims, ordered)).assign_coords(expver=labels)
        file = opened(ds, tmp_path)
        want = np.where(np.isnan(old), new, old)
        np.testing.assert_array_equal(read(file)[..., 0], want)
        assert (
            f"values are those of expver={min(labels)}, and" in (file.layout.notes[0])
        )
        one, five = min(labels), max(labels)
        for level, alone in ((f"{one}", old), (f"expver={five}", new)):
            file = opened(ds, tmp_path, wanted=Wanted(level=(level,)))
            np.testing.assert_array_equal(read(file)[..., 0], alone)
            assert not file.layout.notes

    def test_versions_beside_levels(self, ds, tmp_path):
        ds = ds[["T"]].expand_dims(expver=[1, 5], level=[200, 500], number=[0])
        assert read(opened(ds, tmp_path, wanted=Wanted(level=("500",)))).shape[3] == 1
        with pytest.raises(Undecided, match="2 levels along level .200, 500.; choose"):
            opened(ds, tmp_path)

    def test_versions_along_time_are_not_a_dimension(self, ds, tmp_path):
        """Newer files of the Climate Data Store name the version of every step."""
        versions = ("time", ["0001"] * 8 + ["0005"] * 4)
        self.check(ds, opened(ds.assign_coords(expver=versions, number=0), tmp_path))

    def test_two_further_dimensions(self, ds, tmp_path):
        ds = ds[["T"]].expand_dims(member=[3, 4], level=[200, 500], one=[7])
        wanted = Wanted(level=("member=4", "level=200"))
        assert read(opened(ds, tmp_path, wanted=wanted)).shape == (12, 4, 5, 1)
        with pytest.raises(Undecided, match="level=member=3,level=200$"):
            opened(ds, tmp_path, wanted=Wanted(level=("4",)))

    def test_uneven_latitude(self, ds, tmp_path):
        ds = ds.assign_coords(lat=("lat", [1.0, 2, 4, 8], ds.lat.attrs))
        latitude = opened(ds, tmp_path).layout.latitude
        np.testing.assert_array_equal(latitude, [1, 2, 4, 8])

    def test_curvilinear_grid(self, ds, tmp_path):
        lat, lon = np.meshgrid(ds.lat, ds.lon, indexing="ij")
        ds = ds.rename(lat="y", lon="x").drop_vars(["y", "x"])
        degrees = {"units": "degrees_north"}, {"units": "degrees_east"}
        ds = ds.assign_coords(
            lat=(("y", "x"), lat, degrees[0]), lon=(("y", "x"), lon, degrees[1])
        )
        layout = opened(ds, tmp_path).layout
        np.testing.assert_array_equal(layout.latitude, lat)
        np.testing.assert_array_equal(layout.longitude, lon)

    def test_projected_grid_has_no_latitude(self, ds, tmp_path):
        metres = {"units": "m"}
        ds = ds.rename(lat="y", lon="x")
        ds = ds.assign_coords(
            y=("y", 1e3 * np.arange(4), metres), x=("x", 1e3 * np.arange(5), metres)
        )
        layout = opened(ds, tmp_path).layout
        assert layout.latitude is None and layout.longitude is None
        assert layout.size == (4, 5)

    def test_time_without_units(self, ds, tmp_path):
        file = opened(ds.assign_coords(time=np.arange(12)), tmp_path)
        assert file.layout.times is None
        assert "'time' (0..11, no units) is not understood" in file.layout.notes[0]
        file = opened(ds.drop_vars("time"), tmp_path)
        assert file.layout.notes == (
            "'time' has no times: steps are assumed to be equal",
        )

    def test_era_interim(self):
        """NetCDF-3, int16 with negative scale, a fill value that is no integer."""
        path = golden_files.shared_file("data", "climate", "eraint_uvz.nc")
        file = NamedFile(path, Wanted(variables=("z", "u"), level=("500",)))
        values = read(file, rows=slice(60, 61))
        assert values.shape == (2, 1, 480, 2)
        assert 4.5e4 < values[..., 0].min() < values[..., 0].max() < 6e4  # m2/s2


class TestRefused:
    def refused(self, ds, folder, message, **wanted):
        with pytest.raises(ValueError, match=message):
            opened(ds, folder, wanted=Wanted(**wanted))

    def test_misspelt_variable(self, ds, tmp_path):
        message = "cube.nc has no variable 'TMAX' .of three .*: T, P"
        self.refused(ds, tmp_path, message, variables=("T", "TMAX"))
        long = ds.rename(T="temperature")
        message = "did you mean 'temperature'"
        self.refused(long, tmp_path, message, variables=("temprature",))

    @pytest.mark.parametrize(
        ("kind", "name", "message"),
        [
            ("U3", "cube.nc", "'T' has type .*; expected numbers: store them as"),
            (complex, "cube.zarr", "type complex128; expected numbers: take the real"),
        ],
    )
    def test_no_numbers(self, ds, tmp_path, kind, name, message):
        ds["T"] = ds["T"].astype(kind)
        with pytest.raises(ValueError, match=message):
            opened(ds, tmp_path, name, Wanted(variables=("T",)))
        with pytest.raises(ValueError, match=message):
            opened(ds[["T"]], tmp_path, f"alone_{name}")

    def test_other_grids(self, ds, tmp_path):
        ds["Q"] = (("time", "lat", "level"), np.zeros((12, 4, 3)))
        self.refused(ds, tmp_path, "must share time and grid", variables=("T", "Q"))

    def test_nothing_that_changes(self, ds, tmp_path):
        row = ds.isel(time=0, lat=0)
        self.refused(row, tmp_path, "no variable of two or more dimensions; .*: T .lon")
        self.refused(row, tmp_path, "expected time, rows and", variables=("T",))

    def test_unknown_time(self, ds, tmp_path):
        ds = ds.rename(time="a").drop_vars("a").expand_dims(b=2)
        self.refused(
            ds,
            tmp_path,
            "none of the dimensions .b: 2, a: 12, .* is recognised as time",
        )

    def test_levels(self, ds, tmp_path):
        self.refused(ds, tmp_path, "level=500 has no effect", level=("500",))
        ds = ds[["T"]].expand_dims(level=[200, 500])
        self.refused(
            ds,
            tmp_path,
            "level. is needed: 'T' .* 2 levels along level .200, 500.",
        )
        self.refused(ds, tmp_path, "no such value; there are: 200, 500", level=("300",))
        self.refused(ds, tmp_path, "did you mean 'level'", level=("levl=200",))

    def test_axes(self, ds, tmp_path):
        self.refused(ds, tmp_path, "axes=thw has no effect on", axes="thw")

    def test_coordinates(self, ds, tmp_path):
        wavy = ds.assign_coords(lat=("lat", [1.0, 3, 2, 4], ds.lat.attrs))
        self.refused(wavy, tmp_path, "latitude 'lat' is not monotonic")
        gappy = ds.assign_coords(lat=("lat", [1.0, np.nan, 2, 4], ds.lat.attrs))
        self.refused(gappy, tmp_path, "latitude 'lat' has missing values")

    def test_times(self, ds, tmp_path):
        days = ("time", np.arange(12), {"units": "fortnights since 2000-01-01"})
        ds = ds.assign_coords(time=days)
        self.refused(ds, tmp_path, "the time axis 'time' cannot be used: the unit 'fo")

    @pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_CLASSIC"])
    def test_truncated(self, ds, tmp_path, form):
        path = pathlib.Path(cube_files.write(ds, tmp_path / "cube.nc", format=form))
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match="truncated or damaged .* write it again"):
            NamedFile(path, Wanted())
