"""Functions in sequence; only their inputs are kept for the gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.tuned.recompute import recompute


def numbers(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def kept_shapes(function, *arguments):
    _, residuals = jax.eval_shape(lambda *a: jax.vjp(function, *a), *arguments)
    return sorted(r.shape for r in jax.tree.leaves(residuals))


def test_it_keeps_what_each_function_takes():
    def enter(x, kernel):
        return {"wide": jnp.tanh(x @ kernel)}

    def leave(y, kernel):
        return jnp.sin(y["wide"] * 2) @ kernel

    x, *kernels = numbers(2, 5, 4), numbers(4, 6, seed=1), numbers(6, 3, seed=2)
    shapes = kept_shapes(lambda x, w: recompute.tuned((enter, leave), x, w), x, kernels)
    assert shapes == [(2, 5, 4), (2, 5, 6), (4, 6), (6, 3)]


def test_one_function_keeps_only_its_arguments():
    def function(x, weights):
        return jnp.tanh(x @ weights["a"]) @ weights["b"]

    weights = {"a": numbers(4, 6, seed=1), "b": numbers(6, 3, seed=2)}
    shapes = kept_shapes(
        lambda x, w: recompute.tuned((function,), x, [w]), numbers(2, 5, 4), weights
    )
    assert shapes == [(2, 5, 4), (4, 6), (6, 3)]


def test_weights_without_a_gradient():
    """Random keys are weights too."""
    key = jax.random.key(0)

    def function(x, key):
        return x * jax.random.uniform(key)

    for run in (recompute.tuned, recompute.plain):
        gradient = jax.grad(lambda x, run=run: run((function,), x, (key,)).sum())
        want = jnp.full((2, 2, 2), jax.random.uniform(key))
        np.testing.assert_allclose(gradient(jnp.ones((2, 2, 2))), want, rtol=1e-6)
