"""B-MSE against a loop, and factors at the thresholds themselves."""

import numpy as np
import pytest

from earthformer_jax import losses


def test_numpy_loop():
    rng = np.random.default_rng(0)
    forecast, targets = rng.uniform(0, 50, (2, 2, 2, 3, 4, 1)).astype(np.float32)
    weights = rng.uniform(size=(2, 3, 4, 1)).astype(np.float32)
    weights[:, 0] = 0
    observed = rng.random(targets.shape) < 0.7
    thresholds = factors = (2, 5, 10, 30)
    total = norm = 0.0
    for b, t, h, w in np.ndindex(2, 2, 3, 4):
        x, y = forecast[b, t, h, w, 0], targets[b, t, h, w, 0]
        factor = [1] + [f for f, a in zip(factors, thresholds, strict=True) if y >= a]
        if observed[b, t, h, w, 0]:
            error = (x - y) ** 2 + 0.5 * abs(x - y)
            total += weights[t, h, w, 0] * factor[-1] * error
        norm += weights[t, h, w, 0]
    loss = losses.create_loss(
        "b_mse", thresholds=thresholds, factors=factors, absolute=0.5
    )
    got = loss(forecast, targets, weights, observed)
    np.testing.assert_allclose(got, total / norm, rtol=1e-5)


@pytest.mark.parametrize("scale, offset", [(255.0, 0.0), (47.54, 33.44)])
def test_every_code_is_on_the_right_side_of_its_threshold(scale, offset):
    thresholds = (16, 74, 133, 160, 181, 219)
    codes = np.arange(256)
    x = ((codes - offset) / scale).astype(np.float32)
    loss = losses.create_loss(
        "b_mse", thresholds=thresholds, scale=(scale,), offset=(offset,)
    )
    want = 2.0 ** (codes[:, None] >= np.array(thresholds)).sum(axis=1)
    np.testing.assert_array_equal(loss.factor(x[:, None])[:, 0], want)


def test_below_all_thresholds_it_is_the_squared_error():
    forecast, targets = np.random.default_rng(1).normal(size=(2, 1, 2, 3, 4, 1))
    loss = losses.create_loss("b_mse", thresholds=(100,))
    want = losses.create_loss("mse")(forecast, targets, np.ones(1))
    assert loss(forecast, targets, np.ones(1)) == want


def test_unknown_targets_have_the_factor_1():
    loss = losses.create_loss("b_mse", thresholds=(0,))
    np.testing.assert_array_equal(loss.factor(np.array([np.nan, 1])), [1, 2])
