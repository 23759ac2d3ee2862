"""Every field is checked; every message names the field, its value and what to do."""

import json

import ml_collections
import pytest

from earthformer_jax.run import config as config_lib
from earthformer_jax.run.config import ConfigError
from tests.training import toy

WRONG_VALUES = {
    "seed": [-1, 0.5, "0", True],
    "optim__lr": [0.0, -1e-3, float("nan"), float("inf")],
    "optim__weight_decay": [-0.1],
    "optim__warmup_fraction": [-0.1, 1.5],
    "optim__warmup_min_ratio": [2.0],
    "optim__min_lr_ratio": [-1.0],
    "optim__clip_norm": [-1.0],
    "optim__b1": [1.0],
    "optim__b2": [-0.5],
    "optim__eps": [0.0],
    "optim__ema_decay": [1.0],
    "train__batch_size": [0, -8],
    "train__micro_batch": [0],
    "train__epochs": [-1.0],
    "train__steps": [-1],
    "train__simulated_steps": [-1],
    "train__simulated_fraction": [1.5],
    "train__validate_every": [-1],
    "train__early_stop_patience": [-1],
    "train__monitor": [""],
    "train__monitor_mode": ["minimum"],
    "train__log_every": [0],
    "train__checkpoint_every": [-1],
    "train__num_workers": [-1, 0.5],
    "train__num_threads": [-1],
    "eval__batch_size": [0],
    "eval__clusters": [1, 2.5],
    "eval__checkpoint": ["newest"],
}


def changed(name, value):
    """The toy config with one field changed, whatever its type."""
    c = toy.config().copy_and_resolve_references().unlock()
    with c.ignore_type():
        section, _, field = name.rpartition("__")
        (c[section] if section else c)[field] = value
    return c


class TestCheck:
    def test_the_toy_config_is_right(self):
        config_lib.check(toy.config())

    def test_every_field_has_a_wrong_value_here(self):
        tried = {name.replace("__", ".") for name in WRONG_VALUES}
        assert tried == set(config_lib.FIELDS)

    @pytest.mark.parametrize(
        "name, value", [(n, v) for n, values in WRONG_VALUES.items() for v in values]
    )
    def test_wrong_value(self, name, value):
        with pytest.raises(ConfigError) as error:
            config_lib.check(changed(name, value))
        message = str(error.value)
        assert f"config.{name.replace('__', '.')} = {value!r}; expected " in message
        assert "\n" not in message

    def test_whole_numbers_are_numbers(self):
        config_lib.check(changed("optim__lr", 1))

    def test_all_problems_are_reported_at_once(self):
        c = changed("optim__lr", -1.0)
        c.eval.batch_size = 0
        with pytest.raises(ConfigError, match="(?s)optim.lr.*eval.batch_size"):
            config_lib.check(c)

    def test_unknown_field(self):
        with pytest.raises(ConfigError, match="config.train.batchsize is unknown"):
            config_lib.check(changed("train__batchsize", 8))

    def test_misspelt_field(self):
        c = changed("train__batchsize", 8)
        del c.train.batch_size
        with pytest.raises(ConfigError) as error:
            config_lib.check(c)
        assert str(error.value) == (
            "config.train.batchsize is unknown; did you mean config.train.batch_size?\n"
            "config.train.batch_size is missing"
        )

    def test_missing_section(self):
        c = toy.config().unlock()
        del c.eval
        with pytest.raises(ConfigError, match="config.eval is missing"):
            config_lib.check(c)

    def test_missing_name(self):
        c = toy.config().unlock()
        del c.model.name
        with pytest.raises(ConfigError, match="config.model.name is missing"):
            config_lib.check(c)

    def test_options_of_data_and_model_are_not_its_business(self):
        config_lib.check(changed("model__anything", 3))

    @pytest.mark.parametrize(
        "changes, message",
        [
            (dict(train__micro_batch=3), "micro_batch = 3 does not divide"),
            (dict(train__micro_batch=16), "micro_batch = 16 does not divide"),
            (dict(train__epochs=0.0), "epochs = 0 and config.train.steps = 0"),
            (
                dict(train__steps=3, train__simulated_steps=4),
                "simulated_steps = 4 exceeds config.train.steps = 3",
            ),
        ],
    )
    def test_contradictions(self, changes, message):
        with pytest.raises(ConfigError, match=message):
            config_lib.check(toy.config(**changes))


class TestCheckDevices:
    def test_shares_must_be_equal(self):
        config_lib.check_devices(toy.config(), 4)
        with pytest.raises(ConfigError, match="micro_batch = 4 cannot be shared .* 3"):
            config_lib.check_devices(toy.config(), 3)
        with pytest.raises(ConfigError, match="eval.batch_size = 6 .* 4 devices"):
            config_lib.check_devices(toy.config(eval__batch_size=6), 4)


class TestCheckDataset:
    def check(self, dataset=None, **changes):
        config_lib.check_dataset(toy.config(**changes), dataset or toy.dataset())

    def test_right(self):
        self.check()

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_empty_split(self, split):
        with pytest.raises(ConfigError, match=f"the {split} split of 'toy' is empty"):
            self.check(toy.dataset(**{split: toy.ToySource(0)}))

    def test_nothing_simulated(self):
        dataset = toy.dataset(simulated=None)
        with pytest.raises(ConfigError, match="simulated_steps = 5, but 'toy' has no"):
            self.check(dataset)
        self.check(dataset, train__simulated_steps=0, train__simulated_fraction=0.0)

    @pytest.mark.parametrize("monitor", ["loss", "rmse_by_lead"])
    def test_unknown_monitor(self, monitor):
        with pytest.raises(ConfigError, match=f"{monitor}' is not a score .* of mse"):
            self.check(train__monitor=monitor)


class TestFiles:
    def test_round_trip(self, tmp_path):
        c = toy.config()
        path = tmp_path / "config.json"
        path.write_text(config_lib.to_json(c))
        assert config_lib.differences(config_lib.read_json(path), c) == []
        config_lib.check(config_lib.read_json(path))

    def test_references_are_resolved_and_tuples_are_lists(self):
        c = ml_collections.ConfigDict(dict(a=dict(n=3), shape=(1, 2)))
        c.b = c.a.get_ref("n")
        assert json.loads(config_lib.to_json(c)) == {
            "a": {"n": 3},
            "b": 3,
            "shape": [1, 2],
        }

    def test_differences(self):
        a = ml_collections.ConfigDict(dict(x=dict(y=1, z="s"), old=1, same=(1, 2)))
        b = ml_collections.ConfigDict(dict(x=dict(y=2, z="s"), new=1, same=(1, 2)))
        assert config_lib.differences(a, b) == [
            "x.y: 1, now 2",
            "old: 1, now absent",
            "new: absent, now 1",
        ] or set(config_lib.differences(a, b)) == {
            "x.y: 1, now 2",
            "old: 1, now absent",
            "new: absent, now 1",
        }

    @pytest.mark.parametrize("text", [None, "", "{", "[1]"])
    def test_unreadable(self, tmp_path, text):
        path = tmp_path / "config.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match="config.json cannot be read"):
            config_lib.read_json(path)
