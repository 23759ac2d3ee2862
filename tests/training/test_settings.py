"""Every field is checked; every message names the field, its value and what to do."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from earthformer_jax import losses, models
from earthformer_jax.data.dataset import Channel, Dataset, Display
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.settings import ConfigError, meanings
from earthformer_jax.training import settings as lib
from tests.training import toy

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


def settings(**changes):
    return lib.from_config(toy.config(**changes))


class TestCheckDevices:
    def test_parts_divide_the_devices(self):
        lib.check_devices(lib.from_config({"parallel": {"space": 2, "model": 2}}), 8)
        with pytest.raises(ConfigError) as error:
            lib.check_devices(lib.from_config({"parallel": {"space": 3}}), 4)
        assert str(error.value).startswith(
            "config.parallel.space=3 times config.parallel.model=1 does not divide the "
            "number of devices, 4; expected"
        )

    def test_programs_for_each_device_divide_batches_only(self):
        with pytest.raises(
            ConfigError, match="config.parallel.backend='pmap' .* batches only"
        ):
            lib.from_config({"parallel": {"backend": "pmap", "space": 2}})

    def test_batches_of_any_size_for_one_program(self):
        lib.check_devices(settings(), 3)

    @pytest.mark.parametrize("backend", ["shard_map", "pmap"])
    def test_equal_shares_for_a_program_for_each_device(self, backend):
        parallel = {"parallel": {"backend": backend}, "train": {"micro_batch": 16}}
        lib.check_devices(lib.from_config(parallel), 8)
        with pytest.raises(ConfigError, match="train.micro_batch=16 cannot .* 3 dev"):
            lib.check_devices(lib.from_config(parallel), 3)

    def test_processes_have_equal_shares(self):
        with pytest.raises(ConfigError, match="micro_batch=4 cannot .* 3 processes"):
            lib.check_devices(settings(), 3, processes=3)
        parts = {"parallel": {"space": 2}}
        with pytest.raises(ConfigError, match="does not divide the 1 devices of each"):
            lib.check_devices(lib.from_config(parts), 4, processes=4)


def test_parts_of_fields():
    parallel = lib.ParallelSettings(space=4)
    lib.check_fields(parallel, [(2, 8, 3, 1), (2, 3, 8, 1)])
    with pytest.raises(ConfigError, match="space=4 divides neither .* 6 x 3 cells"):
        lib.check_fields(parallel, [(2, 8, 3, 1), (2, 6, 3, 1)])


class TestCheckDataset:
    def check(self, dataset=None, **changes):
        lib.check_dataset(settings(**changes), dataset or toy.dataset())

    def test_right(self):
        self.check()

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (dict(epochs=1.0, batch_size=1000), "batch_size=1000 is more than the"),
            (dict(epochs=1e30), r"epochs=1e\+30: expected at most 2147483647 steps"),
        ],
    )
    def test_epochs_that_make_no_steps(self, changes, message):
        config = toy.config(train__simulated_steps=0)
        config.train.update(changes)
        with pytest.raises(ConfigError, match=message):
            lib.check_dataset(lib.from_config(config), toy.dataset())

    @pytest.mark.parametrize("split", ["train", "validation"])
    def test_empty_split(self, split):
        with pytest.raises(ConfigError, match=f"the {split} split of 'toy' is empty"):
            self.check(toy.dataset(**{split: toy.ToySource(0)}))

    def test_nothing_simulated(self):
        dataset = toy.dataset(simulated=None)
        with pytest.raises(ConfigError, match="simulated_steps=5, but 'toy' has no"):
            self.check(dataset)
        self.check(dataset, train__simulated_steps=0, train__simulated_fraction=0.0)

    @pytest.mark.parametrize("monitor", ["loss", "rmse_by_lead"])
    def test_unknown_monitor(self, monitor):
        with pytest.raises(ConfigError, match=f"{monitor}' is not a score .* of mse"):
            self.check(train__monitor=monitor)


class OwnLossModel:
    own_loss = True


class MembersModel:
    draws = True


class OwnDrawsModel(OwnLossModel, MembersModel):
    pass


class TestMakeLoss:
    def make(self, model=None, dataset=None, **changes):
        train = lib.from_config({"train": changes}).train
        return lib.make_loss(train, model or toy.ToyModel(), dataset or toy.dataset())

    def test_the_one_that_suits_the_model(self):
        assert self.make() == losses.create_loss("mse")
        assert self.make(MembersModel()) == losses.create_loss("afcrps")
        assert self.make(OwnLossModel()) == losses.create_loss("none")
        assert self.make(OwnDrawsModel()) == losses.create_loss("none")
        noisy = models.create_model("unet", (2, 8, 8, 1), (2, 8, 8, 1), noise=4)
        assert self.make(noisy) == losses.create_loss("afcrps")

    def test_options(self):
        loss = self.make(MembersModel(), loss="afcrps", loss_alpha=1.0)
        assert loss == losses.create_loss("afcrps", alpha=1.0)

    def test_every_option_is_a_setting_with_its_default(self):
        defaults = {
            f"loss_{field.name}": field.default
            for name in losses.names()
            for field in dataclasses.fields(losses.loss_class(name))
            if field.name not in ("scale", "offset")  # known from the data
        }
        options = {
            field.name: field.default
            for field in dataclasses.fields(lib.TrainSettings)
            if field.name.startswith("loss_")
        }
        assert options == defaults

    def test_thresholds_are_in_the_units_that_are_shown(self):
        channels = Channel("a", "K", 2.0, 280.0), Channel("b", "K", 4.0, 270.0)
        dataset = toy.dataset(display=Display(channels))
        loss = self.make(dataset=dataset, loss="b_mse", loss_thresholds=[281, 283.0])
        factors = loss.factor(np.array([[0.4, 0.4], [0.5, 2.75], [1.5, 3.25]]))
        np.testing.assert_array_equal(factors, [[1, 1], [2, 2], [4, 4]])

    def test_thresholds_of_the_scores(self):
        data = toy.dataset().data
        dataset = Dataset(data, ForecastFrames(metric=RainScores(thresholds=(16, 74))))
        assert self.make(dataset=dataset, loss="b_mse").thresholds == (16, 74)

    @pytest.mark.parametrize(
        "model, changes, message",
        [
            (MembersModel, dict(loss="mse"), "loss='mse': the model is trained with"),
            (toy.ToyModel, dict(loss="afcrps"), "loss='afcrps': the model is trained"),
            (toy.ToyModel, dict(loss="none"), "loss='none': the model has none"),
            (OwnLossModel, dict(loss="mse"), "loss='mse': the model learns from"),
            (
                toy.ToyModel,
                dict(loss_alpha=0.5),
                "loss_alpha=0.5 is not an option of config.train.loss='mse'; expected "
                "the default, 0.95",
            ),
            (
                toy.ToyModel,
                dict(loss="b_mse"),
                "loss_thresholds=(): 'toy' has no thresholds of its own; expected "
                "rising numbers for config.train.loss='b_mse'",
            ),
            (
                toy.ToyModel,
                dict(loss="b_mse", loss_thresholds=(2, 1)),
                "loss_thresholds=(2.0, 1.0): expected at least one, each above the",
            ),
            (
                toy.ToyModel,
                dict(loss="b_mse", loss_thresholds=(1, 2), loss_factors=(1,)),
                "loss_factors=(1,): expected one for each of the 2 thresholds",
            ),
        ],
    )
    def test_what_does_not_go_together(self, model, changes, message):
        with pytest.raises(ConfigError) as error:
            self.make(model(), **changes)
        assert str(error.value).startswith(f"config.train.{message}")

    def test_thresholds_for_several_units(self):
        channels = Channel("a", "K"), Channel("b", "m/s")
        dataset = toy.dataset(display=Display(channels))
        with pytest.raises(ConfigError, match="are in K, m/s; expected targets in one"):
            self.make(dataset=dataset, loss="b_mse", loss_thresholds=(1,))
