"""The loss suits the model and the data, and its options are settings."""

import dataclasses

import numpy as np
import pytest

from earthformer_jax import losses, models
from earthformer_jax.data.dataset import Channel, Dataset, Display
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.settings import TrainSettings, from_config
from earthformer_jax.training.setup.loss import make_loss
from tests.training import toy


class OwnLossModel:
    own_loss = True


class MembersModel:
    draws = True


class OwnDrawsModel(OwnLossModel, MembersModel):
    pass


class TestMakeLoss:
    def make(self, model=None, dataset=None, **changes):
        train = from_config({"train": changes}).train
        return make_loss(train, model or toy.ToyModel(), dataset or toy.dataset())

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
            for field in dataclasses.fields(TrainSettings)
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
