"""Climatology, land, gaps and periods of gridded files; real files where present."""

import csv
import pathlib

import h5py
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.enso import base, gridded_sst
from earthformer_jax.data.readers import times
from earthformer_jax.data.readers.layout import Undecided, Wanted
from earthformer_jax.data.splits import Dates
from tests import golden_files
from tests.data import sst_files

DATES = dict(train_until="2007-12", validate_until="2009-12")
TRAIN_MONTHS = 12 * 8


def load(ds, folder, name="sst.nc", **settings):
    path = sst_files.write(ds, folder / name)
    return gridded_sst.load(path, Dates(**(DATES | settings)))


def wanted(**choice):
    return Wanted(quantity=gridded_sst.SST, **choice)


def read(ds, folder, variable="", name="sst.nc", **options):
    path = sst_files.write(ds, folder / name, **options)
    return gridded_sst.read(path, wanted(variables=(variable,) if variable else ()))


def anomalies(loaded):
    return loaded.cube.frames.values[..., 0]


@pytest.fixture
def ds():
    return sst_files.dataset()


class TestRead:
    def check(self, ds, read_back):
        expected = ds["sst"].values
        np.testing.assert_array_equal(read_back.frames.values[..., 0], expected)
        assert times.text(read_back.minutes[0])[:7] == "2000-01"
        np.testing.assert_array_equal(read_back.latitude, ds.lat)
        np.testing.assert_array_equal(read_back.longitude, ds.lon)

    @pytest.mark.parametrize("name", ["sst.nc", "sst.zarr"])
    def test_netcdf_and_zarr(self, ds, tmp_path, name):
        self.check(ds, read(ds, tmp_path, name=name))

    @pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
    def test_classic_netcdf(self, ds, tmp_path, form):
        self.check(ds, read(ds, tmp_path, format=form, unlimited_dims=["time"]))

    def test_hdf5(self, ds, tmp_path):
        with h5py.File(tmp_path / "sst.h5", "w") as file:
            file["fields/sst"] = ds["sst"].values
            file["fields/other"] = ds["sst"].values + 1
            file["lat"], file["lon"] = ds.lat.values, ds.lon.values
            file["time"] = np.arange(ds.sizes["time"])
            file["time"].attrs["units"] = "months since 2000-01-01"
        self.check(ds, gridded_sst.read(f"{tmp_path}/sst.h5"))

    def test_many_files(self, ds, tmp_path):
        """A file a year, its rows from the north."""
        for year in range(12):
            part = ds.isel(time=slice(12 * year, 12 * year + 12))
            part = part.isel(lat=slice(None, None, -1))
            sst_files.write(part, tmp_path / f"sst_{year}.nc")
        self.check(ds, gridded_sst.read(f"{tmp_path}/sst_*.nc"))

    def test_a_file_a_month_with_two_temperatures(self, ds, tmp_path):
        """As ERSST is delivered: sst and its anomaly at one level of one time."""
        for month in range(ds.sizes["time"]):
            part = ds.isel(time=[month]).expand_dims(lev=[0.0], axis=1)
            part["ssta"] = part["sst"] - 27
            sst_files.write(part, tmp_path / f"ersst.v5.{2000 + month}.nc")
        path = f"{tmp_path}/ersst.v5.*.nc"
        self.check(ds, gridded_sst.read(path, wanted(variables=("sst",))))

    def test_a_mean_dated_by_the_end_of_its_month(self, ds, tmp_path):
        """As CESM writes them; the bounds tell which month it is."""
        lengths = np.tile([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31], 12)
        end = np.cumsum(lengths).astype(float)
        attributes = dict(units="days since 2000-01-01", bounds="time_bound")
        means = ds.assign_coords(
            time=("time", end, attributes | {"calendar": "noleap"})
        )
        means["time_bound"] = (("time", "two"), np.stack([end - lengths, end], axis=1))
        means["sst"].attrs["cell_methods"] = "time: mean"
        self.check(ds, read(means, tmp_path))

    def test_level_region_and_missing_values(self, ds, tmp_path):
        deep = ds.expand_dims(depth=[0.0, 10.0], axis=1).copy(deep=True)
        deep["sst"][:, 1] -= 5
        deep["sst"][7, 1, 2, 3] = -99
        path = sst_files.write(deep, tmp_path / "sst.nc")
        choice = wanted(level=("10",), missing=(-99.0,))
        cube = gridded_sst.read(path, choice, (-8, 8, 190, -120))
        part = ds.sel(lat=slice(-8, 8), lon=slice(190, 240))
        expected = part["sst"].values - 5
        expected[7, 1, 1] = np.nan
        assert cube.names == ("sst",)
        np.testing.assert_array_equal(cube.longitude, part.lon)
        np.testing.assert_array_equal(cube.frames.values[..., 0], expected)
        with pytest.raises(ValueError, match="but sst_0, sst_10 were chosen"):
            gridded_sst.read(path, wanted(level=("0", "10")))

    def test_descending_latitude(self, ds, tmp_path):
        self.check(ds, read(ds.isel(lat=slice(None, None, -1)), tmp_path))

    def test_west_longitude_and_other_axis_order(self, ds, tmp_path):
        west = ds.assign_coords(lon=("lon", ds.lon.values - 360, ds.lon.attrs))
        self.check(ds, read(west.transpose("lon", "time", "lat"), tmp_path))

    def test_columns_from_west_of_greenwich(self, tmp_path):
        ds = sst_files.dataset(24, longitude=np.arange(-180.0, 180, 20))
        cube = read(ds, tmp_path)
        np.testing.assert_array_equal(cube.longitude, np.arange(0, 360, 20))
        expected = np.roll(ds["sst"].values, 9, axis=2)
        np.testing.assert_array_equal(cube.frames.values[..., 0], expected)

    def test_axes_are_known_by_attributes(self, ds, tmp_path):
        named = ds.rename(time="a", lat="b", lon="c")
        self.check(ds, read(named, tmp_path))

    def test_single_level_is_dropped(self, ds, tmp_path):
        self.check(ds, read(ds.expand_dims(zlev=[0.0], axis=1), tmp_path))

    def test_packed_integers(self, ds, tmp_path):
        packing = {"sst": dict(dtype="int16", scale_factor=0.01, _FillValue=-999)}
        values = read(ds, tmp_path, encoding=packing).frames.values[..., 0]
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
        assert times.text(read(ds, tmp_path).minutes[0]) == "0001-01-01"

    @pytest.mark.parametrize("name", ["ssta", "tos", "SST", "anom"])
    def test_well_known_names(self, ds, tmp_path, name):
        ds = ds.assign(other=ds["sst"] * 2).rename(sst=name)
        assert read(ds, tmp_path).names == (name,)

    def test_standard_name_comes_first(self, ds, tmp_path):
        other = ds["sst"].assign_attrs(standard_name="sea_surface_temperature")
        assert read(ds.assign(x=other), tmp_path).names == ("x",)

    @pytest.mark.parametrize("unit", ["Celsius_scale", "deg. C", "celcius", "℃", "??"])
    def test_units_are_known_by_their_meaning(self, ds, tmp_path, unit):
        """Of an unknown name the mean over the box says what it is."""
        ds["sst"].attrs["units"] = unit
        assert "SST in degC 'sst'" in load(ds, tmp_path).description

    def test_the_only_temperature_by_units(self, ds, tmp_path):
        ds = ds.rename(sst="x").assign(y=ds["sst"].assign_attrs(units="m"))
        assert read(ds, tmp_path).names == ("x",)


class TestUnreadable:
    def refused(self, ds, folder, message, **arguments):
        with pytest.raises(ValueError, match=message):
            read(ds, folder, **arguments)

    def test_missing_file(self, tmp_path):
        (tmp_path / "sst.nc").touch()
        with pytest.raises(FileNotFoundError, match="exist; did you mean 'sst.nc'?"):
            gridded_sst.read(f"{tmp_path}/sts.nc")
        with pytest.raises(FileNotFoundError, match="nor does its directory"):
            gridded_sst.read(f"{tmp_path}/no/sst.nc")

    def test_variable_that_is_not_there(self, ds, tmp_path):
        self.refused(ds, tmp_path, "did you mean 'sst'?", variable="sstt")
        self.refused(
            ds, tmp_path, "three or more dimensions there are: sst", variable="qq"
        )

    def test_no_temperature(self, ds, tmp_path):
        ds = ds.rename(sst="x")
        ds["x"].attrs["units"] = "m s-1"
        self.refused(ds, tmp_path, "no variable that is a sea surface temperature")

    def test_several_temperatures(self, ds, tmp_path):
        ds = ds.rename(sst="x")
        self.refused(
            ds.assign(y=ds["x"]), tmp_path, "each of x, y could be the sea sur"
        )

    def test_units(self, ds, tmp_path):
        ds["sst"].attrs["units"] = "degF"
        self.refused(ds, tmp_path, "units 'degF'; expected K or degC")
        ds["sst"].attrs["units"] = "m s-1"
        self.refused(ds, tmp_path, "units 'm s-1'; expected K or degC$")

    def test_truncated_netcdf4(self, ds, tmp_path):
        path = pathlib.Path(sst_files.write(ds, tmp_path / "sst.nc"))
        whole = path.read_bytes()
        for size in (len(whole) // 2, len(whole) - 100):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=f"damaged .{size} bytes"):
                gridded_sst.read(str(path))

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
                gridded_sst.read(str(path))

    def test_other_files(self, tmp_path):
        path = tmp_path / "sst.nc"
        path.write_bytes(b"month,sst\n2000-01,27\n")
        with pytest.raises(ValueError, match="not NetCDF, Zarr, .* b'month,ss'"):
            gridded_sst.read(str(path))
        path.write_bytes(b"")
        with pytest.raises(ValueError, match="not NetCDF, Zarr, .* .0 bytes"):
            gridded_sst.read(str(path))
        with pytest.raises(ValueError, match="a folder but not a Zarr store"):
            gridded_sst.read(str(tmp_path))

    @pytest.mark.parametrize(
        ("months", "message"),
        [
            ([0, 1, 2, 4, 5], "2000-03 is followed by 2000-05: 2000-04 is missing; "),
            ([0, 1, 2, 3, 8], "2000-05 is missing and 3 more after it"),
            (
                [0, 1, 3, 2, 4],
                "time goes back from 2000-04-01 .step 2. to 2000-03-01; sort",
            ),
            ([2, 1, 0], "time goes back from 2000-03-01 .step 0. to 2000-02-01; sort"),
            ([0, 12, 24], "2000-01 is followed by 2001-01; monthly means are needed"),
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
        self.refused(
            ds, tmp_path, "no times that can be decoded; expected .* 'days since"
        )

    def test_curvilinear_grid(self, ds, tmp_path):
        latitude, longitude = np.meshgrid(ds.lat, ds.lon, indexing="ij")
        ds = ds.rename(lat="j", lon="i").drop_vars(["j", "i"])
        ds = ds.assign_coords(lat=(("j", "i"), latitude), lon=(("j", "i"), longitude))
        self.refused(
            ds, tmp_path, "sst.nc has those of a curvilinear grid. Interpolate it"
        )

    def test_missing_axis(self, ds, tmp_path):
        ds = ds.rename(lat="cell").drop_vars("cell")
        self.refused(ds, tmp_path, "needs latitudes of rows and .*; sst.nc has none")

    def test_axis_without_coordinate(self, ds, tmp_path):
        self.refused(ds.drop_vars("lat"), tmp_path, "needs latitudes of rows and")

    def test_levels(self, ds, tmp_path):
        ds = ds.expand_dims(depth=[0.0, 10.0])
        self.refused(ds, tmp_path, "level. is needed: 'sst' .* 2 levels along depth")

    def test_uneven_grid(self, ds, tmp_path):
        ds = ds.isel(lat=[0, 1, 2, 4, 5])
        self.refused(ds, tmp_path, "latitude is not evenly spaced: -2.5 is followed by")


class TestAnomalies:
    def test_training_months_have_no_climatology_left(self, ds, tmp_path):
        fields = anomalies(load(ds, tmp_path))[:TRAIN_MONTHS]
        means = fields.reshape(8, 12, *fields.shape[1:]).mean(axis=0)
        np.testing.assert_allclose(means, 0, atol=1e-5)

    def test_later_months_do_not_enter_the_climatology(self, ds, tmp_path):
        before = anomalies(load(ds, tmp_path))[:TRAIN_MONTHS]
        ds["sst"][TRAIN_MONTHS:] += 3
        after = anomalies(load(ds, tmp_path))
        np.testing.assert_array_equal(after[:TRAIN_MONTHS], before)
        assert after[TRAIN_MONTHS:, 1:].mean() > 2

    def test_kelvin_celsius_and_anomalies_agree(self, ds, tmp_path):
        celsius = load(ds, tmp_path)
        kelvin = ds.copy(deep=True)
        kelvin["sst"] += 273.15
        kelvin["sst"].attrs["units"] = "K"
        anomaly = sst_files.dataset(absolute=False)
        for other, kind in ((kelvin, "SST in K"), (anomaly, "anomalies")):
            loaded = load(other, tmp_path)
            assert kind in loaded.description
            np.testing.assert_allclose(anomalies(loaded), anomalies(celsius), atol=1e-4)
        assert "SST in degC" in celsius.description

    def test_series_starts_with_training(self, ds, tmp_path):
        loaded = load(ds, tmp_path, train_from="2001-03", test_until="2011-06")
        cube, training = loaded.cube, slice(*loaded.periods["train"])
        assert cube.period(0, cube.frames.shape[0]) == "2001-03..2011-06"
        assert training == slice(0, TRAIN_MONTHS - 14)
        means = [anomalies(loaded)[training][k::12].mean(0) for k in range(12)]
        np.testing.assert_allclose(means, 0, atol=1e-5)

    def test_index_weights(self, ds, tmp_path):
        loaded = load(ds, tmp_path)
        assert loaded.nino_weights.sum() == pytest.approx(1)
        inside = np.argwhere(loaded.nino_weights > 0)
        assert loaded.grid.latitude[inside[:, 0]].tolist() == [-2.5] * 10 + [2.5] * 10
        assert np.ptp(loaded.grid.longitude[inside[:, 1]]) == 45


class TestLand:
    def test_cells_without_values_are_land(self, ds, tmp_path):
        ds["sst"][5:, 0, 1] = np.nan  # nearly always missing
        ds["sst"][:, 0, 2] = -1.8  # always frozen
        ds["sst"][2::12, 0, 3] = np.nan  # no climatology for March
        loaded = load(ds, tmp_path)
        assert (~loaded.grid.ocean).sum() == 4
        assert not loaded.grid.ocean[0, :4].any()
        assert not anomalies(loaded)[:, 0, :4].any()

    def test_gaps_are_filled_from_the_past(self, ds, tmp_path):
        whole = load(ds, tmp_path)
        gaps = ds.copy(deep=True)
        gaps["sst"][100:102, 2, 3] = np.nan
        gaps["sst"][120:126, 3, 4] = np.nan
        loaded = load(gaps, tmp_path)
        cell, whole_cell = (anomalies(x)[:, 2, 3] for x in (loaded, whole))
        np.testing.assert_array_equal(cell[100:102], whole_cell[99])
        np.testing.assert_array_equal(cell[102:], whole_cell[102:])
        long = anomalies(loaded)[:, 3, 4]
        np.testing.assert_array_equal(long[120:123], anomalies(whole)[119, 3, 4])
        np.testing.assert_array_equal(long[123:126], 0)
        assert "filled 8 missing values (5 from the months before, 3 with" in (
            loaded.description
        )
        assert "filled" not in whole.description

    def test_a_gap_at_the_start_is_climatology(self):
        values = np.array([np.nan, 1, np.nan, 2])[:, None, None]
        filled, carried, reset = base.fill_gaps(values, np.ones((1, 1), bool))
        np.testing.assert_array_equal(filled[:, 0, 0], [0, 1, 1, 2])
        assert (carried, reset) == (1, 1)


class TestRefused:
    def refused(self, ds, folder, message, **settings):
        with pytest.raises(ValueError, match=message):
            load(ds, folder, **settings)

    def test_months_without_values(self, ds, tmp_path):
        ds["sst"][[20, 21, 130]] = np.nan
        self.refused(
            ds, tmp_path, "3 of 144 months have no values .2001-09, 2001-10, 2010"
        )
        load(ds, tmp_path, train_from="2002-01", test_until="2010-10")

    def test_months_with_one_value(self, ds, tmp_path):
        ds["sst"][-2:] = 0
        self.refused(
            ds, tmp_path, "2 of 144 months have the same value everywhere .0 in"
        )

    def test_nothing_but_missing_values(self, ds, tmp_path):
        ds["sst"][:] = np.nan
        self.refused(ds, tmp_path, "every value of the training period is missing")

    def test_undeclared_fill_values(self, ds, tmp_path):
        ds["sst"][3, 2, 2] = -999
        self.refused(
            ds, tmp_path, "'sst': the value -999 is not a temp.* missing=-999$"
        )
        ds["sst"][4, 2, 2] = 1e20
        ds["sst"][3:6, 3, 3] = -222  # not too far to be a temperature, but from others
        message = r"the values -999,1e\+20 are not temperatures .* missing=-999,1e\+20$"
        self.refused(ds, tmp_path, message)
        path = sst_files.write(ds, tmp_path / "sst.nc")
        message = "^sst.nc: 0.022 % of 'sst' are -222, far from .* missing=-222; .*=nan"
        with pytest.raises(Undecided, match=message):
            gridded_sst.load(path, Dates(**DATES), wanted(missing=(-999.0, 1e20)))

    def test_missing_that_occurs_nowhere(self, ds, tmp_path):
        """It is said, and a stored number in place of the value is refused."""
        ds["sst"][3, 2, 2] = -99
        packing = dict(dtype="i2", scale_factor=0.01, _FillValue=-32768)
        path = sst_files.write(ds, tmp_path / "sst.nc", encoding={"sst": packing})
        loaded = gridded_sst.load(path, Dates(**DATES), wanted(missing=(-99.0, -7.0)))
        assert loaded.description.endswith("; missing=-7: no value of 'sst' is that")
        with pytest.raises(Undecided, match="-9900: no value .* -99 is stored"):
            gridded_sst.load(path, Dates(**DATES), wanted(missing=(-9900.0,)))

    def test_values_that_are_no_sst(self, ds, tmp_path):
        ds["sst"] = ds["sst"] + 30  # degrees of another kind
        ds["sst"].attrs["units"] = "degC"
        self.refused(ds, tmp_path, r"mean over Nino3.4 .* is 5\d.*expected an anomaly")

    def test_grid_without_the_box(self, tmp_path):
        north = sst_files.dataset(latitude=np.arange(20.0, 50, 5))
        self.refused(north, tmp_path, "covers 0% of Nino3.4")

    def test_too_few_training_months(self, ds, tmp_path):
        dates = dict(train_until="2000-06", validate_until="2002-12")
        self.refused(ds, tmp_path, "climatology needs at least 12", **dates)

    def test_message_names_file_and_variable(self, ds, tmp_path):
        ds["sst"][:] = np.nan
        self.refused(ds, tmp_path, "^sst.nc: 'sst': every value")


@pytest.mark.parametrize(
    ("file", "column", "tolerance"),
    [
        ("kaplan_pacific_ssta_1856_2014.nc", "kaplan_anom", 1e-4),
        ("strbook_pacific_ssta_1970_2003.nc", "strbook_anom", 1e-4),
        ("ersstv5_sst.mnmean_2010_2020.nc", "ersstv5_degC", 1e-4),
        ("ostia_monthly_2006_2010_5S5N.nc", "ostia_degC", 1e-3),
    ],
)
def test_real_index(file, column, tolerance):
    """The index of real files equals the one computed independently from them."""
    loaded = gridded_sst.load(str(_real(file)), out_len=14)
    index = np.einsum("mhw,hw->m", anomalies(loaded), loaded.nino_weights)
    expected = _anomaly(_column(column), loaded)
    np.testing.assert_allclose(index, expected, atol=tolerance)


def test_real_index_against_the_published_one():
    """ERSSTv5 against NOAA CPC: 0.011 K for the months themselves."""
    loaded = gridded_sst.load(
        str(_real("ersstv5_sst.mnmean_2010_2020.nc")),
        Dates(train_until="2018-12", validate_until="2019-06"),
    )
    index = np.einsum("mhw,hw->m", anomalies(loaded), loaded.nino_weights)
    difference = index - _anomaly(_column("cpc_degC"), loaded)
    assert np.sqrt(np.mean(difference**2)) < 0.011


def _real(file: str) -> pathlib.Path:
    return golden_files.shared_file("data", "sst", file)


def _column(name: str) -> dict[str, float]:
    """An index by month "YYYY-MM", from the table beside the files."""
    with _real("nino34_from_grids.csv").open() as table:
        return {
            row["month"]: float(row[name]) for row in csv.DictReader(table) if row[name]
        }


def _anomaly(column: dict[str, float], loaded) -> np.ndarray:
    """The months of a series less the training mean of each calendar month."""
    months = times.month_of(loaded.cube.minutes)
    values = np.array([column[times.month_text(month)] for month in months])
    training = values[slice(*loaded.periods["train"])]
    means = np.array([training[k::12].mean() for k in range(12)])
    return values - means[np.arange(len(values)) % 12]
