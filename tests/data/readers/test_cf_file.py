"""Reading CF-style files: what is understood, and what is refused with which words."""

import pathlib

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.readers import cf_file
from earthformer_jax.data.readers.months import format_month
from tests.data import sst_files


def read(ds, folder, variable="", name="sst.nc", **options):
    path = sst_files.write(ds, folder / name, **options)
    return cf_file.read(pathlib.Path(path), variable)


@pytest.fixture
def ds():
    return sst_files.dataset()


class TestUnderstood:
    def check(self, ds, read_back):
        expected = ds["sst"].values
        np.testing.assert_array_equal(read_back.values, expected)
        assert format_month(read_back.first_month) == "2000-01"
        np.testing.assert_array_equal(read_back.latitude, ds.lat)
        np.testing.assert_array_equal(read_back.longitude, ds.lon)

    @pytest.mark.parametrize("name", ["sst.nc", "sst.zarr"])
    def test_netcdf_and_zarr(self, ds, tmp_path, name):
        self.check(ds, read(ds, tmp_path, name=name))

    @pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
    def test_classic_netcdf(self, ds, tmp_path, form):
        self.check(ds, read(ds, tmp_path, format=form, unlimited_dims=["time"]))

    def test_descending_latitude(self, ds, tmp_path):
        self.check(ds, read(ds.isel(lat=slice(None, None, -1)), tmp_path))

    def test_west_longitude_and_other_axis_order(self, ds, tmp_path):
        west = ds.assign_coords(lon=("lon", ds.lon.values - 360, ds.lon.attrs))
        self.check(ds, read(west.transpose("lon", "time", "lat"), tmp_path))

    def test_axes_are_known_by_attributes(self, ds, tmp_path):
        named = ds.rename(time="a", lat="b", lon="c")
        self.check(ds, read(named, tmp_path))

    def test_single_level_is_dropped(self, ds, tmp_path):
        self.check(ds, read(ds.expand_dims(zlev=[0.0], axis=1), tmp_path))

    def test_packed_integers(self, ds, tmp_path):
        packing = {"sst": dict(dtype="int16", scale_factor=0.01, _FillValue=-999)}
        values = read(ds, tmp_path, encoding=packing).values
        np.testing.assert_allclose(values, ds["sst"].values, atol=0.0051)

    def test_months_since(self, ds, tmp_path):
        """Not CF, but what the IRI data library writes, with mid-month values."""
        units = {"units": "months since 1960-01-01", "calendar": "360"}
        middle = 12 * 40 + np.arange(ds.sizes["time"]) + 0.5
        self.check(ds, read(ds.assign_coords(time=("time", middle, units)), tmp_path))

    @pytest.mark.parametrize("calendar", ["360_day", "noleap"])
    def test_model_calendars(self, ds, tmp_path, calendar):
        time = xr.date_range(
            "2000-01-01",
            periods=ds.sizes["time"],
            freq="MS",
            calendar=calendar,
            use_cftime=True,
        )
        self.check(ds, read(ds.assign_coords(time=time), tmp_path))

    def test_years_outside_the_range_of_nanoseconds(self, ds, tmp_path):
        units = {"units": "days since 0001-01-01", "calendar": "360_day"}
        days = 30 * np.arange(ds.sizes["time"])
        ds = ds.assign_coords(time=("time", days, units))
        assert format_month(read(ds, tmp_path).first_month) == "0001-01"

    @pytest.mark.parametrize("name", ["ssta", "tos", "SST", "anom"])
    def test_well_known_names(self, ds, tmp_path, name):
        ds = ds.assign(other=ds["sst"] * 2).rename(sst=name)
        assert read(ds, tmp_path).name == name

    def test_standard_name_comes_first(self, ds, tmp_path):
        other = ds["sst"].assign_attrs(standard_name="sea_surface_temperature")
        assert read(ds.assign(x=other), tmp_path).name == "x"

    def test_the_only_temperature_by_units(self, ds, tmp_path):
        ds = ds.rename(sst="x").assign(y=ds["sst"].assign_attrs(units="m"))
        assert read(ds, tmp_path).name == "x"


class TestRefused:
    def refused(self, ds, folder, message, **arguments):
        with pytest.raises(ValueError, match=message):
            read(ds, folder, **arguments)

    def test_missing_file(self, tmp_path):
        (tmp_path / "sst.nc").touch()
        with pytest.raises(FileNotFoundError, match="exist; did you mean 'sst.nc'?"):
            cf_file.read(tmp_path / "sts.nc")
        with pytest.raises(FileNotFoundError, match="nor does its directory"):
            cf_file.read(tmp_path / "no" / "sst.nc")

    def test_variable_that_is_not_there(self, ds, tmp_path):
        self.refused(ds, tmp_path, "did you mean 'sst'?", variable="sstt")
        self.refused(ds, tmp_path, "three or more dimensions are: sst", variable="qq")

    def test_no_temperature(self, ds, tmp_path):
        ds = ds.rename(sst="x")
        ds["x"].attrs["units"] = "m s-1"
        self.refused(ds, tmp_path, "no variable that is a sea surface temperature")

    def test_several_temperatures(self, ds, tmp_path):
        ds = ds.rename(sst="x")
        self.refused(ds.assign(y=ds["x"]), tmp_path, "several temperatures: x, y")

    def test_units(self, ds, tmp_path):
        ds["sst"].attrs["units"] = "degF"
        self.refused(ds, tmp_path, "units 'degF'; expected K or degC")

    def test_truncated_netcdf4(self, ds, tmp_path):
        path = pathlib.Path(sst_files.write(ds, tmp_path / "sst.nc"))
        whole = path.read_bytes()
        for size in (len(whole) // 2, len(whole) - 100):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=f"damaged .{size} bytes"):
                cf_file.read(path)

    @pytest.mark.parametrize("unlimited", [[], ["time"]])
    def test_truncated_netcdf3(self, ds, tmp_path, unlimited):
        """The NetCDF library would read zeros where the file ends."""
        path = pathlib.Path(
            sst_files.write(
                ds,
                tmp_path / "sst.nc",
                format="NETCDF3_CLASSIC",
                unlimited_dims=unlimited,
            )
        )
        whole = path.read_bytes()
        for size in (len(whole) // 2, len(whole) - 100):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=f"damaged .{size} bytes"):
                cf_file.read(path)

    def test_other_files(self, tmp_path):
        path = tmp_path / "sst.nc"
        path.write_bytes(b"month,sst\n2000-01,27\n")
        with pytest.raises(ValueError, match="not a NetCDF file .* b'month,ss'"):
            cf_file.read(path)
        path.write_bytes(b"")
        with pytest.raises(ValueError, match="not a NetCDF file .0 bytes"):
            cf_file.read(path)
        with pytest.raises(ValueError, match="directory but not a Zarr store"):
            cf_file.read(tmp_path)

    @pytest.mark.parametrize(
        ("months", "message"),
        [
            ([0, 1, 2, 4, 5], "2000-03 is followed by 2000-05: 2000-04 is missing; "),
            ([0, 1, 2, 3, 8], "2000-05 is missing and 3 more after it"),
            ([0, 1, 3, 2, 4], "it goes back from 2000-04 to 2000-03; sort it"),
            ([2, 1, 0], "it goes back from 2000-03 to 2000-02; sort it"),
            ([0, 12, 24], "2000-01 is followed by 2001-01; a file of monthly means"),
        ],
    )
    def test_time_with_gaps(self, ds, tmp_path, months, message):
        self.refused(ds.isel(time=months), tmp_path, message)

    def test_daily_values(self, ds, tmp_path):
        days = np.datetime64("2000-01-01", "ns") + np.arange(
            ds.sizes["time"]
        ) * np.timedelta64(1, "D")
        message = "steps 0 and 1 are both in 2000-01; average the data to months"
        self.refused(ds.assign_coords(time=days), tmp_path, message)

    def test_time_without_units(self, ds, tmp_path):
        ds = ds.assign_coords(time=200001 + np.arange(ds.sizes["time"]))
        self.refused(ds, tmp_path, "units ''.*Expected CF units such as 'days since")

    def test_curvilinear_grid(self, ds, tmp_path):
        latitude, longitude = np.meshgrid(ds.lat, ds.lon, indexing="ij")
        ds = ds.rename(lat="j", lon="i").drop_vars(["j", "i"])
        ds = ds.assign_coords(lat=(("j", "i"), latitude), lon=(("j", "i"), longitude))
        self.refused(ds, tmp_path, "'sst' lies on a curvilinear grid .its latitude")

    def test_missing_axis(self, ds, tmp_path):
        ds = ds.rename(lat="cell").drop_vars("cell")
        self.refused(ds, tmp_path, "no latitude axis was recognised")

    def test_axis_without_coordinate(self, ds, tmp_path):
        self.refused(ds.drop_vars("lat"), tmp_path, "'lat' of 'sst' has no coordinate")

    def test_levels(self, ds, tmp_path):
        ds = ds.expand_dims(depth=[0.0, 10.0])
        self.refused(ds, tmp_path, "dimensions .depth=2, time=144.*one too many")

    def test_uneven_grid(self, ds, tmp_path):
        ds = ds.isel(lat=[0, 1, 2, 4, 5])
        self.refused(ds, tmp_path, "latitude is not evenly spaced: -2.5 is followed by")
