"""The memory of past months: in examples, forecasts, references and bases."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data import pipeline
from earthformer_jax.data.enso.examples import past_of_window
from earthformer_jax.data.forecasting.beginnings import Starts
from earthformer_jax.forecast import physical
from earthformer_jax.models.bases import create_base
from earthformer_jax.statistics.field_memory import KEPT, REACH
from tests.data import sst_files

MONTHS = 12 * 20
CONFIG = dict(
    name="enso",
    in_len=6,
    out_len=4,
    train_until="2013-12",
    validate_until="2015-12",
    simulated=False,
    calendar=True,
    memory=True,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    return sst_files.write(sst_files.dataset(MONTHS), folder / "sst.nc")


@pytest.fixture(scope="module")
def loaded(path):
    return data.load(CONFIG | {"path": path})


@pytest.fixture(scope="module")
def state(loaded):
    return loaded.data.state()


def kelvin(loaded, inputs):
    return loaded.data.normalization.decode(inputs[..., 0].astype(np.float64))


def memory_scale(state):
    return state.fitted["scale"].attrs["memory_scale"]


def test_the_channel_is_the_integral_of_the_months_before(loaded, state):
    """Windows six months apart give all months in between."""
    train = loaded.data.train
    months = np.concatenate(
        [kelvin(loaded, train[i]["inputs"]) for i in range(0, 60, 6)]
    )
    example = train[54]
    assert example["inputs"].shape[-1] == 4
    for t in range(6):
        before = months[54 + t - REACH : 54 + t][::-1]
        weights = KEPT ** np.arange(REACH)
        expected = -np.tensordot(weights, before, axes=1)
        ours = example["inputs"][t, ..., 3] * memory_scale(state)
        np.testing.assert_allclose(ours, expected, atol=2e-4)
    scored = loaded.data.test[0]
    np.testing.assert_allclose(
        scored["cell_memory"], scored["inputs"][-1, ..., 3] * memory_scale(state)
    )


def test_without_it_inputs_are_as_before(loaded, path):
    plain = data.load(CONFIG | {"path": path, "memory": False})
    ours, theirs = loaded.data.test[3], plain.data.test[3]
    np.testing.assert_array_equal(ours["inputs"][..., :3], theirs["inputs"])
    np.testing.assert_array_equal(ours["cell_memory"], theirs["cell_memory"])
    assert set(plain.data.bases) == {"damped_persistence", "lim"}


def test_no_later_month_is_remembered(loaded, path, tmp_path):
    changed = sst_files.dataset(MONTHS)
    changed["sst"][200:] += 3
    path = sst_files.write(changed, tmp_path / "changed.nc")
    other = data.load(CONFIG | {"path": path})
    starts = loaded.data.spans["test"].target  # of the frames
    before = int(np.flatnonzero(starts <= 200)[-1])
    for i in (0, before):
        ours, theirs = loaded.data.test[i], other.data.test[i]
        np.testing.assert_array_equal(ours["inputs"], theirs["inputs"])


def test_forecasts_begin_from_the_inputs_of_the_test_windows(loaded, state, path):
    found = data.beginnings(CONFIG | {"path": path}, state, Starts("all"))
    first = int(loaded.data.spans["test"].first[0])
    for i in (0, 7):
        np.testing.assert_array_equal(
            found.windows[first + i]["inputs"], loaded.data.test[i]["inputs"]
        )


def test_a_short_file_is_used_and_says_so(loaded, state, tmp_path):
    late = sst_files.dataset(MONTHS).isel(time=slice(-20, None))
    path = sst_files.write(late, tmp_path / "late.nc")
    found = data.beginnings(CONFIG | {"path": path}, state)
    assert "know less than the 36 months before the last input" in found.notes[-1]
    assert "(19 at the least)" in found.notes[-1]
    long = sst_files.dataset(MONTHS).isel(time=slice(-60, None))
    path = sst_files.write(long, tmp_path / "long.nc")
    found = data.beginnings(CONFIG | {"path": path}, state)
    assert not any("memory" in note for note in found.notes)
    np.testing.assert_allclose(
        found.windows[0]["inputs"][-1, ..., 3],
        data.beginnings(CONFIG | {"path": path}, state).windows[0]["inputs"][
            -1, ..., 3
        ],
    )


def test_months_that_are_only_remembered_are_checked(loaded, state, tmp_path):
    wrong = sst_files.dataset(MONTHS)
    wrong["sst"][-20:-18] += 273.15
    path = sst_files.write(wrong, tmp_path / "wrong.nc")
    with pytest.raises(ValueError, match="2013|2018|2019"):
        data.beginnings(CONFIG | {"path": path}, state)
    gaps = sst_files.dataset(MONTHS)
    gaps["sst"][-40:-10] = np.nan
    path = sst_files.write(gaps, tmp_path / "gaps.nc")
    found = data.beginnings(CONFIG | {"path": path}, state)
    assert "1 of 1 forecasts know less than the 36 months" in found.notes[-1]


def test_scores_of_a_short_file_say_so(loaded, state, tmp_path):
    late = sst_files.dataset(MONTHS).isel(time=slice(-30, None))
    path = sst_files.write(late, tmp_path / "later.nc")
    later = data.load(CONFIG | {"path": path}, None, state)
    assert "remember fewer than 36 months" in later.data.description
    assert "remember" not in loaded.data.description


def test_in_physical_units(state, path):
    """Months as numbers give the inputs that the file gives."""
    config = CONFIG | {"path": path}
    encoding = data.encoding(config, state)
    assert encoding.before == REACH
    window = data.beginnings(config, state).windows[0]
    months = sst_files.dataset(MONTHS).isel(time=slice(-REACH - 6, None))
    values = months["sst"].values[..., None]
    minutes = months["time"].values.astype("datetime64[m]").astype(np.int64)
    ours = jax.jit(lambda x, m: physical.encode(encoding, x, m))(
        jnp.asarray(values[None]), jnp.asarray(minutes[None], jnp.int32)
    )
    np.testing.assert_allclose(ours[0], window["inputs"], atol=1e-4)
    with pytest.raises(ValueError, match="36 frames; expected more than 36"):
        physical.physical(lambda variables, x: x, encoding)(
            {}, values[None, :REACH], minutes[None, :REACH].astype(np.int32)
        )


def test_its_own_forecast_is_remembered(loaded, state, path):
    """Fed back, later inputs of a file are what the file itself would give."""
    config = CONFIG | {"path": path}
    found = data.beginnings(config, state, Starts("all"))
    first, later = (found.windows[i]["inputs"] for i in (100, 104))
    truth = later[-4:, ..., :1]
    ours = found.advance(first, truth, None)
    np.testing.assert_allclose(ours[..., :3], later[..., :3], atol=1e-6)
    forgotten = KEPT**REACH * 4 / memory_scale(state)  # the largest month is 4 K
    assert np.abs(ours[..., 3] - later[..., 3]).max() < 4 * forgotten


def test_a_window_alone_remembers_its_own_months():
    config = dict(name="enso", in_len=6, out_len=4, calendar=True, memory=True)
    config |= dict(twin_train=20, twin_validation=5, twin_test=5)
    loaded = data.load(config)
    state = loaded.data.state()
    example = loaded.data.test[0]
    assert not example["inputs"][0, ..., 3].any()
    kelvin = loaded.data.normalization.decode(example["inputs"][..., :1])
    weights = np.full(kelvin.shape[1:3], 1 / kelvin[0].size)
    own = past_of_window({"inputs": kelvin}, weights)
    np.testing.assert_allclose(own.cells[-1], example["cell_memory"], atol=1e-4)
    encoding = data.encoding(config, state)
    assert encoding.before == 0
    found = data.beginnings(config, state)
    np.testing.assert_array_equal(
        found.windows[0]["inputs"], loaded.data.test[4]["inputs"]
    )


@pytest.mark.parametrize(
    "base", ["lim", "lim_field_memory", "lim_hidden", "damped_persistence"]
)
def test_bases_are_the_references(loaded, base):
    """What a model corrects is the forecast in the tables."""
    batch = next(iter(pipeline.evaluation_batches(loaded.data.test, 6)))
    shapes = batch["inputs"].shape[1:], batch["targets"].shape[1:]
    arrays = loaded.data.bases[base]()
    forecast = jax.jit(create_base(base, *shapes).apply)(
        {"batch_stats": arrays}, batch["inputs"]
    )
    reference = loaded.task.references[base](batch)
    scale = loaded.data.normalization.scale
    np.testing.assert_allclose(forecast * scale, reference * scale, atol=1e-4)


def test_references_of_a_trained_model(loaded, state, path):
    again = data.load(CONFIG | {"path": path}, None, state)
    batch = next(iter(pipeline.evaluation_batches(loaded.data.test, 4)))
    assert list(again.task.references) == list(loaded.task.references)
    assert "lim_field_memory" in again.task.references
    for name, forecast in loaded.task.references.items():
        np.testing.assert_allclose(
            again.task.references[name](batch), forecast(batch), atol=1e-6
        )


def test_too_few_months_leave_references_out(tmp_path):
    dataset = sst_files.dataset(12 * 9)
    path = sst_files.write(dataset, tmp_path / "short.nc")
    dates = dict(train_until="2004-12", validate_until="2006-12")
    loaded = data.load(CONFIG | dates | {"path": path, "memory": False})
    assert "lim_field_memory" not in loaded.task.references
    assert "damped_persistence" in loaded.task.references
    loaded = data.load(CONFIG | dates | {"path": path})
    why = r"59 months are too few for \d+ .*, or another base: lim, damped_persistence"
    with pytest.raises(ValueError, match=why):
        loaded.data.bases["lim_field_memory"]()
