"""A workdir is resumed only with its own config, whatever fields that config lacks."""

import json

import ml_collections
import numpy as np
import pytest

from earthformer_jax.run import workdir as lib
from earthformer_jax.run.config import completed
from earthformer_jax.run.run import Run
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.checkpoint import Checkpoints, Progress
from earthformer_jax.training.settings import TrainSettings
from earthformer_jax.training.workdir import config_hash, to_json, write_config


def config(**changes):
    c = dict(data=dict(name="enso"), model=dict(name="unet"), optim={}, train={})
    return ml_collections.ConfigDict(c | changes)


class TestSameConfig:
    def check(self, saved, now, folder):
        write_config(saved, folder / "run")
        lib.check_same_config(now, folder / "run")

    def test_fields_left_out_have_their_defaults(self, tmp_path):
        now = config(
            optim=dict(lr=1e-3), model=dict(name="unet", features=(32, 64, 128, 256))
        )
        self.check(config(), now, tmp_path)
        self.check(now, config(), tmp_path)

    @pytest.mark.parametrize(
        ("changes", "line"),
        [
            (dict(optim=dict(lr=3e-4)), "optim.lr: 0.001, now 0.0003"),
            (dict(seed=1), "seed: 0, now 1"),
            (dict(data=dict(name="enso", in_len=6)), "data.in_len: 12, now 6"),
            (
                dict(model=dict(name="unet", center_features=8)),
                "model.center_features: 1024, now 8",
            ),
        ],
    )
    def test_differences_from_defaults_are_refused(self, tmp_path, changes, line):
        with pytest.raises(ConfigError) as error:
            self.check(config(), config(**changes), tmp_path)
        advice = "use another --workdir, or the same values to continue"
        if "model" not in changes:
            advice += (
                "; another --workdir begins with the weights of this one by "
                f"--init_from={tmp_path / 'run'}"
            )
        assert str(error.value).splitlines()[1:] == [f"  {line}", advice]

    def test_free_fields_may_change(self, tmp_path):
        free = dict(train=dict(log_every=1, num_threads=0), eval=dict(clusters=3))
        free |= dict(model=dict(name="unet", remat="blocks"))
        self.check(config(), config(**free), tmp_path)
        with pytest.raises(
            ConfigError, match="(?s)epochs: 100.0, now 5.0.*train.steps"
        ):
            self.check(config(), config(train=dict(log_every=1, epochs=5)), tmp_path)

    def test_a_new_workdir(self, tmp_path):
        lib.check_same_config(config(), tmp_path / "new")
        assert not any(tmp_path.iterdir())

    def test_a_workdir_that_is_a_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="file is not a folder"):
            lib.check_same_config(config(), tmp_path / "file")


class TestSteps:
    """A training can become longer, but not shorter than what has been done."""

    @pytest.fixture
    @staticmethod
    def trained(tmp_path):
        with Checkpoints(tmp_path / "checkpoints", {}) as checkpoints:
            checkpoints.save({"step": np.zeros(())}, Progress(step=8))
        return tmp_path

    @pytest.mark.parametrize("changes", [{"steps": 8}, {"steps": 9}, {"epochs": 2}])
    def test_as_many_or_more(self, trained, changes):
        lib.check_steps(TrainSettings(batch_size=4, **changes), trained, 16)
        lib.check_same_config(config(train=changes), trained)

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"steps": 7}, "config.train.steps=7: "),
            ({"epochs": 1.5}, r"config.train.epochs=1.5 \(6 steps\): "),
        ],
    )
    def test_less_than_was_done(self, trained, changes, named):
        settings = TrainSettings(batch_size=4, **changes)
        with pytest.raises(ConfigError, match=f"^{named}.* trained for 8 steps alr"):
            lib.check_steps(settings, trained, 16)
        lib.check_steps(settings, trained / "new", 16)


def test_types_of_numbers_of_an_earlier_workdir(tmp_path):
    """They were options of the model."""
    saved = completed(config())
    with saved.unlocked():
        del saved["precision"]
        saved.model.dtype, saved.model.param_dtype = "bfloat16", "float32"
    write_config(saved, tmp_path)
    now = config(precision=dict(compute="bfloat16"))
    lib.check_same_config(now, tmp_path)
    lib.check_same_model(config(), tmp_path)  # may forecast with other arithmetic
    with pytest.raises(ConfigError, match='compute: "bfloat16", now "float32"'):
        lib.check_same_config(config(), tmp_path)
    with pytest.raises(ConfigError, match='params: "float32", now "bfloat16"'):
        lib.check_same_model(config(precision=dict(params="bfloat16")), tmp_path)


class TestSeedOfTheData:
    """A workdir from before `data.seed` drew its data with `seed`."""

    def old(self, folder):
        saved = completed(config(seed=3))
        with saved.unlocked():
            del saved.data["seed"]
        write_config(saved, folder)
        return folder

    def test_the_config_says_so(self, tmp_path):
        assert lib.read_config(self.old(tmp_path)).data.seed == 3

    def test_the_same_command_continues(self, tmp_path):
        old = self.old(tmp_path / "old")
        now = Run(config(seed=3), old).config
        assert now.data.seed == 3
        lib.check_same_config(now, old)
        assert lib.has_same_data(now, old)

    def test_another_seed_of_the_data_is_refused(self, tmp_path):
        old = self.old(tmp_path / "old")
        now = Run(config(seed=3, data=dict(name="enso", seed=4)), old).config
        with pytest.raises(ConfigError, match="data.seed: 3, now 4"):
            lib.check_same_config(now, old)

    def test_new_workdirs_have_their_own(self, tmp_path):
        assert Run(config(seed=3), tmp_path / "none").config.data.seed == 0
        write_config(completed(config(seed=3)), tmp_path / "new")
        assert lib.read_config(tmp_path / "new").data.seed == 0
        assert Run(config(seed=3), tmp_path / "new").config.data.seed == 0
        lib.check_same_config(Run(config(seed=3), tmp_path / "new").config, tmp_path)

    def test_a_workdir_that_cannot_be_read(self, tmp_path):
        (tmp_path / "config.json").write_text("{")
        assert Run(config(seed=3), tmp_path).config.data.seed == 0


class TestCheckpoints:
    """A checkpoint says what it was trained with."""

    def save(self, folder, trained_with):
        fields = json.loads(to_json(trained_with))
        with Checkpoints(folder / "checkpoints", fields) as checkpoints:
            checkpoints.save({"step": np.zeros(())}, Progress(step=3))

    def test_config_json_was_changed(self, tmp_path):
        trained = config(model=dict(name="unet", center_features=8), seed=1)
        self.save(tmp_path, trained)
        write_config(trained, tmp_path)
        lib.check_same_model(trained, tmp_path)
        damaged = (tmp_path / "config.json").read_text().replace(": 8", ": 9")
        (tmp_path / "config.json").write_text(damaged)
        with pytest.raises(ConfigError) as error:
            lib.check_same_model(lib.read_config(tmp_path), tmp_path)
        first, line, last = str(error.value).splitlines()
        assert "00000003 was trained with another config than" in first
        assert first.endswith("config.json:")
        assert line == "  model.center_features: 8, now 9"
        assert "correct the config" in last

    def test_one_of_another_training(self, tmp_path):
        self.save(tmp_path, config(seed=1, train=dict(log_every=1)))
        lib.check_same_config(config(seed=1, train=dict(log_every=2)), tmp_path)
        with pytest.raises(ConfigError, match="another config .*:\n  seed: 1, now 2"):
            lib.check_same_config(config(seed=2), tmp_path)


class TestSameModel:
    def test_only_model_and_lengths_matter(self, tmp_path):
        write_config(config(), tmp_path)
        lib.check_same_model(config(optim=dict(lr=1.0), seed=4), tmp_path)
        again = config(model=dict(name="unet", remat="blocks"))
        lib.check_same_model(again, tmp_path)
        with pytest.raises(
            ConfigError, match="another model:\n  data.out_len: 14, now"
        ):
            lib.check_same_model(config(data=dict(name="enso", out_len=3)), tmp_path)
        wide = config(model=dict(name="unet", center_features=8))
        with pytest.raises(ConfigError, match="model.center_features: 1024, now 8"):
            lib.check_same_model(wide, tmp_path)

    def test_no_workdir(self, tmp_path):
        with pytest.raises(ConfigError, match="new does not exist"):
            lib.check_same_model(config(), tmp_path / "new")


class TestFiles:
    def test_references_are_resolved_and_tuples_are_lists(self):
        c = ml_collections.ConfigDict(dict(a=dict(n=3), shape=(1, 2)))
        c.b = c.a.get_ref("n")
        assert json.loads(to_json(c)) == {"a": {"n": 3}, "b": 3, "shape": [1, 2]}

    def test_the_hash_is_that_of_the_values(self):
        c = ml_collections.ConfigDict({"a": {"n": 3, "m": (1, 2)}, "b": 0.5})
        other_order = ml_collections.ConfigDict({"b": 0.5, "a": {"m": [1, 2], "n": 3}})
        assert config_hash(c) == config_hash(other_order)
        other_order.a.n = 4
        assert config_hash(c) != config_hash(other_order)
        assert len(config_hash(c)) == 64

    @pytest.mark.parametrize("noise, monitor", [(0, "mse"), (4, "crps")])
    def test_the_score_that_an_empty_monitor_stands_for_is_the_same(
        self, noise, monitor
    ):
        model = {"name": "unet", "noise": noise}
        saved, now = (
            ml_collections.ConfigDict({"model": model, "train": {"monitor": name}})
            for name in (monitor, "")
        )
        assert lib.differences(saved, now) == []
        saved.train.monitor = "mae"
        (line,) = lib.differences(saved, now)
        assert line == f'train.monitor: "mae", now "{monitor}"'

    def test_differences(self):
        a = ml_collections.ConfigDict(dict(x=dict(y=1, z="s"), old=1, same=(1, 2)))
        b = ml_collections.ConfigDict(dict(x=dict(y=2, z="s"), new=1, same=(1, 2)))
        assert sorted(lib.differences(a, b)) == [
            "new: absent, now 1",
            "old: 1, now absent",
            "x.y: 1, now 2",
        ]

    @pytest.mark.parametrize("text", ["", "{", "[1]"])
    def test_unreadable(self, tmp_path, text):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match="config.json cannot be read"):
            lib.read_config(tmp_path)

    def test_a_folder_without_a_config(self, tmp_path):
        with pytest.raises(ConfigError, match="nothing was trained there"):
            lib.read_config(tmp_path)
