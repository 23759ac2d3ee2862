"""Every field is checked; every message names the field, its value and what to do."""

import dataclasses

import ml_collections
import pytest

from earthformer_jax.settings import ConfigError, meanings
from earthformer_jax.training import settings as lib

WRONG_VALUES = {
    "seed": [-1, 0.5, "0", True, 2**32, 2**64],
    "optim.lr": [0.0, -1e-3, float("nan"), float("inf"), 1e39, 1e-39, 10**400],
    "optim.weight_decay": [-0.1, 1e39, 1e-300],
    "optim.warmup_fraction": [-0.1, 1.5],
    "optim.warmup_min_ratio": [2.0],
    "optim.min_lr_ratio": [-1.0],
    "optim.clip_norm": [-1.0],
    "optim.b1": [1.0],
    "optim.b2": [-0.5, 1.0],
    "optim.eps": [0.0, 1e-300],
    "optim.ema_decay": [1.0],
    "train.batch_size": [0, -8],
    "train.loss": ["msee", None],
    "train.loss_alpha": [-0.1, 1.5],
    "train.loss_delta": [0.0],
    "train.loss_level": [0.0, 1.0],
    "train.loss_thresholds": [(1, float("nan")), 3.0],
    "train.loss_factors": [(0.0,), "2"],
    "train.loss_absolute": [-1.0],
    "train.loss_amplitude": [1.1],
    "train.micro_batch": [0],
    "train.epochs": [-1.0],
    "train.steps": [-1, 2**31, 10**30],
    "train.simulated_steps": [-1],
    "train.simulated_fraction": [1.5],
    "train.validate_every": [-1],
    "train.early_stop_patience": [-1],
    "train.monitor": [3],
    "train.monitor_mode": ["minimum"],
    "train.log_every": [0],
    "train.checkpoint_every": [-1],
    "train.init_from": [3, None],
    "train.num_workers": [-1, 0.5],
    "train.num_threads": [-1],
    "train.trackers": ["tensorboard", "wandb,", 3],
    "eval.batch_size": [0],
    "eval.clusters": [1, 2.5],
    "eval.checkpoint": ["newest"],
    "eval.members": [-1, 1.5],
    "eval.spread": ["narrow"],
    "eval.write_forecasts": [-1, 1.5],
    "parallel.backend": ["xmap", None],
    "parallel.space": [0, 1.5],
    "parallel.model": [0, "2"],
    "precision.compute": ["", "float64", None],
    "precision.params": ["float16", 32],
    "precision.matmul": ["tf32"],
    "precision.loss_scale": [0.5, 2.0**25, float("inf"), "2"],
    "precision.loss_scale_window": [0, 1.5],
}


def changed(name, value):
    """A config with one field."""
    section, _, field = name.rpartition(".")
    return ml_collections.ConfigDict(
        {section: {field: value}} if section else {name: value}
    )


class TestFromConfig:
    def test_an_empty_config_has_the_defaults(self):
        assert lib.from_config({}) == lib.Settings()

    def test_every_field_has_a_meaning_and_a_wrong_value_here(self):
        names = {"seed"}
        for section, settings in lib.SECTIONS.items():
            fields = [field.name for field in dataclasses.fields(settings)]
            assert list(meanings(settings)) == fields
            names |= {f"{section}.{field}" for field in fields}
        assert set(WRONG_VALUES) == names

    @pytest.mark.parametrize(
        "name, value", [(n, v) for n, values in WRONG_VALUES.items() for v in values]
    )
    def test_wrong_value(self, name, value):
        with pytest.raises(ConfigError) as error:
            lib.from_config(changed(name, value))
        message = str(error.value)
        assert message.startswith(f"config.{name}={value!r}: expected ")
        assert message.endswith(")") and "\n" not in message

    def test_whole_numbers_are_numbers(self):
        assert lib.from_config({"optim": {"lr": 1}}).optim.lr == 1

    def test_all_problems_are_reported_at_once(self):
        config = {"seed": -1, "optim": {"lr": -1.0, "b1": 2.0}, "eval": {"clusters": 0}}
        with pytest.raises(ConfigError) as error:
            lib.from_config(config)
        lines = str(error.value).splitlines()
        names = [line.partition("=")[0] for line in lines]
        assert names == [
            f"config.{n}" for n in ("optim.lr", "optim.b1", "eval.clusters", "seed")
        ]

    def test_unknown_field(self):
        with pytest.raises(ConfigError) as error:
            lib.from_config(changed("train.batchsize", 8))
        assert str(error.value).startswith(
            "config.train.batchsize is not a setting of config.train; did you mean "
            "config.train.batch_size? (the settings are: batch_size, micro_batch,"
        )

    @pytest.mark.parametrize(
        "changes, message",
        [
            (
                dict(micro_batch=3),
                "micro_batch=3 does not divide config.train.batch_size=64",
            ),
            (dict(micro_batch=128), "micro_batch=128 does not divide"),
            (dict(epochs=0.0), "epochs=0 and config.train.steps=0: expected one of"),
            (
                dict(steps=3, simulated_steps=4),
                "simulated_steps=4 exceeds config.train.steps=3",
            ),
        ],
    )
    def test_contradictions(self, changes, message):
        with pytest.raises(ConfigError, match=f"config.train.{message}"):
            lib.from_config({"train": changes})
