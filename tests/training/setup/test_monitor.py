"""The score that selects the best checkpoint suits what the model is trained for."""

import pytest

from earthformer_jax.metrics.contract import scalar_scores
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.training.settings import TrainSettings
from earthformer_jax.training.setup.monitor import default_monitor, monitored
from tests.training import toy


class Members(toy.ToyModel):
    draws = True


class Codes(toy.ToyModel):
    own_loss = True

    def validation_loss(self, inputs, targets, weights):
        raise NotImplementedError


@pytest.mark.parametrize(
    "model, name", [(toy.ToyModel(), "mse"), (Members(), "crps"), (Codes(), "loss")]
)
def test_the_one_that_suits_the_model(model: Forecaster, name):
    found, metric = monitored(TrainSettings(), toy.dataset(), model)
    assert found == name and name in scalar_scores(metric)


def test_the_one_that_is_asked_for():
    dataset = toy.dataset()
    found, metric = monitored(TrainSettings(monitor="mae"), dataset, None)
    assert found == "mae" and metric is dataset.task.metric


def test_without_a_model():
    assert default_monitor() == monitored(TrainSettings(), toy.dataset(), None)[0]
