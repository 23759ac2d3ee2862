"""Forecasts from files, without targets, with the statistics of the training."""

import contextlib
import dataclasses
import shutil

import jax
import numpy as np
import pytest
import xarray as xr

from earthformer_jax.data.cubes import custom
from earthformer_jax.run import api
from earthformer_jax.run.forecasting import figures, making
from earthformer_jax.run.parts import check_model, make_model
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from tests.data import cube_files

DAYS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 days, the four newest of them, others, and a run trained on the first."""
    folder = tmp_path_factory.mktemp("forecast")
    days = cube_files.dataset(DAYS)
    cube_files.write(days, folder / "days.nc")
    cube_files.write(days.isel(time=slice(-4, None)), folder / "latest.nc")
    gap = days.isel(time=np.r_[:50, 57:60])
    cube_files.write(gap, folder / "gap.nc")
    with contextlib.chdir(folder):
        assert run_on(folder, "days.nc").train()
    return folder


def run_on(folder, name, **changes):
    changes = {"data.path": str(folder / name), "data.calendar": True} | changes
    return Run(api.load_config("custom:test,persistence", changes), folder / "run")


@pytest.fixture(scope="module")
def model(folder):
    return run_on(folder, "days.nc").load()


@pytest.fixture
def write(folder, model, tmp_path):
    """Writes a forecast of a file of the folder; returns the path."""

    def write(name="days.nc", output="new.nc", *asked, existing="refuse", **more):
        wanted = making.request(str(folder / name), *asked, **more)
        output = output and tmp_path / output
        return making.write(model, wanted, output, tmp_path / "f", existing=existing)

    return write


def read(path):
    with xr.open_dataset(path) as dataset:
        return dataset.load()


def test_what_comes_next(folder, write, tmp_path):
    """Persistence repeats the last day exactly, in the units of the file."""
    days = cube_files.dataset(DAYS)
    path = write(output=None)
    made = read(path)
    assert path == tmp_path / "f" / f"days_{str(days['time'].values[-1])[:10]}.nc"
    last = days["time"].values[-1]
    assert (made["time"].values == last + np.array([1, 2], "timedelta64[D]")).all()
    for name in ("T", "P"):
        want = days[name].sortby("lat").values[-1]
        got = made[name].sortby("lat").values
        np.testing.assert_allclose(got, [want, want], rtol=1e-5)
    latest = read(write("latest.nc"))
    np.testing.assert_array_equal(latest["T"].values, made["T"].values)


def test_python_and_the_command_give_the_same(folder, model, write):
    want = read(write(start="all", steps=3))
    for source in (folder / "days.nc", cube_files.dataset(DAYS), None):
        made = model.forecast(source, "all", steps=3)
        xr.testing.assert_equal(made, want)
        assert made.drop_attrs().sizes == want.sizes
    assert model.forecast(folder / "latest.nc").sizes["time"] == 2


def test_all_windows_and_dates(folder, model, write):
    made = read(write(start="all"))
    assert made.sizes["forecast_reference_time"] == DAYS - 3
    moment = made["forecast_reference_time"].values[7]
    for start in (str(moment)[:10], moment, moment.astype("datetime64[s]").item()):
        one = model.forecast(folder / "days.nc", start)
        np.testing.assert_array_equal(one["T"].values, made["T"].values[7])


def test_hindcasts(folder, model):
    every = model.forecast(folder / "days.nc", "all")
    starts = every["forecast_reference_time"].values
    first, last = (str(starts[i])[:10] for i in (4, 9))
    made = model.hindcast(folder / "days.nc", first, last, every=2)
    xr.testing.assert_equal(made, every.isel(forecast_reference_time=slice(4, 10, 2)))
    one = model.hindcast(folder / "days.nc", first)
    assert one["T"].dims == ("forecast_reference_time", "lead_time", "lat", "lon")
    assert model.hindcast(folder / "days.nc").equals(every)
    last = model.hindcast(folder / "days.nc", "last", steps=np.int64(2), members=1)
    xr.testing.assert_equal(last, every.isel(forecast_reference_time=[-1]))


def test_roll_out_and_fewer_steps(folder, model):
    """Persistence fed back is persistence; its dates go on."""
    made = model.forecast(folder / "days.nc", steps=5)
    short = model.forecast(folder / "days.nc", steps=1)
    assert made.sizes["time"] == 5 and short.sizes["time"] == 1
    step = np.diff(made["time"].values)
    assert (step == np.timedelta64(1, "D")).all()
    xr.testing.assert_equal(made["T"].isel(time=[0]), short["T"])
    np.testing.assert_allclose(made["T"].values, short["T"].values * np.ones((5, 1, 1)))


def test_a_model_without_the_inputs_of_its_later_steps(folder, tmp_path):
    changes = {"data.targets": ("T",)}
    with contextlib.chdir(folder):
        run = Run(run_on(folder, "days.nc", **changes).config, tmp_path / "run")
        run.train()
    one = run.load().forecast(folder / "days.nc")
    assert "P" not in one
    with pytest.raises(ConfigError, match=r"steps=3: .*not forecast: P; use at most 2"):
        run.load().forecast(folder / "days.nc", steps=3)


def test_physical_fields(folder, model):
    """The same as the forecast of a file, with the season of the calendar channels."""
    days = cube_files.dataset(DAYS).sortby("lat")
    made = model.forecast(folder / "days.nc")
    inputs = np.stack([days[x].values[-4:] for x in ("T", "P")], axis=-1)[None]
    minutes = days["time"].values[-4:].astype("datetime64[m]").astype(int)[None]
    got = jax.jit(model.apply)(inputs, minutes)
    for i, name in enumerate(("T", "P")):
        want = made[name].sortby("lat").values
        np.testing.assert_allclose(got[0, ..., i], want, rtol=1e-5, atol=1e-6)
    slopes = jax.grad(lambda x: model.apply(x, minutes).sum())(inputs)
    np.testing.assert_allclose(slopes[0, -1], 2, rtol=1e-5)  # it comes twice
    with pytest.raises(ValueError, match="minutes are needed"):
        model.apply(inputs)
    with pytest.raises(ValueError, match="inputs have 3 frames; .* trained on 4"):
        model.apply(inputs[:, 1:], minutes[:, 1:])


def test_inputs_for_figures(folder, model):
    """The days before, in the units of the file."""
    days = cube_files.dataset(DAYS).sortby("lat")
    with making.opened(model, making.request(folder / "days.nc")) as forecasts:
        made = figures.inputs(forecasts.outline)
    assert made["time"].values.tolist() == days["time"].values[-4:].tolist()
    np.testing.assert_allclose(made["T"].values, days["T"].values[-4:], rtol=1e-5)
    assert set(made) == {"T", "P"}


def test_inputs_for_figures_in_other_calendars(folder, model, tmp_path):
    """There is no 29th of February, although 2004 has one."""
    days = cube_files.dataset(DAYS).isel(time=slice(-4, None))
    attributes = {"units": "days since 2004-02-27", "calendar": "noleap"}
    days = days.assign_coords(time=("time", np.arange(4), attributes))
    cube_files.write(days, tmp_path / "days.nc")
    with making.opened(model, making.request(tmp_path / "days.nc")) as forecasts:
        made = figures.inputs(forecasts.outline)
    dates = [str(x)[5:10] for x in made["time"].values]
    assert dates == ["02-27", "02-28", "03-01", "03-02"]


def test_data_that_cannot_be_forecast_yet(folder, model, monkeypatch):
    monkeypatch.delattr(custom, "beginnings")
    with pytest.raises(ConfigError, match="'custom': .* has no function `beginnings`"):
        model.forecast(folder / "days.nc")


class TestOtherGrid:
    def test_on_request(self, folder, model, tmp_path):
        wide = cube_files.dataset(8, longitude=tuple(range(0, 70, 10)))
        cube_files.write(wide, tmp_path / "wide.nc")
        with pytest.raises(ConfigError, match="grid|cells|longitude"):
            model.forecast(tmp_path / "wide.nc")
        made = model.forecast(tmp_path / "wide.nc", allow_other_grid=True)
        want = wide["T"].sortby("lat").values[-1]
        np.testing.assert_allclose(made["T"].sortby("lat").values[1], want, rtol=1e-5)
        assert made["lon"].values.tolist() == wide["lon"].values.tolist()

    def test_weights_that_depend_on_the_size(self, folder, model):
        config = api.load_config("custom:test", {"data.calendar": True})
        shapes = model.input_shape, model.target_shape
        attention = make_model(config, *shapes)
        variables = check_model(config, attention, *shapes)
        other = dataclasses.replace(
            model, config=config, model=attention, variables=variables
        )
        assert other.resized(shapes[0][1:3]) is other
        with pytest.raises(ConfigError, match=r"trained on 4 x 5 cells, and its wei"):
            other.resized((8, 9))


def test_what_a_file_says_of_its_making(folder, model, write):
    made = read(write())
    assert "persistence of earthformer_jax" in made.attrs["source"]
    assert made.attrs["training_period"].count("..") == 1
    assert len(made.attrs["config_hash"]) == len(made.attrs["data_fingerprint"]) == 64
    again = model.forecast(folder / "days.nc").attrs
    assert made.attrs | {"history": ""} == again | {"history": ""}


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("gap.nc", {}, r"in_len=4 frames without a gap .* there are 3"),
        ("days.nc", {"start": "1999-12"}, "start=1999-12: days.nc has .*; use one of"),
        ("days.nc", {"start": "soon"}, "start=.soon. is not a date"),
        ("days.nc", {"stop": "2000"}, "stop=2000 needs the date of a first forecast"),
        ("days.nc", {"every": 2}, "every=2 has no effect on a single forecast"),
        ("days.nc", {"start": "all", "every": 0}, "every=0: expected a whole number"),
        ("days.nc", {"steps": 0}, "steps=0: expected a whole number of at least 1"),
        ("days.nc", {"steps": 1.5}, "steps=1.5: expected a whole number of at least 1"),
        ("days.nc", {"members": 0}, "members=0: expected a whole number from 1 to"),
        ("days.nc", {"members": 9}, "members=9: .* all members would be equal"),
        ("days.nc", {"anomalies": True}, "no climatology was removed"),
        ("none.nc", {}, "does not exist"),
        ("none*.nc", {}, "none"),
    ],
)
def test_what_cannot_be_forecast(folder, model, write, tmp_path, name, asked, message):
    with pytest.raises(ConfigError, match=message):
        write(name, **asked)
    assert not list(tmp_path.iterdir())
    if not {"stop", "every"} & set(asked):
        with pytest.raises(ConfigError, match=message):
            model.forecast(folder / name, **asked)


def test_a_file_is_kept(write, tmp_path):
    path = tmp_path / "new.nc"
    path.write_text("mine")
    with pytest.raises(ConfigError, match="exists; choose another --output"):
        write()
    assert write(existing="keep") is None
    assert path.read_text() == "mine"
    assert "T" in read(write(existing="replace"))


def test_only_formats_that_can_be_written(write, tmp_path):
    for name in ("new.txt", "new", "new.NC4"):
        with pytest.raises(ConfigError, match="end the name with one"):
            write(output=name)
    assert not list(tmp_path.iterdir())
    assert write(output="new.zarr").is_dir()
    (tmp_path / "there").mkdir()
    assert write(output="there").parent == tmp_path / "there"


def test_the_input_is_not_replaced(folder, model, tmp_path):
    shutil.copy(folder / "latest.nc", tmp_path / "latest.nc")
    before = (tmp_path / "latest.nc").read_bytes()
    wanted = making.request(str(tmp_path / "*.nc"))
    with pytest.raises(ConfigError, match="is the input; choose another --output"):
        making.write(
            model, wanted, tmp_path / "latest.nc", tmp_path, existing="replace"
        )
    assert (tmp_path / "latest.nc").read_bytes() == before


def test_a_workdir_of_an_earlier_version(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / "data.nc").unlink()
    old = Run(run_on(folder, "days.nc").config, tmp_path / "run").load()
    with pytest.raises(ConfigError, match="holds no data.nc .* train again"):
        old.forecast()


def test_what_is_not_a_trained_model(folder, tmp_path):
    for what, message in (
        (folder / "days.nc", "days.nc is not a trained model; expected the workdir"),
        (tmp_path / "none", r"none does not exist; .*\.efx.*\.pt.*comes with the pack"),
        ("enso-st", "enso-st does not exist; did you mean `enso-sst`"),
    ):
        with pytest.raises(ConfigError, match=message):
            api.load(what)
