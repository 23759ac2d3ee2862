"""Losses of single cells against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import losses

VALUES = {
    "mse": ({}, lambda error: error**2),
    "mae": ({}, abs),
    "huber": (
        dict(delta=0.7),
        lambda error: (
            error**2 / 2 if abs(error) <= 0.7 else 0.7 * (abs(error) - 0.7 / 2)
        ),
    ),
    "pinball": (
        dict(level=0.9),
        lambda error: 0.1 * error if error > 0 else -0.9 * error,
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_numpy_loop(name):
    rng = np.random.default_rng(0)
    forecast, targets = rng.normal(size=(2, 3, 2, 4, 5, 1)).astype(np.float32)
    weights = rng.uniform(size=(2, 4, 5, 1)).astype(np.float32)
    weights[0, :2] = 0
    observed = rng.random(targets.shape) < 0.7
    options, value = VALUES[name]
    total = norm = 0.0
    for b, t, h, w in np.ndindex(3, 2, 4, 5):
        x, y = forecast[b, t, h, w, 0], targets[b, t, h, w, 0]
        if observed[b, t, h, w, 0]:
            total += weights[t, h, w, 0] * value(x - y)
        norm += weights[t, h, w, 0]
    loss = losses.create_loss(name, **options)(forecast, targets, weights, observed)
    np.testing.assert_allclose(loss, total / norm, rtol=1e-5)


def test_squared_error_has_the_bits_of_the_plain_formula():
    rng = np.random.default_rng(3)
    forecast, targets = rng.normal(size=(2, 3, 2, 4, 5, 1)).astype(np.float32)
    weights = rng.uniform(size=(1, 4, 5, 1)).astype(np.float32)
    observed = rng.random(targets.shape) < 0.7

    def plain(forecast):
        normaliser = 3 * np.broadcast_to(weights, forecast.shape[1:]).sum()
        error = jnp.where((weights > 0) & observed, forecast - targets, 0)
        return jnp.sum(weights * jnp.square(error)) / normaliser

    def mse(forecast):
        return losses.create_loss("mse")(forecast, targets, weights, observed)

    want, got = jax.value_and_grad(plain)(forecast), jax.value_and_grad(mse)(forecast)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])


@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_best_forecast_by_pinball_is_the_quantile(level):
    targets = np.random.default_rng(4).normal(size=(1001, 1, 1, 1, 1))
    loss = losses.create_loss("pinball", level=level)
    candidates = np.linspace(-2, 2, 401)
    values = [loss(np.full_like(targets, x), targets, np.ones(1)) for x in candidates]
    best = candidates[np.argmin(values)]
    np.testing.assert_allclose(best, np.quantile(targets, level), atol=0.02)


@pytest.mark.parametrize(
    "name, options, slopes",
    [
        ("mae", {}, [-1, 0, 1]),
        ("huber", dict(delta=0.5), [-0.5, 0, 0.5]),
        ("pinball", dict(level=0.75), [-0.75, -0.25, 0.25]),
    ],
)
def test_slopes_below_at_and_above_the_target(name, options, slopes):
    forecast = np.array([-2.0, 0, 2], np.float32).reshape(3, 1, 1, 1, 1)
    loss = losses.create_loss(name, **options)
    gradient = jax.grad(loss)(forecast, np.zeros_like(forecast), np.ones(1))
    np.testing.assert_allclose(3 * gradient.ravel(), slopes, rtol=1e-6)
