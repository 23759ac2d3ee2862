import numpy as np
import pytest

from earthformer_jax.metrics.own_loss import ForecastAndLoss
from earthformer_jax.metrics.pixel import PixelError

SHAPE = (5, 2, 3, 4, 1)


def test_the_mean_over_examples_whatever_the_batches_beside_the_other_scores():
    rng = np.random.default_rng(0)
    targets, forecast = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    loss = rng.random(5).astype(np.float32)
    valid = np.array([True, True, True, True, False])
    metric, state = ForecastAndLoss(PixelError(), np.ones(1)), None
    for part in (slice(0, 3), slice(3, 5)):
        batch = {"targets": targets[part], "valid": valid[part], "loss": loss[part]}
        new = metric.update(metric.init(), forecast[part], batch)
        state = new if state is None else metric.merge(state, new)
    found = metric.compute(state)
    assert found["loss"] == pytest.approx(loss[:4].mean(), rel=1e-6)
    assert found["mse"] == pytest.approx(
        np.square(targets - forecast)[:4].mean(), rel=1e-5
    )


def test_nothing_to_score_is_nan():
    metric = ForecastAndLoss(PixelError(), np.ones(1))
    assert np.isnan(metric.compute(metric.init())["loss"])
