"""Linear layers, GELU and layer normalisation against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from earthformer_jax.ops.attention import relative_position_bias
from earthformer_jax.ops.dense import add, dense, multiply, repeat_to
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


def of_bias(x, b):
    return add(x, b)


def of_two(x, b):
    return add(x, x, b)


def of_factor(x, b):
    return multiply(x, b)


def of_dense(x, b):
    return dense(x, jnp.eye(8, dtype=x.dtype), b)


def of_repeated(x, b):
    return repeat_to(b.astype(x.dtype), x.shape)


@pytest.mark.parametrize(
    "function", [of_bias, of_two, of_factor, of_dense, of_repeated]
)
def test_gradients_of_half_precision_are_summed_in_float32(function):
    """Sums over 2^16 positions; in bfloat16, 1 + 2^-8 = 1."""
    x = (numbers(1024, 64, 8) + 1).astype(jnp.bfloat16)
    dy = (numbers(1024, 64, 8, seed=1) + 1).astype(jnp.bfloat16)
    shared = numbers(8, seed=2).astype(jnp.bfloat16).astype(jnp.float32)

    def gradient(x, dy):
        y, pull = jax.vjp(lambda b: function(x, b), shared)
        return y, pull(dy)[0]

    have = jax.jit(gradient)(x, dy)
    want = jax.jit(gradient)(x.astype(jnp.float32), dy.astype(jnp.float32))
    assert have[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(have[1], want[1], rtol=5e-3)
    np.testing.assert_allclose(have[0].astype(jnp.float32), want[0], rtol=1e-2)


def test_the_gradient_of_a_narrow_table_of_biases_is_summed_in_float32():
    index = np.arange(2**14).reshape(128, 128) % 4

    def gradient(table):
        bias, pull = jax.vjp(lambda t: relative_position_bias(t, index), table)
        assert bias.dtype == jnp.float32
        return pull(jnp.ones_like(bias))[0]

    have = jax.jit(gradient)(jnp.zeros((4, 2), jnp.bfloat16))
    np.testing.assert_array_equal(have.astype(jnp.float32), 2**12)


def test_nothing_changes_in_float32():
    def change(x, b):
        return repeat_to(multiply(add(x, x, b), b), (2, 5, 8))

    def plain(x, b):
        return jnp.broadcast_to((x + x + b) * b, (2, 5, 8))

    arguments = numbers(5, 8), numbers(8, seed=1)
    assert str(jax.make_jaxpr(change)(*arguments)) == str(
        jax.make_jaxpr(plain)(*arguments)
    )
