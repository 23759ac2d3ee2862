import cftime
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.plotting import forecast as figures
from earthformer_jax.plotting.style import GREY

LATITUDE, LONGITUDE = np.arange(-10.0, 11, 5), np.arange(180.0, 260, 10)
RNG = np.random.default_rng(0)


def months(first, count):
    return np.datetime64(first, "M") + np.arange(count)


def fields(name, dims, *shape, **attributes):
    values = RNG.normal(size=shape).astype(np.float32)
    return xr.Dataset({name: (dims, values, attributes)})


def sst(dims=("time", "lat", "lon"), shape=(8, 5, 8)):
    found = fields("ssta", dims, *shape, long_name="SST anomaly", units="K")
    index = found["ssta"].mean(("lat", "lon"), keep_attrs=False)
    found["nino34"] = index.assign_attrs(units="K")
    return found.assign_coords(lat=LATITUDE, lon=LONGITUDE)


def dated(found, first="2014-11"):
    times = months(first, found.sizes["time"] + 1).astype("datetime64[ns]")
    return found.assign_coords(time=times[1:], forecast_reference_time=times[0])


@pytest.fixture
def drawn(monkeypatch):
    """Figures by the names of their files, instead of files."""
    found = {}
    monkeypatch.setattr(figures, "save", lambda f, path: found.update({path.name: f}))
    return found


def titles(figure):
    return [a.get_title() for a in figure.axes if a.get_title()]


def test_files_are_written_and_named(tmp_path):
    written = figures.draw(dated(sst()), tmp_path / "out" / "today")
    assert [path.name for path in written] == ["today_ssta.png", "today_nino34.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in written)


def test_months_are_titles_of_the_first_to_the_last_lead(drawn):
    figures.draw(dated(sst()), "x")
    shown = titles(drawn["x_ssta.png"])
    assert shown[0] == "2014-12\n+1 month" and shown[-1] == "2015-07\n+8 months"
    assert drawn["x_ssta.png"].get_suptitle() == (
        "Forecast of SST anomaly, last input 2014-11"
    )


def test_anomalies_are_centred_at_zero_and_missing_is_grey(drawn):
    forecast = dated(sst())
    forecast["ssta"][:, 0, 0] = np.nan
    figures.draw(forecast, "x")
    mesh = drawn["x_ssta.png"].axes[0].collections[0]
    low, high = mesh.get_clim()
    assert low == -high < 0
    assert np.ma.getmaskarray(mesh.get_array())[0, 0]
    assert mesh.get_cmap().get_bad()[:3] == pytest.approx([float(GREY)] * 3)
    assert drawn["x_ssta.png"].axes[-1].get_ylabel() == "SST anomaly (K)"


def test_south_is_below_whatever_the_order_of_the_rows(drawn):
    figures.draw(dated(sst()).isel(lat=slice(None, None, -1)), "x")
    axes = drawn["x_ssta.png"].axes[0]
    assert axes.get_ylim() == (-12.5, 12.5)
    assert "0°" in [t.get_text() for t in axes.get_yticklabels()]


def test_longitudes_across_greenwich_are_one_map(drawn):
    longitude = np.arange(-20.0, 20, 5) % 360
    figures.draw(dated(sst()).assign_coords(lon=longitude), "x")
    low, high = drawn["x_ssta.png"].axes[0].get_xlim()
    assert high - low == 40


def test_the_inputs_come_before_the_forecast(drawn):
    inputs = sst(shape=(4, 5, 8)).assign_coords(time=months("2014-08", 4))
    figures.draw(dated(sst()), "x", inputs)
    maps, index = drawn["x_ssta.png"], drawn["x_nino34.png"].axes[0]
    assert titles(maps)[0] == "2014-11\nlast input"
    np.testing.assert_array_equal(
        maps.axes[0].collections[0].get_array().reshape(5, 8), inputs["ssta"][-1]
    )
    lines = {tuple(line.get_xdata()): line.get_ydata() for line in index.lines}
    np.testing.assert_allclose(lines[-3, -2, -1, 0], inputs["nino34"])
    labels = [t.get_text() for t in index.get_xticklabels()]
    assert labels[-1] == "2015-07" and "2014-09" in labels


def test_the_index_has_the_levels_of_el_nino(drawn):
    figures.draw(dated(sst()), "x")
    lines = drawn["x_nino34.png"].axes[0].lines
    assert [line.get_ydata()[0] for line in lines[:3]] == [0, -0.5, 0.5]
    assert drawn["x_nino34.png"].axes[0].get_ylabel() == "Niño3.4 index (K)"


def test_members_are_averaged_on_maps_and_lines_of_the_index(drawn):
    forecast = sst(("time", "realization", "lat", "lon"), (8, 3, 5, 8))
    figures.draw(dated(forecast), "x")
    first = drawn["x_ssta.png"].axes[0].collections[0].get_array().reshape(5, 8)
    np.testing.assert_allclose(first, forecast["ssta"][0].mean("realization"))
    lines = [line.get_ydata() for line in drawn["x_nino34.png"].axes[0].lines]
    assert sum(len(y) == 8 for y in lines) == 3 + 1
    assert "mean of 3 members" in drawn["x_nino34.png"].get_suptitle()


def test_many_members_are_spread_and_bands(drawn):
    forecast = sst(("time", "realization", "lat", "lon"), (8, 20, 5, 8))
    forecast["ssta"][:, :, 0, 0] = np.nan
    inputs = sst(shape=(4, 5, 8)).assign_coords(time=months("2014-08", 4))
    figures.draw(dated(forecast), "x", inputs)
    assert list(drawn) == [
        "x_ssta.png", "x_ssta_spread.png", "x_ssta_area_mean.png", "x_nino34.png"
    ]  # fmt: skip
    spread = drawn["x_ssta_spread.png"]
    first = spread.axes[0].collections[0].get_array().reshape(5, 8)
    np.testing.assert_allclose(first, forecast["ssta"][0].std("realization", ddof=1))
    assert spread.axes[-1].get_ylabel() == "Standard deviation (K)"
    assert "spread of 20 members" in spread.get_suptitle()
    weights = np.cos(np.deg2rad(LATITUDE))[:, None] * np.isfinite(
        forecast["ssta"].values[0, 0]
    )
    weights /= weights.sum()
    area = np.nansum(forecast["ssta"].values * weights, axis=(2, 3))
    for name, members in (("ssta_area_mean", area), ("nino34", forecast["nino34"])):
        axes = drawn[f"x_{name}.png"].axes[0]
        wide, narrow = (band.get_paths()[0].vertices for band in axes.collections[:2])
        low, high = np.quantile(members, (0.05, 0.95), axis=1)
        for lead in (1, 8):
            edges = wide[wide[:, 0] == lead, 1]
            assert edges.min() == pytest.approx(low[lead - 1], abs=1e-5)
            assert edges.max() == pytest.approx(high[lead - 1], abs=1e-5)
        assert np.ptp(narrow[:, 1]) < np.ptp(wide[:, 1])


def test_one_member_is_a_forecast(drawn):
    forecast = sst(("time", "realization", "lat", "lon"), (8, 1, 5, 8))
    figures.draw(dated(forecast), "x")
    assert list(drawn) == ["x_ssta.png", "x_nino34.png"]
    assert "member" not in drawn["x_ssta.png"].get_suptitle()


def test_the_first_of_several_starts_is_drawn(drawn):
    dims = ("forecast_reference_time", "lead_time", "lat", "lon")
    forecast = sst(dims, (2, 4, 5, 8))
    starts = months("2014-11", 2).astype("datetime64[ns]")
    valid = np.stack([months(f"2014-{m}", 5)[1:] for m in (11, 12)])
    forecast = forecast.assign_coords(
        forecast_reference_time=starts,
        valid_time=(dims[:2], valid.astype("datetime64[ns]")),
    )
    figures.draw(forecast, "x")
    assert titles(drawn["x_ssta.png"])[0] == "2014-12\n+1 month"
    first = drawn["x_ssta.png"].axes[0].collections[0].get_array().reshape(5, 8)
    np.testing.assert_array_equal(first, forecast["ssta"][0, 0])


def test_numbers_since_a_date_are_read_in_any_calendar(drawn):
    dates = [cftime.DatetimeNoLeap(2001, 2, 27, 12 * i) for i in (0, 1)]
    dates += [cftime.DatetimeNoLeap(2001, 2, 28), cftime.DatetimeNoLeap(2001, 3, 1)]
    hours = cftime.date2num(dates, "hours since 1970-01-01", calendar="noleap")
    date = {"units": "hours since 1970-01-01", "calendar": "noleap"}
    forecast = fields("rain", ("time", "y", "x"), 3, 4, 6).assign_coords(
        time=("time", hours[1:], date), forecast_reference_time=((), hours[0], date)
    )
    figures.draw(forecast, "x")
    assert titles(drawn["x_rain.png"]) == [
        "2001-02-27 12:00",
        "2001-02-28 00:00",
        "2001-03-01 00:00",
    ]


def test_frames_without_dates_are_counted(drawn):
    forecast = fields("vil", ("step", "y", "x"), 3, 4, 6)
    figures.draw(forecast.assign_coords(step=[1, 2, 3], last_frame=7), "x")
    assert titles(drawn["x_vil.png"]) == ["+1 frame", "+2 frames", "+3 frames"]
    # Row 0 of an image is at the top.
    corners = drawn["x_vil.png"].axes[0].collections[0].get_coordinates()
    assert corners[0, 0, 1] == 4 and corners[-1, 0, 1] == 0


def test_rows_that_go_north_begin_at_the_bottom(drawn):
    forecast = fields("vil", ("step", "y", "x"), 3, 4, 6)
    latitude = np.linspace(40, 45, 4)[:, None] + np.zeros(6)
    figures.draw(forecast.assign_coords(lat=(("y", "x"), latitude)), "x")
    corners = drawn["x_vil.png"].axes[0].collections[0].get_coordinates()
    assert corners[0, 0, 1] == 0


def test_other_variables_are_left_out(drawn):
    forecast = dated(sst())
    forecast["filled"] = 0.25
    forecast["time_bounds"] = (("time", "bound"), np.zeros((8, 2)))
    forecast["count"] = ("time", np.arange(8))
    figures.draw(forecast, "x")
    assert list(drawn) == ["x_ssta.png", "x_nino34.png"]


def test_a_data_set_without_leads_is_refused():
    with pytest.raises(ValueError, match="dimensions lat, lon; expected one of lead_t"):
        figures.draw(fields("sst", ("lat", "lon"), 3, 4), "x")
