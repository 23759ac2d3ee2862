"""Batch normalisation: its formula, its running statistics, its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.batch_norm import BatchNorm


@pytest.fixture
def field():
    rng = np.random.default_rng(0)
    return (rng.normal(size=(2, 3, 4, 5)) * 3 + 2).astype(np.float32)


@pytest.fixture
def variables():
    rng = np.random.default_rng(1)
    draw = {k: rng.uniform(0.5, 2, 5).astype(np.float32) for k in "sbmv"}
    return {
        "params": {"scale": draw["s"], "bias": draw["b"]},
        "batch_stats": {"mean": draw["m"], "var": draw["v"]},
    }


def formula(x, mean, var, params, epsilon=1e-3):
    y = (x.astype(np.float64) - mean) / np.sqrt(var + epsilon)
    return y * params["scale"] + params["bias"]


def test_begins_as_the_identity_of_standardised_fields(field):
    v = BatchNorm().init(jax.random.key(0), field)
    assert jax.tree.map(np.shape, v) == {
        "params": {"scale": (5,), "bias": (5,)},
        "batch_stats": {"mean": (5,), "var": (5,)},
    }
    y = BatchNorm().apply(v, field)
    np.testing.assert_allclose(y, field / np.sqrt(1.001), rtol=1e-6)


def test_a_forecast_uses_running_statistics(field, variables):
    y = BatchNorm().apply(variables, field)
    want = formula(field, **variables["batch_stats"], params=variables["params"])
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    one = BatchNorm().apply(variables, field[:1])
    np.testing.assert_array_equal(one, y[:1])


def test_training_uses_and_keeps_those_of_the_batch(field, variables):
    layer = BatchNorm(momentum=0.9)
    y, after = layer.apply(variables, field, train=True, mutable="batch_stats")
    mean, var = field.mean((0, 1, 2)), field.var((0, 1, 2))
    want = formula(field, mean, var, variables["params"])
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    before, after = variables["batch_stats"], after["batch_stats"]
    want = 0.9 * before["mean"] + 0.1 * mean
    np.testing.assert_allclose(after["mean"], want, rtol=1e-6)
    unbiased = field.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(
        after["var"], 0.9 * before["var"] + 0.1 * unbiased, rtol=1e-6
    )


def test_a_single_value_has_no_variance(variables):
    x = jnp.ones((1, 5))
    y, after = BatchNorm().apply(variables, x, train=True, mutable="batch_stats")
    np.testing.assert_allclose(y, variables["params"]["bias"][None], atol=1e-6)
    want = 0.99 * variables["batch_stats"]["var"]
    np.testing.assert_allclose(after["batch_stats"]["var"], want, rtol=1e-6)


def test_a_constant_added_to_the_input_has_no_gradient_in_training(field, variables):
    def loss(shift):
        y, after = BatchNorm().apply(
            variables, field + shift, train=True, mutable="batch_stats"
        )
        return jnp.sum(y**3) + sum(map(jnp.sum, jax.tree.leaves(after)))

    np.testing.assert_allclose(jax.grad(loss)(jnp.ones(5)), 0, atol=1e-3)


def test_types(field, variables):
    y, after = BatchNorm().apply(
        variables, field.astype(jnp.bfloat16), train=True, mutable="batch_stats"
    )
    assert y.dtype == jnp.bfloat16
    assert after["batch_stats"]["var"].dtype == jnp.float32
    y = BatchNorm(dtype=jnp.bfloat16).apply(variables, field)
    assert y.dtype == jnp.bfloat16
