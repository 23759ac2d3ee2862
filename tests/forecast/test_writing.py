"""Forecasts in files and in memory: values, dimensions, coordinates, conventions."""

import dataclasses
import re

import netCDF4
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.forecasting.beginnings import Variable
from earthformer_jax.forecast import writing
from earthformer_jax.forecast.chunks import Chunk
from earthformer_jax.forecast.outline import Outline
from tests.forecast import series
from tests.forecast.series import HEIGHT, WIDTH, beginnings

STEPS = 3
CURVED = np.zeros((HEIGHT, WIDTH)) + np.linspace(0, 9, WIDTH)
REGION = np.zeros((HEIGHT, WIDTH))
REGION[1, 1:3] = 0.25, 0.75
SST = {
    "anomalies": lambda x: np.where(x < -0.9, np.nan, 10 * x),
    "indices": {"nino34": REGION},
    "variables": (Variable("sst", "Celsius", "sea_surface_temperature"),),
}
# Beginnings, and options of the outline.
KINDS = {
    "one": (beginnings(1), {}),
    "several": (beginnings(5), {}),
    "one of a hindcast": (beginnings(1), {"several": True}),
    "members": (beginnings(5), {"members": 2}),
    "members of one": (beginnings(1), {"members": 2}),
    "months": (beginnings(5, months=True), {}),
    "one by months": (beginnings(1, months=True), {}),
    "without dates": (beginnings(5, dated=False, latitude=None, longitude=None), {}),
    "one without dates": (beginnings(1, dated=False, longitude=None), {}),
    "curved": (beginnings(5, "360_day", latitude=CURVED, longitude=CURVED), {}),
    "one, no leap days": (beginnings(1, "noleap"), {}),
    "anomalies": (beginnings(5, **SST), {"anomalies": True, "members": 2}),
    "anomalies of one": (beginnings(1, **SST), {"anomalies": True}),
    "an index": (beginnings(5, **SST, months=True), {}),
}


def parts(outline, **options):
    """Forecasts `[n, m, k, h, w, c]` in model units, and their chunks."""
    count, members = outline.count, max(outline.members, 1)
    forecasts = series.values(count, outline.steps, members)
    return forecasts, series.chunks(forecasts, **options, members=outline.members > 0)


def opened(path):
    options = {} if path.suffix == ".nc" else {"engine": "zarr"}
    with xr.open_dataset(path, **options) as dataset:
        return dataset.load()


def made(found, **options):
    outline = Outline(found, STEPS, **options)
    return writing.to_dataset(outline, parts(outline)[1])


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_what_the_data_set_in_memory_holds(tmp_path, kind, suffix):
    found, options = KINDS[kind]
    outline = Outline(found, STEPS, **options, attributes={"title": "a test"})
    _, chunks = parts(outline)
    path = tmp_path / "new" / f"f{suffix}"
    for _ in range(2):  # the second replaces the first
        writing.write(path, outline, iter(chunks))
    want = writing.to_dataset(outline, iter(chunks))
    xr.testing.assert_identical(opened(path), want)
    assert (want.attrs["Conventions"], want.attrs["title"]) == ("CF-1.11", "a test")
    assert [path.name for path in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_at_their_places(kind):
    found, options = KINDS[kind]
    outline = Outline(found, STEPS, **options)
    forecasts, chunks = parts(outline)
    dataset = writing.to_dataset(outline, chunks)
    name = found.variables[0].name
    want = np.swapaxes(10 * forecasts[..., 0] + 280, 1, 2)  # [n, k, m, h, w]
    want[..., 0, 0] = np.nan
    anomalies = want - 280
    want = want if outline.members else want[:, :, 0]
    want = want[0] if outline.is_single else want
    np.testing.assert_array_equal(dataset[name].values, want)
    if outline.anomalies:
        np.testing.assert_allclose(
            dataset["sst_anomaly"].values, want - 280, atol=1e-4, rtol=0
        )
    if found.indices:
        index = np.sum(anomalies[..., 1, 1:3] * [0.25, 0.75], axis=-1)
        got = dataset["nino34"].values.reshape(index.shape)
        np.testing.assert_allclose(got, index, atol=1e-4, rtol=0)
    filled = dataset["filled_share"].values.ravel()
    np.testing.assert_array_equal(filled, 0.25 * np.arange(outline.count))


def test_dimensions():
    dims = {
        kind: made(found, **x)["filled_share"] for kind, (found, x) in KINDS.items()
    }
    assert dims["one"].dims == dims["one without dates"].dims == ()
    assert dims["without dates"].dims == ("last_frame",)
    assert dims["one of a hindcast"].dims == ("forecast_reference_time",)
    named = {
        "one": "time lat lon",
        "several": "forecast_reference_time lead_time lat lon",
        "members": "forecast_reference_time lead_time realization lat lon",
        "members of one": "time realization lat lon",
        "without dates": "last_frame step y x",
        "one without dates": "step y x",
        "curved": "forecast_reference_time lead_time y x",
    }
    for kind, want in named.items():
        found, options = KINDS[kind]
        assert made(found, **options)["t"].dims == tuple(want.split())


def test_times():
    one, several = made(beginnings(1)), made(beginnings(5))
    assert one["time"].dt.strftime("%F").values.tolist() == [
        "1970-01-07",
        "1970-01-08",
        "1970-01-09",
    ]
    assert str(one["forecast_reference_time"].values)[:10] == "1970-01-06"
    assert one["lead_time"].values.tolist() == [24, 48, 72]
    assert one["lead_time"].attrs["units"] == "hours"
    lead = several["valid_time"] - several["forecast_reference_time"]
    assert (lead == np.array([1, 2, 3], "timedelta64[D]")).all()
    curved = made(*KINDS["curved"][:1])
    assert curved["valid_time"].dt.calendar == "360_day"
    frames = made(*KINDS["without dates"][:1])
    assert frames["last_frame"].values.tolist() == [5, 6, 7, 8, 9]
    assert frames["step"].values.tolist() == [1, 2, 3]


def test_months_have_the_same_lead_whatever_the_start():
    first, later = (made(beginnings(n, months=True), several=True) for n in (1, 5))
    assert first["lead_month"].values.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(first["lead_time"].values, later["lead_time"].values)
    np.testing.assert_allclose(first["lead_time"].values[-1], 24 * 365.2425 / 4)
    got = later["valid_time"].dt.strftime("%F").values[:2, 0].tolist()
    assert got == ["2000-07-01", "2000-08-01"]


def test_minutes_are_exact():
    five = beginnings(2)
    changes = {
        "reference": five.reference[:1],
        "last": five.last[:1],
        "following": lambda i, k: type(five.reference)(
            five.reference.seconds[0] + 300.0 * np.arange(1, k + 1),
            five.reference.minutes[0] + 5 * np.arange(1, k + 1),
        ),
    }
    dataset = made(beginnings(1, **changes))
    assert dataset["lead_time"].values.tolist() == [5, 10, 15]
    assert dataset["lead_time"].attrs["units"] == "minutes"
    assert str(dataset["time"].values[0]) == "1970-01-06T00:05:00.000000000"


def test_longitudes_increase_across_the_date_line():
    dataset = made(beginnings(1, longitude=np.array([350.0, 355, 0, 5])))
    assert dataset["lon"].values.tolist() == [350, 355, 360, 365]
    twice = made(beginnings(1, longitude=np.array([0.0, 5, 5, 0])))
    assert twice["t"].dims == ("time", "y", "x")
    assert twice["lon"].dims == ("x",)


def test_temperatures_and_their_differences():
    dataset = made(beginnings(1, **SST), anomalies=True)
    full, anomaly, index = (dataset[x].attrs for x in ("sst", "sst_anomaly", "nino34"))
    assert (full["units"], anomaly["units"], index["units"]) == ("degC", "K", "K")
    assert full["units_metadata"] == "temperature: on_scale"
    assert anomaly["units_metadata"] == "temperature: difference"
    assert "standard_name" not in anomaly
    region = dataset["nino34"].coords["nino34_region"].item()
    assert region == "nino34: cells from 0 to 0 and from 30E to 60E"


def test_what_cf_does_not_know_is_left_out():
    found = (
        Variable("cover", "(0 - 1)", "Cloud Cover"),
        Variable("t", " K ", "air_temperature standard_error"),
        Variable("ta", "degC", "unknown", "temperature anomaly"),
    )
    outline = Outline(beginnings(1, variables=found), STEPS)
    chunks = series.chunks(series.values(1, STEPS, channels=3))
    cover, t, ta = (writing.to_dataset(outline, chunks)[x.name].attrs for x in found)
    assert cover == {"long_name": "cover", "units": "1"}
    assert (t["standard_name"], t["units"]) == ("air_temperature standard_error", "K")
    assert ta["units_metadata"] == "temperature: difference"
    assert "standard_name" not in ta


def test_names():
    names = ["Grid/rain", "Grid_rain", "t at 500 hPa", "2t", "/", "t", "lead time"]
    found = beginnings(1, variables=tuple(map(Variable, names)))
    assert Outline(found, STEPS).names == [
        "Grid_rain",
        "Grid_rain_2",
        "t_at_500_hPa",
        "v_2t",
        "value",
        "t",
        "lead_time_2",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_rules_of_cf(tmp_path, kind):
    """What cfchecks and compliance-checker ask for, without them."""
    found, options = KINDS[kind]
    outline = Outline(found, STEPS, **options)
    path = tmp_path / "f.nc"
    writing.write(path, outline, parts(outline)[1])
    with netCDF4.Dataset(path) as file:
        first, *others = file.dimensions.values()
        # Only of an unlimited first dimension, others may stand between time and plane.
        assert first.isunlimited() and not any(x.isunlimited() for x in others)
        for name, variable in file.variables.items():
            assert re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)
            assert variable.dtype != str  # many programs cannot read it
            attributes = vars(variable)
            assert attributes["long_name"]
            assert set(attributes.get("coordinates", "").split()) <= set(file.variables)
            if name in file.dimensions:
                values = variable[:]
                steps = np.diff(values)
                assert not np.ma.is_masked(values)
                assert (steps > 0).all() or (steps < 0).all()
                assert "_FillValue" not in attributes
            if " since " in attributes.get("units", ""):
                assert attributes["calendar"]
                known = attributes["calendar"] == "standard"
                assert ("units_metadata" in attributes) == known
        axes = [getattr(x, "axis", "") for x in file.variables.values()]
        assert all(axes.count(axis) <= 1 for axis in "TYX")


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_packed(tmp_path, suffix):
    found = beginnings(5, **SST)
    outline = Outline(found, STEPS, anomalies=True, packed=True)
    _, chunks = parts(outline)
    path = tmp_path / f"f{suffix}"
    writing.write(path, outline, iter(chunks))
    got, want = opened(path), writing.to_dataset(outline, iter(chunks))
    for name in ("sst", "sst_anomaly"):
        assert got[name].encoding["dtype"] == np.int16
        spread = float(want[name].max() - want[name].min())
        np.testing.assert_allclose(
            got[name].values, want[name].values, rtol=0, atol=spread / 65000 / 2 + 1e-6
        )
    assert got["nino34"].encoding["dtype"] == np.float32


def test_members_that_come_in_parts(tmp_path):
    """As all of them at once; one that is missing is noticed."""
    outline = Outline(beginnings(5), STEPS, members=5)
    _, whole = parts(outline)
    cut = [
        dataclasses.replace(chunk, values=chunk.values[:, i : i + 2], member=i)
        for chunk in whole
        for i in (0, 2, 4)
    ]
    want = writing.to_dataset(outline, whole)
    xr.testing.assert_identical(writing.to_dataset(outline, cut), want)
    writing.write(tmp_path / "f.zarr", outline, cut)
    xr.testing.assert_equal(opened(tmp_path / "f.zarr"), want)
    with pytest.raises(ValueError, match="step . of member 5 of forecast . was not"):
        writing.to_dataset(outline, cut[:-1])


def test_a_forecast_that_is_missing(tmp_path):
    outline = Outline(beginnings(3), STEPS)
    _, chunks = parts(outline)
    with pytest.raises(ValueError, match="step 3 of forecast 3 was not computed"):
        writing.write(tmp_path / "f.nc", outline, chunks[1:])
    with pytest.raises(ValueError, match="no forecasts"):
        writing.to_dataset(outline, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("f.txt", r"f.txt'.*NAME.nc.*NAME.zarr"),
        ("f", r"end the name with one of the two"),
        ("folder.nc", "is a folder, not a file"),
        ("file.zarr", "is a file, not a folder"),
        ("mine.zarr", "with other contents, such as notes.txt, not a Zarr store"),
    ],
)
def test_outputs_that_are_refused(tmp_path, name, message):
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "file.zarr").write_text("")
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "notes.txt").write_text("")
    outline = Outline(beginnings(1), STEPS)
    with pytest.raises(ValueError, match=message):
        writing.write(tmp_path / name, outline, parts(outline)[1])
    with pytest.raises(ValueError, match="no climatology"):
        Outline(beginnings(1), STEPS, anomalies=True)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_the_old_output_stays_if_the_new_one_fails(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    outline = Outline(beginnings(3), STEPS)
    _, chunks = parts(outline)
    writing.write(path, outline, iter(chunks))
    before = opened(path)

    def stumbling():
        yield chunks[0]
        raise OSError("cannot read any more")

    with pytest.raises(OSError, match=r"^cannot read any more$"):
        writing.write(path, outline, stumbling())
    xr.testing.assert_identical(opened(path), before)
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_chunks_of_a_file_hold_whole_chunks_of_forecasts(tmp_path):
    """So that none is compressed twice; large ones are divided."""
    plane = {"latitude": None, "longitude": None, "decode": lambda x, minutes: x}
    outline = Outline(beginnings(4, **plane), 6)
    for size, want in (((16, 16), [2, 6, 16, 16]), ((256, 512), [1, 2, 256, 512])):
        zeros = np.zeros((2, 6, *size, 1), np.float32)
        chunks = [Chunk(i, 0, zeros, np.zeros(2, np.float32)) for i in (0, 2)]
        writing.write(tmp_path / "f.nc", outline, chunks)
        with netCDF4.Dataset(tmp_path / "f.nc") as file:
            assert file["t"].chunking() == want
