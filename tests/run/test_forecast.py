"""Forecasts from files, without targets, with the statistics of the training."""

import contextlib
import shutil

import numpy as np
import pytest
import xarray as xr

from earthformer_jax.run import api
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


def read(path):
    with xr.open_dataset(path) as dataset:
        return dataset.load()


def test_what_comes_next(folder):
    """Persistence repeats the last day exactly, in the units of the file."""
    days = cube_files.dataset(DAYS)
    path = run_on(folder, "days.nc").forecast()
    made = read(path)
    assert path.parent == folder / "run" / "forecasts"
    last = days["time"].values[-1]
    assert (made["time"].values == last + np.array([1, 2], "timedelta64[D]")).all()
    for name in ("T", "P"):
        want = days[name].sortby("lat").values[-1]
        got = made[name].sortby("lat").values
        np.testing.assert_allclose(got, [want, want], rtol=1e-5)
    latest = read(run_on(folder, "latest.nc").forecast(folder / "latest_out.nc"))
    np.testing.assert_array_equal(latest["T"].values, made["T"].values)


def test_all_windows_and_dates(folder, tmp_path):
    run = run_on(folder, "days.nc")
    made = read(run.forecast(tmp_path / "all.nc", "all"))
    assert made.sizes["forecast_reference_time"] == DAYS - 3
    day = str(made["forecast_reference_time"].values[7])[:10]
    one = read(run.forecast(tmp_path / "one.nc", day))
    np.testing.assert_array_equal(one["T"].values, made["T"].values[7])


@pytest.mark.parametrize(
    ("name", "start", "message"),
    [
        ("gap.nc", "last", r"in_len=4 frames without a gap .* there are 3"),
        ("days.nc", "1999-12", r"start=1999-12: days.nc has .*; use one of these"),
        ("days.nc", "soon", "start=.soon. is not a date"),
        ("none.nc", "last", "does not exist"),
    ],
)
def test_what_cannot_be_forecast(folder, tmp_path, name, start, message):
    with pytest.raises(ConfigError, match=message):
        run_on(folder, name).forecast(tmp_path / "new.nc", start)
    assert not list(tmp_path.iterdir())


def test_a_file_is_kept(folder, tmp_path):
    path = tmp_path / "kept.nc"
    path.write_text("mine")
    run = run_on(folder, "days.nc")
    with pytest.raises(ConfigError, match="exists; choose another --output"):
        run.forecast(path)
    assert path.read_text() == "mine"
    assert "T" in read(run.forecast(path, overwrite=True))


def test_other_data_sets(tmp_path):
    run = Run(api.load_config("moving_mnist:test,persistence"), tmp_path / "run")
    run.train()
    with pytest.raises(
        ConfigError, match=r"series of fields \(climate, custom\), not for this"
    ):
        run.forecast()


def test_a_workdir_of_an_earlier_version(folder, tmp_path):
    shutil.copytree(folder / "run", tmp_path / "run")
    (tmp_path / "run" / "data.nc").unlink()
    with pytest.raises(ConfigError, match="holds no data.nc .* train again"):
        Run(run_on(folder, "days.nc").config, tmp_path / "run").forecast()
