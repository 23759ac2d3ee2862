"""Folds, test periods before training, and protocols with names."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from earthformer_jax import data
from earthformer_jax.data import leaks, pipeline
from earthformer_jax.data import state as state_lib
from earthformer_jax.data.enso import gridded_sst
from earthformer_jax.data.enso.settings import Settings
from earthformer_jax.data.protocols import registry
from earthformer_jax.data.splits import SPLITS, Dates, Fold, training_pieces
from earthformer_jax.settings import ConfigError, settings_from
from earthformer_jax.statistics.references import damping_factors
from tests.data import sst_files

LENGTHS: dict[str, Any] = dict(in_len=6, out_len=4)
CONFIG = dict(name="enso", simulated=False, **LENGTHS)
DATES = dict(train_until="2009-12", validate_until="2010-12")
EARLY = dict(train_from="2005-01", test_from="2001-01", test_until="2003-12")
NAME = "enso-kaplan-1985-2014"
# The dates of a protocol on the file of these tests, which is shorter.
SHORT = registry._dated("2005-01..2011-12", "2013-12", "2001-01..2003-12")
OF_MAPS = {p.name: p.settings for p in registry.PROTOCOLS.values() if p.data == "enso"}


@pytest.fixture(scope="module")
def months():
    dataset = sst_files.dataset(12 * 14)
    dataset["sst"][[5, 90, -7], 3, 4] = np.nan
    return dataset


@pytest.fixture(scope="module")
def path(months, tmp_path_factory):
    return sst_files.write(months, tmp_path_factory.mktemp("months") / "sst.nc")


@pytest.fixture
def short(monkeypatch):
    """A protocol for the file of these tests."""
    here = dataclasses.replace(registry.PROTOCOLS[NAME], settings=SHORT)
    monkeypatch.setitem(registry.PROTOCOLS, NAME, here)
    return NAME


def load(path, state=None, **changes) -> Any:
    return data.load(CONFIG | {"path": path} | changes, state=state)


def months_of(source, which=slice(None)):
    """The months of the windows of a source, `[n, t]`."""
    times = [source[i]["time"][which] for i in range(len(source))]
    return np.array(times).astype("datetime64[m]").astype("datetime64[M]")


def same_examples(a, b):
    assert len(a) == len(b)
    for i in range(len(a)):
        for name, values in a[i].items():
            np.testing.assert_array_equal(b[i][name], values)


class TestFolds:
    def test_no_month_of_the_block_is_in_a_training_window(self, path):
        validated = []
        for fold in range(4):
            dataset = load(path, **DATES, folds=4, fold=fold)
            windows = {s: getattr(dataset.data, s)._windows for s in SPLITS}
            block = months_of(windows["validation"], slice(6, None))
            trained = months_of(windows["train"])
            assert not np.isin(trained, np.arange(block.min(), block.max() + 1)).any()
            assert trained.max() <= np.datetime64("2009-12")
            assert months_of(windows["test"], slice(6, None)).min() == np.datetime64(
                "2011-01"
            )
            validated.append(block)
        found = np.unique(np.concatenate([x.ravel() for x in validated]))
        # The first months have no six months before them.
        np.testing.assert_array_equal(
            found, np.arange("2000-07", "2010-01", dtype="M8[M]")
        )

    def test_all_folds_are_in_the_units_of_the_whole_period(self, path):
        whole = load(path, **DATES)
        for fold in (0, 1):
            dataset = load(path, **DATES, folds=2, fold=fold)
            assert dataset.data.normalization == whole.data.normalization
            same_examples(whole.data.test, dataset.data.test)

    def test_references_do_not_know_the_block(self, path):
        dataset = load(path, **DATES, folds=3, fold=1)
        series = gridded_sst.load(path, Dates(**DATES), fold=Fold(3, 1), **LENGTHS)
        values = gridded_sst.values_of(series.cube)[..., 0]
        if series.observed is not None:
            values = np.where(series.observed | ~series.grid.ocean, values, np.nan)
        pieces = training_pieces(series.periods)
        assert len(pieces) == 2
        factors = damping_factors(
            [values[a:b] for a, b in pieces], series.grid.ocean, 4
        )
        batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 4)))
        forecast = dataset.task.references["damped_persistence"](batch)
        expected = factors[..., None] * batch["inputs"][:, -1:, ..., :1]
        np.testing.assert_allclose(forecast, expected, rtol=1e-5, atol=1e-6)

    def test_a_trained_model_keeps_its_fold(self, path, tmp_path):
        first = load(path, **DATES, folds=3, fold=1)
        first.data.state().write(tmp_path)
        state = state_lib.read(tmp_path)
        assert state is not None
        again = load(path, state, **DATES, folds=3, fold=2)  # the state decides
        for split in SPLITS:
            same_examples(getattr(first.data, split), getattr(again.data, split))
        assert not state.differences(again.data.state(), SPLITS)
        other = load(path, **DATES, folds=3, fold=2)
        lines = "; ".join(state.differences(other.data.state()))
        assert "validation period: 2003-05-01..2006-08-01, now 2006-09-01" in lines

    def test_refused(self, path):
        for changes, message in (
            (dict(folds=1), "folds=1 leaves nothing to train on"),
            (dict(folds=3, fold=3), "fold=3: expected a number from 0 to 2"),
            (dict(fold=1), "fold=1 has no effect with folds=0; set `folds`"),
            (dict(path="", folds=3), "folds=3 divides the training period of a file"),
            (dict(folds=13, **DATES), "folds=13 divides .* into blocks of 9 frames"),
        ):
            with pytest.raises(ValueError, match=message):
                load(**({"path": path} | changes))

    def test_icar_years(self, tmp_path):
        latitude, longitude = np.arange(-5.0, 6.0, 5.0), np.arange(180.0, 246.0, 5.0)
        series = sst_files.icar_series(12 * 20, (3, len(longitude)), seed=1)
        rows, nino = (
            sst_files.icar_rows(x) for x in (series, sst_files.icar_labels(series))
        )
        where: Any = dict(latitude=latitude, longitude=longitude)
        path = sst_files.write_icar(tmp_path, rows, nino, **where)
        whole, dataset = load(path), load(path, folds=2, fold=1)
        assert len(dataset.data.train) == 84 - 9
        assert len(dataset.data.validation) == 84 - 3
        assert "train 0001-01..0007-12 (75 windows)" in dataset.data.description
        same_examples(whole.data.test, dataset.data.test)
        early = dict(train_from="0008-01", test_from="0002-01")
        dataset = load(path, **early, test_until="0006-12")
        assert "test 0002-01..0006-12 (57 windows)" in dataset.data.description


def test_two_years_from_three(path):
    dates = dict(train_until="2009-12", validate_until="2011-12")
    dataset = load(path, **dates, in_len=36, out_len=24, memory=True, calendar=True)
    assert "36 -> 24 months" in dataset.data.description
    batch = next(iter(pipeline.evaluation_batches(dataset.data.test, 1)))
    assert batch["targets"].shape[1] == 24
    assert "lim" in dataset.task.references
    for forecast in dataset.task.references.values():
        values = forecast(batch)
        assert values.shape == batch["targets"].shape
        assert np.isfinite(values).all()


class TestEarlyTest:
    def test_training_does_not_depend_on_the_test_months(self, path, months, tmp_path):
        other = months.copy(deep=True)
        other["sst"][:60] += np.float32(0.5)
        changed = sst_files.write(other, tmp_path / "changed.nc")
        a, b = (load(x, **EARLY, memory=True, calendar=True) for x in (path, changed))
        for split in ("train", "validation"):
            same_examples(getattr(a.data, split), getattr(b.data, split))
        assert not np.array_equal(a.data.test[0]["inputs"], b.data.test[0]["inputs"])
        a_fit, b_fit = (x.data.state().fitted for x in (a, b))
        assert "lim_transition" in a_fit
        assert a_fit.identical(b_fit)

    @pytest.mark.parametrize("folds", [0, 2])
    def test_a_trained_model_is_tested_on_the_same_months(
        self, path, months, folds, tmp_path
    ):
        first = load(path, **EARLY, folds=folds)
        assert "test 2001-01..2003-12 (33 windows)" in first.data.description
        state = first.data.state()
        again = load(path, state, **EARLY)
        for split in SPLITS:
            same_examples(getattr(first.data, split), getattr(again.data, split))
        # Without the first two years there is less to test on.
        file = sst_files.write(months.isel(time=slice(24, None)), tmp_path / "late.nc")
        late = load(file, state, **EARLY)
        found = months_of(late.data.test._windows, slice(6, None))
        assert found.min() == np.datetime64("2002-07")
        assert found.max() == np.datetime64("2003-12")
        same_examples(first.data.train, late.data.train)

    def test_leaks_are_refused_in_either_order(self):
        train, validation = (
            leaks.of_starts(np.arange(*x), 4, 2) for x in ((40, 60), (70, 80))
        )
        early = leaks.of_starts(np.arange(20, 35), 4, 2)
        spans = dict(train=train, validation=validation, test=early)
        leaks.check_apart("any", spans)
        spans["test"] = leaks.of_starts(np.arange(20, 36), 4, 2)
        with pytest.raises(ValueError, match="1 of 16 windows of the test split have"):
            leaks.check_apart("any", spans)


class TestProtocols:
    def test_names_say_when_is_tested(self):
        for name, fixed in OF_MAPS.items():
            if not name.startswith("enso-kaplan-"):
                continue
            first, last = name.split("-")[2:]
            assert fixed["test_from"] == f"{first}-01"
            assert fixed["test_until"][:4] == last
            trained = fixed["train_from"], fixed["train_until"]
            assert fixed["test_until"] < trained[0] or (
                fixed["test_from"] > fixed["validate_until"] > trained[1]
            )

    @pytest.mark.parametrize("name", OF_MAPS)
    def test_sets_its_fields_and_no_others(self, name):
        values = {"protocol": name, "path": "sst.nc"}
        made = settings_from(Settings, values, "the ENSO data")
        plain = settings_from(Settings, {"path": "sst.nc"}, "the ENSO data")
        for field in dataclasses.fields(Settings):
            expected = OF_MAPS[name].get(field.name)
            if expected is None:
                expected = values.get(field.name, getattr(plain, field.name))
            assert getattr(made, field.name) == expected

    def test_contradictions(self):
        values = dict(protocol=NAME, path="sst.nc", train_until="1980-12", in_len=24)
        message = (
            f"^train_until=1980-12 contradicts protocol={NAME}, in which it is 1979-12"
            "; leave `train_until` empty, or use no protocol$"
        )
        with pytest.raises(ConfigError, match=message):
            settings_from(Settings, values, "the ENSO data")
        same = values | dict(train_until="1979-12")
        assert settings_from(Settings, same, "the ENSO data").test_from == "1985-01"
        values = dict(protocol="enso-icar-paper", path="x", split="released")
        settings_from(Settings, values | dict(split="paper"), "the ENSO data")
        released = values | dict(protocol="enso-icar-paper")
        with pytest.raises(ConfigError, match="split=released contradicts protocol="):
            settings_from(Settings, released, "the ENSO data")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (dict(protocol="enso-oras5-xro"), "is of climate indices rather than maps"),
            (
                dict(protocol="enso-kaplan"),
                "there is no such protocol; did you mean `enso-kaplan-",
            ),
            (dict(protocol=NAME, path=""), "none are given; set `path`"),
            (dict(protocol="enso-icar-paper"), "but sst.nc is divided by date"),
        ],
    )
    def test_refused(self, path, changes, message):
        with pytest.raises(ValueError, match=message):
            load(**({"path": path, "in_len": 12, "out_len": 14} | changes))

    def test_a_file_without_its_months(self, path, short, months, tmp_path):
        load(path, protocol=short)
        fewer = sst_files.write(months.isel(time=slice(13, None)), tmp_path / "few.nc")
        message = (
            f"few.nc: protocol={short}: test months are 2001-01..2003-12; here "
            "2001-02..2003-12; use a file that has them"
        )
        with pytest.raises(ValueError, match=message):
            load(fewer, protocol=short)

    def test_the_task_names_it(self, path, short, months, tmp_path):
        dataset = load(path, protocol=short)
        assert "train 2005-01..2011-12" in dataset.data.description
        assert dataset.task.protocol["protocol"] == short
        assert len(dataset.task.protocol["protocol_sha256"]) == 64
        plain = load(path, **DATES)
        assert not plain.task.protocol
        state = dataset.data.state()
        assert load(path, state, protocol=short).task.protocol == dataset.task.protocol
        # Other test months than those of the protocol are not called by its name.
        file = sst_files.write(months.isel(time=slice(24, None)), tmp_path / "late.nc")
        assert not load(file, state, protocol=short).task.protocol
        with pytest.raises(
            ValueError, match="the test period of 0 frames is too short"
        ):
            load(path, plain.data.state(), protocol=short)
