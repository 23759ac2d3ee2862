"""El Nino data for a trained model: its statistics, and only what it has not seen."""

import pathlib
import shutil

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data import pipeline
from earthformer_jax.data import state as state_lib
from earthformer_jax.data.splits import SPLITS
from tests.data import sst_files

MONTHS = 12 * 14
CONFIG = dict(
    name="enso",
    in_len=6,
    out_len=4,
    train_until="2009-12",
    validate_until="2010-12",
)
LAST_LEARNED = np.datetime64("2010-12")


def load(path, state=None, **changes):
    return data.load(CONFIG | {"path": path} | changes, state=state)


def state_of(dataset):
    assert dataset.data.state is not None
    return dataset.data.state()


@pytest.fixture(scope="module")
def whole():
    dataset = sst_files.dataset(MONTHS)
    dataset["sst"][[5, 90, -7], 3, 4] = np.nan
    return dataset


@pytest.fixture(scope="module")
def trained(whole, tmp_path_factory):
    """A data set, and its state as read from a workdir."""
    folder = tmp_path_factory.mktemp("trained")
    first = load(sst_files.write(whole, folder / "trained.nc"))
    state_of(first).write(folder)
    return first, state_lib.read(folder)


@pytest.fixture
def score(trained, tmp_path):
    """Loads another file for the trained model."""

    def score(dataset, name="other.nc"):
        return load(sst_files.write(dataset, tmp_path / name), trained[1])

    return score


def target_months(source):
    """The months of all targets of a source."""
    months = [source[i]["time"][6:] for i in range(len(source))]
    return np.concatenate(months).astype("datetime64[m]").astype("datetime64[M]")


def windows(dataset):
    """Windows in K, with times, below the examples of the test split."""
    return dataset.data.test._windows


def test_the_same_file_is_the_same_data(trained, whole, score):
    first, state = trained
    again = score(whole)
    assert "as in the training" in again.data.description
    for split in SPLITS:
        a, b = (getattr(x.data, split) for x in (first, again))
        assert len(a) == len(b)
        for i in (0, len(a) - 1):
            for name, values in a[i].items():
                np.testing.assert_array_equal(b[i][name], values)
    batch = next(iter(pipeline.evaluation_batches(first.data.test, 4)))
    assert list(again.task.references) == [
        "persistence",
        "damped_persistence",
        "lim",
        "lim_memory",
        "lim_field_memory",
        "lim_hidden",
        "oscillator",
    ]
    for name, forecast in first.task.references.items():
        np.testing.assert_array_equal(
            again.task.references[name](batch), forecast(batch)
        )
    np.testing.assert_array_equal(
        again.data.simulated[3]["inputs"], first.data.simulated[3]["inputs"]
    )
    assert not state.differences(state_of(again), SPLITS)


def test_later_months_alone(trained, whole, score):
    first, _ = trained
    later = score(whole.isel(time=slice(-20, None)))
    assert "nothing of which was trained on" in later.data.description
    assert later.data.simulated is None
    count = len(later.data.test)
    assert (count, len(later.data.train), len(later.data.validation)) == (11, 0, 0)
    for i in range(count):
        ours, theirs = (
            later.data.test[i],
            first.data.test[len(first.data.test) - count + i],
        )
        for name in theirs.keys() - {"memory", "cell_memory"}:
            np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_grown_file(trained, whole, score):
    more = sst_files.dataset(MONTHS + 10, seed=3)
    more["sst"][:MONTHS] = whole["sst"].values
    grown = score(more)
    assert len(grown.data.test) == len(trained[0].data.test) + 10
    assert len(grown.data.train) == len(trained[0].data.train)
    assert grown.data.normalization == trained[0].data.normalization


def test_in_kelvin(trained, whole, score):
    kelvin = whole.copy(deep=True)
    kelvin["sst"] = (whole["sst"] + 273.15).astype(np.float32)
    kelvin["sst"].attrs["units"] = "K"
    other = score(kelvin)
    assert "SST in K 'sst'" in other.data.description
    assert len(other.data.train) == 0
    assert len(other.data.test) == len(trained[0].data.test)
    for name in ("inputs", "targets"):
        np.testing.assert_allclose(
            other.data.test[3][name], trained[0].data.test[3][name], atol=1e-4
        )


@pytest.mark.parametrize("day", [0, 14])
def test_what_was_trained_on_is_not_tested(whole, score, day):
    """Other values, dated at the beginning or the middle of the same months."""
    other = whole.copy(deep=True)
    other["sst"] = other["sst"] * np.float32(1.01)
    other["sst"].attrs["units"] = "degC"
    moved = other.assign_coords(time=other["time"] + np.timedelta64(day, "D"))
    months = target_months(windows(score(moved)))
    assert months.min() == LAST_LEARNED + 1


def test_refused(trained, whole, score):
    with pytest.raises(
        ValueError, match="has no window of 6 input and 4 target frames"
    ):
        score(whole.isel(time=slice(60)))
    with pytest.raises(ValueError, match="now 6 x 14 cells"):
        score(whole.isel(lon=slice(2, None)))
    anomalies = sst_files.dataset(MONTHS, absolute=False)
    with pytest.raises(ValueError, match="are anomalies, but the model was trained on"):
        score(anomalies)
    with pytest.raises(ValueError, match="'custom': .* trained on 'enso' data"):
        data.load(dict(name="custom"), state=trained[1])


LATITUDE, LONGITUDE = np.arange(-5.0, 6.0, 5.0), np.arange(180.0, 246.0, 5.0)
ICAR = dict(name="enso", in_len=6, out_len=4)


def icar(folder, years, seed):
    folder.mkdir()
    series = sst_files.icar_series(12 * years, (3, len(LONGITUDE)), seed)
    rows = sst_files.icar_rows(series)
    nino = sst_files.icar_rows(sst_files.icar_labels(series))
    return sst_files.write_icar(
        folder, rows, nino, latitude=LATITUDE, longitude=LONGITUDE
    )


@pytest.fixture(scope="module")
def icar_trained(tmp_path_factory):
    path = icar(tmp_path_factory.mktemp("icar") / "first", 20, 1)
    return path, data.load(ICAR | {"path": path})


def test_icar_again(icar_trained):
    path, first = icar_trained
    state = state_of(first)
    again = data.load(ICAR | {"path": path}, state=state)
    assert not state.differences(state_of(again), SPLITS)
    batch = next(iter(pipeline.evaluation_batches(first.data.test, 4)))
    for name, forecast in first.task.references.items():
        expected = forecast(batch)
        np.testing.assert_array_equal(again.task.references[name](batch), expected)


def test_forecasts_of_icar_need_no_labels(icar_trained, tmp_path):
    path, first = icar_trained
    file = tmp_path / "SODA_train.nc"
    shutil.copy(pathlib.Path(path) / file.name, file)
    found = data.beginnings(ICAR | {"path": str(tmp_path)}, state_of(first))
    np.testing.assert_array_equal(found.last, [12 * 20 - 1])
    inputs = found.windows[0]["inputs"]
    assert inputs.shape == (6, 3, len(LONGITUDE), 1)
    assert np.isnan(found.decode(inputs, None)[:, 0, 0]).all()


def test_other_files_for_icar(icar_trained, tmp_path):
    """Years of a reanalysis count from 1, so observations may be the same months."""
    _, first = icar_trained
    state = state_of(first)
    longer = icar(tmp_path / "longer", 30, 2)
    other = data.load(ICAR | {"path": longer}, state=state)
    assert len(other.data.train) == 0
    assert len(other.data.test) == len(first.data.test) + 12 * 10
    observed = sst_files.dataset(
        MONTHS, absolute=False, latitude=LATITUDE, longitude=LONGITUDE
    )
    config = ICAR | {"path": sst_files.write(observed, tmp_path / "observed.nc")}
    with pytest.raises(ValueError, match="observed.nc: the years of ICAR-ENSO"):
        data.load(config, state=state)
    assert len(data.beginnings(config, state).windows) == 1
    # Dates of the training do not divide other files.
    dated = ICAR | {"path": longer, "train_until": "0099-12"}
    assert len(data.load(dated, state=state).data.test) == len(other.data.test)
