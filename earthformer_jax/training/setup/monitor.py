"""The validation score that selects the best checkpoint, and its metric."""

import numpy as np

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.metrics.contract import Metric
from earthformer_jax.metrics.ensembles.validation import CRPS, MembersAndMean
from earthformer_jax.metrics.own_loss import LOSS, ForecastAndLoss
from earthformer_jax.models.contract import (
    Forecaster,
    trains_members,
    validates_own_loss,
)
from earthformer_jax.training.settings import TrainSettings


def default_monitor(*, of_members: bool = False, own_loss: bool = False) -> str:
    """The validation score that selects the best checkpoint if none is named.

    The error of a mean does not see the spread of members: a model that begins with the
    weights of a network without noise would be best before its first step. Nor does the
    error of the most probable frames say how good probabilities of codes are.

    Args:
        of_members: whether the model is trained with members.
        own_loss: whether it tells its own loss.
    """
    return CRPS if of_members else LOSS if own_loss else "mse"


def monitored(
    train: TrainSettings, dataset: Dataset, model: Forecaster | None
) -> tuple[str, Metric]:
    """The validation score that selects the best checkpoint, and its metric.

    Args:
        train: settings of the training.
        dataset: data to learn from, and the task with its metric.
        model: that is trained; None: one with a single forecast.
    """
    of_members = model is not None and trains_members(model)
    own = model is not None and validates_own_loss(model)
    metric = dataset.task.metric
    if of_members or own:
        weights = np.asarray(dataset.data.loss_weights, np.float64)
        metric = (MembersAndMean if of_members else ForecastAndLoss)(metric, weights)
    return train.monitor or default_monitor(of_members=of_members, own_loss=own), metric
