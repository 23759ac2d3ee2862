"""What marks missing data in a store, and which variables are no fields."""

import base64
import contextlib
from typing import Literal

import numpy as np
import pytest
import xarray as xr
import zarr

from earthformer_jax.data.readers import cf
from earthformer_jax.data.readers.layout import Undecided, Wanted
from earthformer_jax.data.readers.netcdf import NamedFile
from tests.data import cube_files

NAN = np.nan
DIMS = ("time", "lat", "lon")
CODES = np.arange(24).reshape(4, 2, 3)


def read(path, **wanted):
    file = NamedFile(path, Wanted(**wanted))
    with contextlib.closing(file.open()) as handle:
        every = slice(None)
        return file, file.read(handle, 0, every, every, every)


def store(path, values, form: Literal[2, 3] = 2, fill=None, **attributes):
    """A store as zarr-python writes it; its coordinates begin with 0."""
    group = zarr.open_group(str(path), mode="w", zarr_format=form)

    def put(name, numbers, dims, fill_value=None, **attrs):
        named = {"dimension_names": dims} if form == 3 else {}
        options = {} if fill_value is None else {"fill_value": fill_value}
        array = group.create_array(
            name, shape=numbers.shape, dtype=numbers.dtype, **named, **options
        )
        array[:] = numbers
        if form == 2:
            attrs["_ARRAY_DIMENSIONS"] = list(dims)
        array.attrs.update(attrs)

    put("rain", values, DIMS, fill, **attributes)
    put("time", np.arange(4.0), ("time",), units="days since 2000-01-01")
    put("lat", np.arange(2.0), ("lat",), units="degrees_north")
    put("lon", np.arange(3.0), ("lon",), units="degrees_east")
    return path


class TestZarrFills:
    @pytest.mark.parametrize("form", [2, 3])
    @pytest.mark.parametrize("dtype", ["f4", "f8", "u1", "i2", "bool"])
    def test_default_marks_nothing(self, tmp_path, form, dtype):
        values = (CODES % 5).astype(dtype)
        file, got = read(store(tmp_path / "rain.zarr", values, form))
        np.testing.assert_array_equal(got[..., 0], values)
        said = form == 2 and dtype in ("u1", "i2")  # xarray could mean missing values
        assert bool(file.layout.notes) == said
        assert file.layout.times is not None
        assert file.layout.times.seconds[0] == 946684800
        np.testing.assert_array_equal(file.layout.latitude, [0, 1])
        np.testing.assert_array_equal(file.layout.longitude, [0, 1, 2])

    @pytest.mark.parametrize("form", [2, 3])
    @pytest.mark.parametrize("consolidated", [True, False])
    def test_attribute_counts(self, tmp_path, form, consolidated):
        for fill, dtype in ((0, "u1"), (5, "i2"), (5.0, "f4")):
            values = CODES.astype(dtype)
            path = store(tmp_path / "rain.zarr", values, form, _FillValue=fill)
            if consolidated:  # in format 3 an extension
                zarr.consolidate_metadata(str(path))
            _, got = read(path)
            expected = np.where(fill == CODES, NAN, CODES)
            np.testing.assert_array_equal(got[..., 0], expected)

    @pytest.mark.parametrize("form", [2, 3])
    def test_other_fill_values_count(self, tmp_path, form):
        values = np.where(CODES == 3, -9999, CODES).astype("f4")
        _, got = read(store(tmp_path / "rain.zarr", values, form, fill=-9999))
        np.testing.assert_array_equal(got[..., 0], np.where(CODES == 3, NAN, CODES))

    @pytest.mark.parametrize("form", [2, 3])
    def test_as_xarray_writes_them(self, tmp_path, form):
        ds = cube_files.dataset(4)
        ds["T"].values[1, 2, 3] = ds["P"].values[0, 0, 0] = NAN
        packing = dict(dtype="i2", scale_factor=0.01, add_offset=290, _FillValue=-1)
        ds.to_zarr(
            tmp_path / "c.zarr",
            zarr_format=form,
            encoding={"T": packing, "P": {"_FillValue": -9999.0}},
        )
        _, got = read(tmp_path / "c.zarr")
        np.testing.assert_allclose(got, cube_files.stacked(ds, ("P", "T")), atol=6e-3)

    def test_text_of_a_number(self, tmp_path):
        text = base64.standard_b64encode(np.float64(5).tobytes()).decode()
        for fill in (text, "5", "nan"):
            path = store(tmp_path / "rain.zarr", CODES.astype("f4"), 3, _FillValue=fill)
            _, got = read(path)
            assert np.isnan(got).sum() == (fill != "nan")


def test_coordinates_keep_their_zeros(tmp_path):
    """NetCDF with a fill value that is a number of the axis."""
    ds = cube_files.dataset(4, latitude=(-2, 0, 2), longitude=(0, 2))
    for name in ("lat", "lon", "time"):
        ds[name].encoding["_FillValue"] = 0.0
    ds["time"].encoding["units"] = "days since 2001-01-01"
    cube_files.write(ds, tmp_path / "c.nc")
    layout = NamedFile(tmp_path / "c.nc", Wanted()).layout
    np.testing.assert_array_equal(layout.latitude, [-2, 0, 2])
    np.testing.assert_array_equal(layout.longitude, [0, 2])
    assert layout.times is not None and len(layout.times) == 4


class TestFields:
    """T and P are the fields, whatever else is in the file."""

    @pytest.fixture
    def ds(self):
        return cube_files.dataset(12)

    def check(self, ds, folder, names=("T", "P")):
        path = folder / "c.nc"
        ds.to_netcdf(path)
        layout = NamedFile(path, Wanted()).layout
        assert layout.names == names
        assert layout.steps == 12
        return layout

    def grids(self, ds, count, dims=("vertices", "lat", "lon"), **attributes):
        sizes = {"vertices": 4, "a": 2, "b": 3, **ds.sizes}
        values = np.ones([sizes[dim] for dim in dims])
        more = {f"m{i}": (dims, values, attributes) for i in range(count)}
        return ds.assign(more)

    @pytest.mark.parametrize(
        "dims",
        [
            ("vertices", "lat", "lon"),
            ("lat", "lon", "vertices"),
            ("a", "b", "lat", "lon"),
        ],
    )
    def test_grids_without_time(self, ds, tmp_path, dims):
        """Corners, or masks of basins, that nothing refers to."""
        self.check(self.grids(ds, 3, dims), tmp_path)

    @pytest.mark.parametrize("role", [r for r in cf.ROLES if r != "coordinates"])
    def test_what_attributes_name(self, ds, tmp_path, role):
        ds = self.grids(ds, 3, DIMS)
        ds["T"].attrs[role] = "area: m0 m1 there_is_no_such m2"
        self.check(ds, tmp_path)

    def test_bounds_of_coordinates_and_climatology(self, ds, tmp_path):
        ds = self.grids(ds, 3, ("time", "lat", "vertices"))
        ds["lat"].attrs["bounds"], ds["lon"].attrs["bounds"] = "m0", "m1"
        ds["time"].attrs["climatology"] = "m2"
        self.check(ds, tmp_path)

    def test_flags(self, ds, tmp_path):
        flag = dict(flag_values=np.array([0, 1], "i1"), flag_meanings="good bad")
        ds = self.grids(ds, 3, DIMS, **flag)
        ds["T"].attrs |= flag  # a measurement has units
        layout = self.check(ds, tmp_path)
        assert layout.notes == ("left out: m0, m1, m2",)
        path = tmp_path / "c.nc"
        assert NamedFile(path, Wanted(variables=("m1",))).layout.names == ("m1",)
        alone = tmp_path / "alone.nc"
        ds[["m0"]].to_netcdf(alone)
        assert NamedFile(alone, Wanted()).layout.names == ("m0",)

    @pytest.mark.parametrize("named", [True, False])
    def test_positions_for_every_time(self, ds, tmp_path, named):
        """As WRF writes them."""
        lat, lon = np.meshgrid(ds.lat, ds.lon, indexing="ij")
        ds = ds.rename(lat="south_north", lon="west_east", time="Time")
        ds = ds.drop_vars(["south_north", "west_east"])
        dims = ("Time", "south_north", "west_east")
        for name, values, units in (
            ("XLAT", lat, "degree_north"),
            ("XLONG", lon, "degree_east"),
            ("XLONG_U", lon, "degree_east"),
        ):
            ds[name] = dims, np.repeat(values[None], 12, 0), {"units": units}
        if named:
            ds = ds.set_coords(["XLAT", "XLONG"])
        layout = self.check(ds, tmp_path)
        np.testing.assert_array_equal(layout.latitude, lat)
        np.testing.assert_array_equal(layout.longitude, lon)
        assert layout.notes == ()
        ds["XLAT"].values[3:] += 1  # a grid that moves
        layout = self.check(ds, tmp_path)
        assert layout.latitude is None

    def test_no_time_where_another_variable_has_one(self, ds, tmp_path):
        path = tmp_path / "c.nc"
        self.grids(ds, 1).to_netcdf(path)
        message = "none of the dimensions .vertices: 4, .* 'm0' is recognised as time"
        with pytest.raises(ValueError, match=message):
            NamedFile(path, Wanted(variables=("m0",)))

    def test_sections_are_no_fields(self, ds, tmp_path):
        """Zonal means of more variables, in time."""
        ds = self.grids(ds.expand_dims(level=[1.0, 2, 3]), 3, ("time", "level", "lat"))
        self.check(ds[["m0", "m1", "m2"]].assign(T=ds["T"][0]), tmp_path, ("T",))

    @pytest.mark.parametrize("times", [("a", "b"), ("time", "t"), ("time", "time")])
    def test_two_grids(self, tmp_path, times):
        path = tmp_path / "c.nc"
        zeros = [
            xr.DataArray(np.zeros((3, 4, n)), dims=(time, "lat", f"x{n}"))
            for time, n in zip(times, (5, 6), strict=True)
        ]
        xr.Dataset({"u": zeros[0], "v": zeros[1]}).to_netcdf(path)
        message = "u and v have different grids or times; .* variables=u or variables=v"
        with pytest.raises(Undecided, match=message) as caught:
            NamedFile(path, Wanted())
        assert caught.value.choices == ({"variables": "u"}, {"variables": "v"})
        assert NamedFile(path, Wanted(variables=("v",))).layout.size == (4, 6)
