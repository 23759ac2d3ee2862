"""Ensembles from the config to the scores and the exported file."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import earthformer_jax as ef
from earthformer_jax.data import state as data_state
from earthformer_jax.models import create_model
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.reports.scoring import write_json
from earthformer_jax.run import start
from earthformer_jax.run import workdir as workdir_lib
from earthformer_jax.run.ensembles import combining, members
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import loop
from earthformer_jax.training.checkpoint import Checkpoints
from tests.data import cube_files

SIZE = 2


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two small U-Nets on persistence, of days."""
    axis = np.arange(16.0)
    fields = cube_files.dataset(300, latitude=axis, longitude=axis)
    path = cube_files.write(fields, tmp_path_factory.mktemp("data") / "days.nc")
    changes = {"data.path": path, "data.targets": ("P",), "model.base": "persistence"}
    changes |= {"model.ensemble": SIZE, "train.steps": 4, "train.validate_every": 2}
    return ef.load_config("custom:test,unet", changes)


def changed(config, **fields):
    config = config.copy_and_resolve_references()
    for field, value in fields.items():
        section, _, name = field.partition("__")
        config[section][name] = value
    return config


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A training that was stopped in its second member, and continued."""
    workdir = tmp_path_factory.mktemp("run") / "w"
    train, trained = loop.train, []

    def stop_in_second(config, folder, **more):
        trained.append(folder.name)
        return train(config, folder, **more) if len(trained) == 1 else False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train", stop_in_second)
        assert not Run(config, workdir).train()
    assert trained == ["0", "1"]
    assert not Checkpoints(workdir / "checkpoints").steps()
    before = (workdir / "members/0/metrics.jsonl").read_bytes()
    run = Run.of(workdir)
    assert run.train()
    assert (workdir / "members/0/metrics.jsonl").read_bytes() == before
    return run


class TestTraining:
    def test_the_members_are_stacked(self, run):
        """Each with its own seed and its best weights; the data are one object."""
        trained = run.load()
        assert isinstance(trained.model, Ensemble) and trained.complete
        assert trained.step == 4
        for i in range(SIZE):
            alone = ef.load(run.workdir / "members" / str(i))
            assert alone.config.seed == run.config.seed + i
            mine = jax.tree.map(lambda x, i=i: x[i], trained.variables["params"])
            jax.tree.map(
                np.testing.assert_array_equal, mine["member"], alone.variables["params"]
            )
        assert run._member(0).dataset is run._member(1).dataset is run.dataset
        states = [data_state.read(f) for f in (run.workdir, run.workdir / "members/1")]
        assert states[0] and states[1]
        assert not states[0].differences(states[1])

    def test_again_nothing_is_done(self, run, monkeypatch):
        monkeypatch.setattr(Checkpoints, "save", None)
        assert Run(run.config, run.workdir).train()

    def test_it_can_only_grow(self, run):
        workdir_lib.check_same_config(
            changed(run.config, model__ensemble=SIZE + 1), run.workdir
        )
        smaller = changed(run.config, model__ensemble=1)
        with pytest.raises(ConfigError, match="model.ensemble: 2, now 1\n.* can grow"):
            Run(smaller, run.workdir).train()
        with pytest.raises(ConfigError, match="model.ensemble: 1, now 2"):
            Run(run.config, run.workdir / "members/0").train()

    def test_a_larger_one_replaces_the_checkpoint(self, run, tmp_path):
        """Of the same step; the config is that of the larger one from then on."""
        for part in ("checkpoints", "config.json"):
            copy = shutil.copytree if part == "checkpoints" else shutil.copy
            copy(run.workdir / part, tmp_path / part)
        larger = changed(run.config, model__ensemble=3)
        like = Run(larger, tmp_path / "new")._built[1]
        folders = [members.folder(run.workdir, i) for i in (0, 1, 0)]
        combining.begin(larger, tmp_path, None)
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["model"]["ensemble"] == SIZE
        combining.combine(larger, tmp_path, folders, like)
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        variables, _ = checkpoints.restore_variables("best")
        assert {x.shape[0] for x in jax.tree.leaves(variables)} == {3}
        assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["00000004"]
        saved = json.loads((tmp_path / "config.json").read_text())
        assert saved["model"]["ensemble"] == 3

    def test_with_more_steps_it_is_not_complete(self, run):
        train = Run(changed(run.config, train__steps=9), run.workdir)._settings.train
        assert not combining.are_complete(run._folders, train, 1)


class TestUse:
    def test_scores_of_the_members(self, run, tmp_path):
        """In the pass that scores the mean, which is better than most of them."""
        scores = run.evaluate()
        write_json(tmp_path / "again.json", scores)  # what is undefined becomes null
        written = (run.workdir / "scores.json").read_bytes()
        assert (tmp_path / "again.json").read_bytes() == written
        errors = [x["mse"] for x in scores["members"]]
        assert len(errors) == SIZE and errors[0] != errors[1]
        assert scores["forecasts"]["model"]["mse"] < np.mean(errors)
        assert "mse_by_lead" not in scores["members"][0]

    def test_an_exported_file(self, run, tmp_path):
        trained = run.load()
        path = trained.export(tmp_path / "two.efx", program=False)
        inputs = run.dataset.data.test[3]["inputs"][None]
        np.testing.assert_array_equal(ef.load(path)(inputs), trained(inputs))

    def test_the_last_weights(self, run):
        last = Run(changed(run.config, eval__checkpoint="last"), run.workdir).load()
        assert isinstance(last.model, Ensemble)
        shapes = [jax.tree.map(np.shape, x.variables) for x in (last, run.load())]
        assert shapes[0] == shapes[1]

    def test_a_training_begins_with_a_member(self, run):
        first = run._member(0)
        found = start.first_weights(str(first.workdir), *first._built)
        assert found["params"]["network"]
        with pytest.raises(ConfigError, match="weights of an ensemble.*members/0"):
            start.first_weights(str(run.workdir), *first._built)


class TestFolds:
    """Settings of El Niño data; nothing is loaded."""

    def config(self, **changes):
        fields = {"model.ensemble": 5, "data.folds": 3, "data.path": "sst.nc"}
        return ef.load_config("enso:quick,unet", fields | changes)

    def test_members_take_them_in_turn(self):
        made = [members.config_of(self.config(seed=7), i) for i in range(5)]
        assert [c.data.fold for c in made] == [0, 1, 2, 0, 1]
        assert [c.seed for c in made] == [7, 8, 9, 10, 11]
        assert {c.model.ensemble for c in made} == {1}
        assert members.whole(self.config()).data.folds == 0

    def test_a_chosen_one_is_refused(self):
        with pytest.raises(ConfigError, match="data.fold=2: expected 0 with .*=5"):
            members.check(self.config(**{"data.fold": 2}))

    def test_other_units_are_refused(self, run):
        data = run.dataset.data
        members.check_same_units(data, data, 0)
        other = ef.load(run.workdir).data.test
        scaled = [{**other[i], "inputs": 2 * other[i]["inputs"]} for i in range(9)]
        with pytest.raises(ConfigError, match="member 1 .* other values"):
            members.check_same_units(data, dataclasses.replace(data, test=scaled), 1)


def test_a_config_without_members_is_as_before():
    config = ef.load_config("custom:test,unet")
    assert config.model.ensemble == 1 and members.size_of(config) == 1
    assert members.whole(config) is config
    model = create_model("unet", (3, 8, 8, 1), (2, 8, 8, 1), ensemble=1)
    assert not isinstance(model, Ensemble)


def test_all_members_correct_the_same_base(monkeypatch):
    """Folds choose the steps; the base is then that of all training months."""

    class Stored:
        def __init__(self, folder):
            self.number = int(folder.parent.name)

        def restore_variables(self, which, like):
            del which, like
            base = {"factors": np.full(2, self.number)}
            stats = {"base": base, "norm": np.full(3, self.number)}
            return {
                "params": {"gain": np.full(1, self.number)},
                "batch_stats": stats,
            }, 0

        def steps(self):
            return [4]

        def progress(self, step):
            return step

    monkeypatch.setattr(combining, "Checkpoints", Stored)
    like = {"params": {"member": {}}, "batch_stats": {"member": {}}}
    folders = [Path("0"), Path("1")]
    whole = {"factors": np.array([7, 8])}
    found, _ = combining.stacked(folders, "best", like, whole)
    stats = found["batch_stats"]["member"]
    np.testing.assert_array_equal(stats["base"]["factors"], [[7, 8], [7, 8]])
    np.testing.assert_array_equal(stats["norm"], [[0] * 3, [1] * 3])
    np.testing.assert_array_equal(found["params"]["member"]["gain"], [[0], [1]])
    own, _ = combining.stacked(folders, "best", like)
    stats = own["batch_stats"]["member"]
    np.testing.assert_array_equal(stats["base"]["factors"], [[0, 0], [1, 1]])
