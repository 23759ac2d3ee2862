"""Linear layers, GELU and layer norm against their plain forms."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from earthformer_jax.ops import dense


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def assert_same(have, want, *arguments):
    """Values and gradients, to 1e-5 of the largest."""

    def loss(function):
        return lambda *a: jnp.sum(jnp.sin(function(*a)))

    where = tuple(range(len(arguments)))
    results = [
        jax.jit(jax.value_and_grad(loss(f), where))(*arguments) for f in (have, want)
    ]
    chex.assert_trees_all_equal_shapes_and_dtypes(*results)
    for x, y in zip(*map(jax.tree.leaves, results), strict=True):
        scale = max(float(jnp.abs(y).max()), 1e-3)
        np.testing.assert_allclose(x, y, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("outputs", [3, 8, 20])
@pytest.mark.parametrize("with_bias", [False, True])
def test_dense(outputs, with_bias):
    x, kernel = numbers(2, 5, 8), numbers(8, outputs, seed=1)
    if not with_bias:
        assert_same(dense.dense, lambda x, k: x @ k, x, kernel)
        return
    bias = numbers(outputs, seed=2)
    assert_same(dense.dense, lambda x, k, b: x @ k + b, x, kernel, bias)


def test_gelu():
    x = jnp.linspace(-12, 12, 1001)
    assert_same(dense.gelu, lambda x: nn.gelu(x, approximate=False), x)


def test_layer_norm():
    x, scale, offset = numbers(2, 3, 7) + 5, numbers(7, seed=1), numbers(7, seed=2)

    def plain(x, scale, offset):
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale + offset

    assert_same(lambda *a: dense.layer_norm(*a, 1e-5), plain, x, scale, offset)


def test_layer_norm_of_half_precision_has_wide_statistics():
    x = (numbers(4, 64) + 100).astype(jnp.bfloat16)
    have = dense.layer_norm(x, jnp.ones(64), jnp.zeros(64), 1e-5)
    want = dense.layer_norm(x.astype(jnp.float32), jnp.ones(64), jnp.zeros(64), 1e-5)
    assert have.dtype == jnp.bfloat16
    np.testing.assert_allclose(have.astype(jnp.float32), want, atol=0.02)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 4), (2, 1, 3, 5, 4)])
def test_as_rows(shape):
    x = numbers(*shape)
    np.testing.assert_array_equal(dense.as_rows(x), x.reshape(-1, 4))


def test_recompute_of_functions_in_a_row_keeps_what_each_takes():
    def enter(x, kernel):
        return {"wide": jnp.tanh(x @ kernel)}

    def leave(y, kernel):
        return jnp.sin(y["wide"] * 2) @ kernel

    x, *kernels = numbers(2, 5, 4), numbers(4, 6, seed=1), numbers(6, 3, seed=2)
    ours = dense.recompute(enter, leave)
    assert_same(ours, lambda x, a, b: leave(enter(x, a), b), x, *kernels)
    _, residuals = jax.eval_shape(lambda *a: jax.vjp(ours, *a), x, *kernels)
    shapes = sorted(r.shape for r in jax.tree.leaves(residuals))
    assert shapes == [(2, 5, 4), (2, 5, 6), (4, 6), (6, 3)]


def test_recompute_keeps_only_its_arguments():
    def function(x, weights):
        return jnp.tanh(x @ weights["a"]) @ weights["b"]

    x = numbers(2, 5, 4)
    weights = {"a": numbers(4, 6, seed=1), "b": numbers(6, 3, seed=2)}
    assert_same(dense.recompute(function), function, x, weights)
    _, residuals = jax.eval_shape(
        lambda x, w: jax.vjp(dense.recompute(function), x, w), x, weights
    )
    shapes = sorted(r.shape for r in jax.tree.leaves(residuals))
    assert shapes == [(2, 5, 4), (4, 6), (6, 3)]


def test_recompute_with_a_seed_that_has_no_gradient():
    seed = jnp.array([1, 2], jnp.uint32)
    function = dense.recompute(lambda x, seed: x * seed[0].astype(jnp.float32))
    gradient = jax.grad(lambda x: function(x, seed).sum())(jnp.ones((2, 2, 2)))
    np.testing.assert_array_equal(gradient, jnp.ones((2, 2, 2)))


@pytest.mark.parametrize("value", [0.0, -3.0, np.inf, -np.inf])
def test_after_changes_nothing(value):
    x = numbers(2, 3)
    np.testing.assert_array_equal(dense.after(jnp.full((2, 4, 5), value), x), x)
