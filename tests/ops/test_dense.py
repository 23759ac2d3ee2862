"""Linear layers, GELU and layer normalisation against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from earthformer_jax.ops.dense import dense
from earthformer_jax.ops.devices import split
from earthformer_jax.ops.gelu import gelu
from earthformer_jax.ops.norm import layer_norm
from earthformer_jax.ops.tuned.dense import dense as tuned_dense
from earthformer_jax.ops.tuned.norm import layer_norm as tuned_layer_norm

AUTO = jax.sharding.AxisType.Auto


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def test_dense():
    x, kernel, bias = numbers(2, 5, 8), numbers(8, 3, seed=1), numbers(3, seed=2)
    np.testing.assert_allclose(dense(x, kernel), x @ kernel, atol=1e-5)
    np.testing.assert_allclose(dense(x, kernel, bias), x @ kernel + bias, atol=1e-5)


@pytest.mark.parametrize("function", [dense, tuned_dense])
def test_a_field_that_comes_and_goes_in_different_parts(function):
    """Split along its width before, along its height after, and by examples as well."""
    mesh = jax.make_mesh((2, 2), ("data", "space"), axis_types=(AUTO, AUTO))
    x, kernel = numbers(4, 2, 4, 4, 8), numbers(8, 16, seed=1)

    def loss(kernel, x):
        y = function(split.split_along(jnp.tanh(x), 3), kernel)
        return jnp.sum(jnp.square(split.split_along(y, 2)))

    gradient = jax.jit(jax.grad(loss))
    want = gradient(kernel, x)
    x = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data", None, "space")))
    kernel = jax.device_put(kernel, jax.NamedSharding(mesh, jax.P()))
    np.testing.assert_allclose(gradient(kernel, x), want, rtol=1e-5, atol=1e-3)


def test_gelu():
    x = np.linspace(-12, 12, 1001, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), x * scipy.stats.norm.cdf(x), atol=1e-5)


def test_layer_norm():
    x = np.asarray(numbers(2, 3, 7) + 5, np.float64)
    scale, offset = numbers(7, seed=1), numbers(7, seed=2)
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    want = (x - mean) / np.sqrt(variance + 1e-2) * scale + offset
    have = layer_norm(jnp.float32(x), scale, offset, 1e-2)
    np.testing.assert_allclose(have, want, atol=1e-5)


@pytest.mark.parametrize("function", [layer_norm, tuned_layer_norm])
def test_statistics_of_half_precision_are_wide(function):
    x = (numbers(4, 64) + 100).astype(jnp.bfloat16)
    have = function(x, jnp.ones(64), jnp.zeros(64), 1e-5)
    want = function(x.astype(jnp.float32), jnp.ones(64), jnp.zeros(64), 1e-5)
    assert have.dtype == jnp.bfloat16
    np.testing.assert_allclose(have.astype(jnp.float32), want, atol=0.02)
