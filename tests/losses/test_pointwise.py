"""Losses of single cells against loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import losses

VALUES = {
    "mse": lambda error, _: error**2,
    "mae": lambda error, _: abs(error),
}


@pytest.mark.parametrize("name", VALUES)
def test_numpy_loop(name):
    rng = np.random.default_rng(0)
    forecast, targets = rng.normal(size=(2, 3, 2, 4, 5, 1)).astype(np.float32)
    weights = rng.uniform(size=(2, 4, 5, 1)).astype(np.float32)
    weights[0, :2] = 0
    observed = rng.random(targets.shape) < 0.7
    total = norm = 0.0
    for b, t, h, w in np.ndindex(3, 2, 4, 5):
        x, y = forecast[b, t, h, w, 0], targets[b, t, h, w, 0]
        if observed[b, t, h, w, 0]:
            total += weights[t, h, w, 0] * VALUES[name](x - y, y)
        norm += weights[t, h, w, 0]
    loss = losses.create_loss(name)(forecast, targets, weights, observed)
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
