"""The statistics of the training belong to the model, whatever files it meets later."""

import contextlib
import json
import shutil

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data import state as state_lib
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.run import api
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from tests.data import cube_files


@pytest.fixture(scope="module")
def days():
    """90 days that grow warmer."""
    whole = cube_files.dataset(90)
    whole["T"] = whole["T"] + np.linspace(0, 30, 90, dtype="f4")[:, None, None]
    return whole


def make(folder, name, **changes):
    config = api.load_config(
        "custom:test,persistence",
        {"data.path": name, "eval.batch_size": 4, "train.micro_batch": 4} | changes,
    )
    return Run(config, folder / "run")


@pytest.fixture(scope="module")
def first_run(days, tmp_path_factory):
    """A folder with the days, the first 60, and the rest; trained and scored on 60."""
    folder = tmp_path_factory.mktemp("first")
    for name, part in (
        ("all", slice(None)),
        ("first", slice(60)),
        ("later", slice(60, None)),
    ):
        cube_files.write(days.isel(time=part), folder / f"{name}.nc")
    with contextlib.chdir(folder):
        run = make(folder, "first.nc")
        assert run.train()
        state, kept = run.load().state, state_lib.read(run.workdir)
        assert state is not None and not state.differences(kept, splits=SPLITS)
        return folder, run.evaluate()


@pytest.fixture
def trained(first_run, tmp_path, monkeypatch):
    """A copy of that folder in `tmp_path`, which is the current one, and the scores."""
    folder, scores = first_run
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return scores


def kelvin(days, first):
    """Mean squared error of persistence of T from a first target day on."""
    x = days["T"].values[first - 1 :].astype(np.float64)
    errors = [(x[i + 1 :][:2] - x[i]) ** 2 for i in range(len(x) - 2)]
    weights = np.cos(np.deg2rad(days["lat"].values))[:, None]
    return np.average(np.mean(errors, axis=(0, 1)), weights=weights + np.zeros(5))


def test_scaling_of_the_training(days, trained, tmp_path):
    """Another file is read in the units of the training, and scored as a whole."""
    before = (tmp_path / "run" / "scores.json").read_bytes()
    run = make(tmp_path, "later.nc")
    scores = run.evaluate()["forecasts"]["persistence"]
    training = days["T"].values[:42]
    assert run.dataset.data.normalization.scale[0] == np.std(training)
    want = kelvin(days, 64)
    assert scores["rmse_T"] == pytest.approx(np.sqrt(want), rel=1e-5)
    assert len(run.dataset.data.test) == 25
    assert (tmp_path / "run" / "scores.json").read_bytes() == before
    assert json.loads((tmp_path / "run" / "scores-later.json").read_text())
    assert (tmp_path / "run" / "figures-later" / "forecast.png").exists()


def test_references_of_the_training(days, trained, tmp_path):
    """Another file without the training period does not teach the references."""
    first = make(tmp_path, "first.nc").dataset.task.references
    later = make(tmp_path, "later.nc").dataset
    batch = {key: value[None] for key, value in later.data.test[0].items()}
    for name, forecast in later.task.references.items():
        np.testing.assert_array_equal(forecast(batch), first[name](batch))


def test_a_file_that_has_grown(days, trained, tmp_path):
    """Splits stay where they were; what follows is test data of its own name."""
    run = make(tmp_path, "all.nc")
    run.evaluate()
    data = run.dataset.data
    assert len(data.train) == 37 and len(data.test) == 38
    assert (tmp_path / "run" / "scores-all.json").exists()
    assert "train 2001-01-01..2001-02-11" in data.description


def test_the_same_data_elsewhere(days, trained, tmp_path):
    """The path is not what makes data the same."""
    (tmp_path / "first.nc").rename(tmp_path / "moved.nc")
    again = make(tmp_path, "moved.nc").evaluate()
    np.testing.assert_equal(again["forecasts"], trained["forecasts"])  # NaN is NaN
    assert not list((tmp_path / "run").glob("scores-*"))


def test_another_order_of_variables(days, trained, tmp_path):
    """Channels are found by their names."""
    later = days.isel(time=slice(60, None))
    cube_files.write(later[["P", "T"]], tmp_path / "turned.nc")
    a, b = (make(tmp_path, f"{x}.nc").dataset.data.test for x in ("later", "turned"))
    np.testing.assert_array_equal(a[3]["inputs"], b[3]["inputs"])


def test_without_dates(days, trained, tmp_path):
    """Frames that were trained on are recognised by their values."""
    values = days["T"].values[..., None]
    np.save(tmp_path / "a.npy", values[:60])
    np.save(tmp_path / "b.npy", values[30:])
    folder = tmp_path / "other"
    run = make(tmp_path, "a.npy", **{"data.axes": "thwc"})
    run.workdir = folder
    run.train()
    run = make(tmp_path, "b.npy", **{"data.axes": "thwc"})
    run.workdir = folder
    first = run.dataset.data.test[0]["targets"][0, ..., 0]
    shown = run.dataset.data.normalization.decode(first[..., None])[..., 0]
    np.testing.assert_allclose(shown, values[51, ..., 0], rtol=1e-5)


def test_dates_that_a_climatology_needs(tmp_path):
    """Without them, anomalies of other files would be those from the mean."""
    whole = cube_files.dataset(800)
    config = dict(name="custom", anomalies=True, in_len=4, out_len=2)
    path = cube_files.write(whole, tmp_path / "a.nc")
    state = data.load(config | {"path": path}).data.state()
    undated = whole.isel(time=slice(600, 700)).drop_vars("time")
    path = cube_files.write(undated, tmp_path / "b.nc")
    with pytest.raises(ValueError, match="anomalies=True needs dates; b.nc has none"):
        data.load(config | {"path": path}, state=state)


def test_nothing_new(days, trained, tmp_path):
    cube_files.write(days.isel(time=slice(10, 50)), tmp_path / "part.nc")
    with pytest.raises(ConfigError, match="no window .* the model has not learned"):
        make(tmp_path, "part.nc").evaluate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.isel(lat=slice(3)), "grid: 4 x 5 cells .*, now 3 x 5 cells"),
        (lambda x: x.rename(T="t2m"), "variables: T, P, now t2m, P"),
        (lambda x: x.isel(time=slice(None, None, 2)), "frame: 1 day, now 2 days"),
        (
            lambda x: x.assign_coords(lat=x.lat + 1),
            r"10N\.\.17\.5N .*, now .* 11N\.\.18\.5N",
        ),
    ],
)
def test_data_that_do_not_fit(days, trained, tmp_path, change, message):
    cube_files.write(change(days), tmp_path / "unfit.nc")
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, "unfit.nc").evaluate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x * 1.5, "train values: 42 of 42 checksums differ"),
        (lambda x: x.isel(lat=slice(3)), "grid: 4 x 5 cells, now 3 x 5"),
        (lambda x: x.isel(time=slice(5, None)), "train period: 2001-01-01..2001-02-11"),
    ],
)
def test_training_does_not_continue_with_other_data(
    days, trained, tmp_path, change, message
):
    with_units = change(days.isel(time=slice(60)))
    for name in with_units:
        with_units[name].attrs = days[name].attrs
    cube_files.write(with_units, tmp_path / "first.nc")
    with pytest.raises(ConfigError, match=f"(?s)started with other data.*{message}"):
        make(tmp_path, "first.nc").train()


def test_the_model_without_its_data(days, trained, tmp_path):
    (tmp_path / "first.nc").unlink()
    model = api.load(tmp_path / "run")
    assert model(np.zeros((1, 4, 4, 5, 2))).shape == (1, 2, 4, 5, 2)
    assert model.state.layout.channels == ("T", "P")
    with pytest.raises(ConfigError, match=r"first.nc"):
        _ = model.data


def test_a_workdir_of_an_earlier_version(days, trained, tmp_path, caplog):
    (tmp_path / "run" / "data.nc").unlink()
    np.testing.assert_equal(make(tmp_path, "first.nc").evaluate(), trained)
    assert "holds no data.nc" in caplog.text
