"""Where the times of a variable are, and the middle of the intervals they name."""

import h5py
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.readers import time_axis
from earthformer_jax.data.readers import times as times_lib
from earthformer_jax.data.readers.layout import Wanted
from earthformer_jax.data.readers.netcdf import NamedFile
from earthformer_jax.data.readers.series import open_cube
from tests.data import cube_files

SINCE = "hours since 2020-01-01"
DIMS = ("time", "lat", "lon")


def found(ds, names=("T",), dim="time"):
    """First and last time as text, and the notes."""
    times, notes = time_axis.find(time_axis.marked(ds), names, dim, "a.nc")
    if times is None:
        return None, notes
    return [times_lib.text(times.minutes[i]) for i in (0, -1)], notes


def fields(frames=4, dims=DIMS):
    return xr.Dataset({"T": (dims, np.zeros((frames, 2, 3), np.float32))})


def averages(end, start, units="days since 1980-01-01", methods="time: mean", **more):
    """Fields whose time is `end` of intervals from `start`."""
    ds = fields(len(end))
    ds["T"].attrs["cell_methods"] = methods
    ds["edges"] = (("time", "two"), np.stack([start, end], axis=1).astype(float))
    attributes = {"units": units, "bounds": "edges"} | more
    return ds.assign_coords(time=("time", np.asarray(end, float), attributes))


class TestPlace:
    def test_beside_the_dimension(self):
        """A forecast as cfgrib writes it."""
        ds = fields(dims=("step", "lat", "lon"))
        hours = np.arange(4.0)
        ds = ds.assign_coords(
            step=("step", hours, {"standard_name": "forecast_period"}),
            time=((), 0.0, {"units": SINCE, "standard_name": time_axis.REFERENCE}),
            valid_time=("step", hours, {"units": SINCE, "standard_name": "time"}),
        )
        want = ["2020-01-01", "2020-01-01 03:00"]
        assert found(ds, dim="step") == (want, ("dates are those of 'valid_time'",))

    def test_before_the_time_when_a_forecast_began(self):
        ds = fields().assign_coords(
            time=(
                "time",
                np.arange(4.0),
                {"units": SINCE, "standard_name": time_axis.REFERENCE},
            ),
        )
        assert found(ds)[0][0] == "2020-01-01"
        valid = {"units": SINCE, "standard_name": "time"}
        ds = ds.assign_coords(valid_time=("time", np.arange(6.0, 10), valid))
        assert found(ds)[0] == ["2020-01-01 06:00", "2020-01-01 09:00"]

    def forecast(self):
        """Two forecasts of four steps."""
        ds = fields(4, ("step", "lat", "lon")).expand_dims(time=[0.0, 24.0])
        start = {"units": SINCE, "standard_name": time_axis.REFERENCE}
        lead = {"units": "hours", "standard_name": time_axis.PERIOD}
        return ds.assign_coords(
            time=("time", [0.0, 24.0], start), step=("step", 6.0 * np.arange(4), lead)
        )

    def test_when_it_began_and_hours_since_then(self):
        ds = self.forecast().isel(time=1)
        want = ["2020-01-02", "2020-01-02 18:00"]
        assert found(ds, dim="step") == (
            want,
            ("dates are 'time' and 'step' after it",),
        )

    def test_at_a_step_of_many_forecasts(self, tmp_path):
        hours = np.array([[0.0], [24.0]]) + 6 * np.arange(4)
        valid = {"units": SINCE, "standard_name": "time"}
        ds = self.forecast().assign_coords(valid_time=(("time", "step"), hours, valid))
        ds.to_netcdf(tmp_path / "a.nc")
        file = NamedFile(tmp_path / "a.nc", Wanted(level=("step=6",)))
        first = times_lib.text(file.layout.times.minutes[0])
        assert (file.layout.steps, first) == (2, "2020-01-01 06:00")

    def test_strings_of_wrf(self):
        ds = fields(2, ("Time", "lat", "lon"))
        ds["Times"] = (
            "Time",
            np.array([b"2020-01-01_00:00:00", b"2020-01-01_03:00:00"]),
        )
        want = ["2020-01-01", "2020-01-01 03:00"]
        assert found(ds, dim="Time")[0] == want
        ds["XTIME"] = ("Time", [0.0, 180.0], {"units": "minutes since 2020-01-01"})
        assert found(ds, dim="Time")[0] == want

    def test_numbers_that_are_dates(self):
        ds = fields(4)
        ds["date"] = ("time", np.arange(20160927, 20160931))
        assert found(ds)[0] == ["2016-09-27", "2016-09-30"]
        ds = ds.assign_coords(time=np.arange(4)).rename(date="datesec")
        assert found(ds)[0] is None

    def test_parts_of_a_date(self):
        ds = fields(4)
        ds["year"] = ("time", [1999, 1999, 2000, 2000])
        ds["month"] = ("time", [11, 12, 1, 2])
        want = (["1999-11-01", "2000-02-01"], ("dates are those of 'year', 'month'",))
        assert found(ds) == want
        ds["hour"] = ("time", [6.0, 12, 18, 0])
        assert found(ds)[0][0] == "1999-11-01 06:00"
        ds["month"] = ("time", [11, 12, 13, 14])
        assert found(ds)[0] is None

    def test_another_coordinate_has_other_dates(self):
        ds = fields().assign_coords(time=("time", np.arange(4.0), {"units": SINCE}))
        valid = {"units": SINCE, "standard_name": "time"}
        ds = ds.assign_coords(valid_time=("time", np.arange(6.0, 10), valid))
        (first, _), notes = found(ds)
        assert first == "2020-01-01"
        assert "'valid_time' has others, from 2020-01-01 06:00" in notes[0]

    def test_two_that_differ(self):
        ds = fields(dims=("record", "lat", "lon"))
        for shift, name in enumerate(("begin", "finish")):
            ds[name] = ("record", shift + np.arange(4.0), {"units": SINCE})
        with pytest.raises(ValueError, match="'begin' and 'finish' give different dat"):
            found(ds, dim="record")
        ds["finish"].attrs["standard_name"] = "time"
        assert found(ds, dim="record")[0][0] == "2020-01-01 01:00"

    def test_a_dimension_with_another_name(self, tmp_path):
        ds = cube_files.dataset(5).rename(time="nt", lat="y", lon="x")
        ds = ds.drop_vars("nt").expand_dims(member=2)
        ds["moment"] = ("nt", np.arange(5.0), {"units": SINCE})
        ds.to_netcdf(tmp_path / "a.nc")
        file = NamedFile(tmp_path / "a.nc", Wanted(level=("member=1",)))
        assert (file.layout.steps, len(file.layout.times)) == (5, 5)

    def test_not_understood(self):
        years = fields().assign_coords(time=np.arange(1950, 1954))
        assert found(years)[1][0].startswith("'time' (1950..1953, no units) is not un")
        words = fields().assign_coords(time=["a", "b", "c", "d"])
        assert found(words)[1][0].startswith(
            "'time' (a..d, no units) is not understood"
        )
        assert found(fields())[1] == (
            "'time' has no times: steps are assumed to be equal",
        )


class TestOneTime:
    """Fields without a time dimension."""

    def layout(self, ds, folder, **wanted):
        ds.to_netcdf(folder / "a.nc")
        file = NamedFile(folder / "a.nc", Wanted(**wanted))
        with file.open() as handle:
            values = file.read(handle, 0, slice(0, 1), slice(1, 3), slice(0, 5))
        np.testing.assert_array_equal(
            values[..., 0], cube_files.dataset(5)["T"].values[2:3, 1:3]
        )
        return file.layout

    def test_a_number_beside_them(self, tmp_path):
        ds = cube_files.dataset(5).isel(time=2)
        layout = self.layout(ds, tmp_path)
        assert (layout.steps, layout.size, layout.single) == (1, (4, 5), True)
        assert layout.names == ("T", "P")
        assert times_lib.text(layout.times.minutes[0]) == "2001-01-03"

    def test_none(self, tmp_path):
        layout = self.layout(cube_files.dataset(5).isel(time=2, drop=True), tmp_path)
        assert layout.single and layout.times is None

    def test_an_attribute(self, tmp_path):
        ds = cube_files.dataset(5).isel(time=2, drop=True)
        ds.attrs["time_coverage_start"] = "2001-01-03T00:00:00Z"
        layout = self.layout(ds, tmp_path)
        assert times_lib.text(layout.times.minutes[0]) == "2001-01-03"
        assert layout.notes == (
            "dates are those of the attribute 'time_coverage_start'",
        )

    def test_levels_are_not_times(self, tmp_path):
        ds = cube_files.dataset(5)[["T"]].isel(time=2).expand_dims(lev=[500, 850])
        layout = self.layout(ds, tmp_path, level=("850",))
        assert (layout.steps, layout.names) == (1, ("T",))

    def test_of_a_dimension_of_its_own(self, tmp_path):
        ds = cube_files.dataset(5).isel(time=2, drop=True)
        ds["when"] = ("one", [48.0], {"units": "hours since 2001-01-01"})
        assert (
            times_lib.text(self.layout(ds, tmp_path).times.minutes[0]) == "2001-01-03"
        )

    def test_of_a_dimension_that_fields_lack(self, tmp_path):
        ds = cube_files.dataset(5).isel(time=2, drop=True)
        end = {"units": "hours since 2001-01-01", "bounds": "edges"}
        ds = ds.assign_coords(time=("time", [60.0], end))
        ds["edges"] = (("time", "two"), [[36.0, 60.0]])
        layout = self.layout(ds, tmp_path)
        assert times_lib.text(layout.times.minutes[0]) == "2001-01-03"

    def test_one_start_many_steps(self, tmp_path):
        """time has one value, and the forecast runs along step."""
        ds = cube_files.dataset(5).rename(time="step").drop_vars("step")
        ds = ds.expand_dims(time=[0.0]).transpose("time", "step", ...)
        ds["time"].attrs["units"] = SINCE
        valid = {"units": SINCE, "standard_name": "time"}
        ds = ds.assign_coords(valid_time=(("time", "step"), [np.arange(5.0)], valid))
        ds.to_netcdf(tmp_path / "a.nc")
        layout = NamedFile(tmp_path / "a.nc", Wanted()).layout
        assert layout.steps == 5
        assert times_lib.text(layout.times.minutes[-1]) == "2020-01-01 04:00"


class TestIntervals:
    MONTHS = np.array([31, 28, 31, 30])

    @pytest.mark.parametrize("calendar", ["noleap", "standard", "360_day"])
    def test_the_end_of_the_month(self, calendar):
        lengths = np.full(4, 30) if calendar == "360_day" else self.MONTHS
        end = np.cumsum(lengths)
        ds = averages(end, end - lengths, "days since 1981-01-01", calendar=calendar)
        (first, last), notes = found(ds)
        assert (first[:7], last[:7]) == ("1981-01", "1981-04")
        assert notes == (
            "'time' is the end of the interval in 'edges': frames are dated by its "
            "middle",
        )

    def test_the_beginning(self):
        end = np.cumsum(self.MONTHS)
        ds = averages(end, end - self.MONTHS)
        ds = ds.assign_coords(time=ds.time - self.MONTHS).assign_coords(
            time=lambda ds: ds.time.assign_attrs(averages(end, end).time.attrs)
        )
        (first, _), notes = found(ds)
        assert first == "1980-01-16 12:00"
        assert notes[0].startswith("'time' is the beginning of the interval")

    def test_inside_stays(self):
        """The 15th is a choice of those who wrote the file."""
        ds = averages([0, 31], [31, 59])
        ds["time"] = ("time", [14.0, 45.0], ds.time.attrs)
        assert found(ds) == (["1980-01-15", "1980-02-15"], ())

    def test_sums_and_undescribed_values_move_but_points_do_not(self):
        end = np.arange(1.0, 5)

        def first(methods):
            return found(averages(end, end - 1, SINCE, methods))[0][0]

        assert first("time: sum (interval: 1 hour)") == "2020-01-01 00:30"
        assert first("area: mean") == first("") == "2020-01-01 00:30"
        assert (
            first("time: point")
            == first("area: mean time: point")
            == ("2020-01-01 01:00")
        )

    def test_one_point_variable_keeps_the_times_of_all(self):
        ds = averages([1, 2], [0, 1], SINCE)
        ds["P"] = ds["T"].assign_attrs(cell_methods="time: point")
        (first, _), notes = found(ds, ("T", "P"))
        assert first == "2020-01-01 01:00"
        assert "dates are as stored, since some variables are instant" in notes[0]

    def test_edges_come_first(self):
        ds = averages([1, 2], [0, 1], SINCE)
        assert found(ds.transpose("two", "time", ...))[0][0] == "2020-01-01 00:30"

    def test_by_usual_name(self):
        ds = averages([1, 2], [0, 1], SINCE).rename(edges="time_bnds")
        del ds["time"].attrs["bounds"]
        assert found(ds)[0][0] == "2020-01-01 00:30"

    def test_units_of_their_own(self):
        ds = averages([1, 2], [0, 1], SINCE)
        ds["edges"] = (
            ds.edges.dims,
            60 * ds.edges.values,
            {"units": SINCE.replace("hours", "minutes")},
        )
        assert found(ds)[0][0] == "2020-01-01 00:30"

    def test_in_hdf5(self, tmp_path):
        end = np.cumsum(self.MONTHS).astype(float)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["t"] = np.zeros((4, 6, 7))
            file["time"] = end
            file["time_bnds"] = np.stack([end - self.MONTHS, end], axis=1)
            attributes = {"units": "days since 1981-01-01", "bounds": "time_bnds"}
            file["time"].attrs.update(attributes)
        cube = open_cube(str(tmp_path / "a.h5"), Wanted(axes="thw"))
        assert cube.period(0, 4) == "1981-01..1981-04"
        assert "'time' is the end of the interval in 'time_bnds'" in cube.notes[0]

    def test_of_a_climatology(self):
        """They span decades, and are named by another attribute."""
        ds = averages([14, 45], [0, 31], bounds="no").rename(edges="time_bnds")
        ds["time"].attrs = {"units": ds.time.units, "climatology": "time_bnds"}
        assert found(ds) == (["1980-01-15", "1980-02-15"], ())

    def test_of_no_length(self):
        assert found(averages([1, 2], [1, 2])) == (["1980-01-02", "1980-01-03"], ())

    @pytest.mark.parametrize("wrong", [[9, 10], [np.nan, 1]])
    def test_that_do_not_enclose_the_time(self, wrong):
        ds = averages([1, 2], [0, 1])
        ds["edges"] = (("time", "two"), np.stack([wrong, wrong]))
        assert found(ds)[0][0] == "1980-01-02"
        assert found(ds)[1][0].startswith("the bounds 'edges' of 'time' are ignored")

    def test_that_the_file_lacks(self):
        (first, _), notes = found(averages([1, 2], [0, 1]).drop_vars("edges"))
        assert first == "1980-01-02"
        assert "'edges' of 'time' are not in the file" in notes[0]
