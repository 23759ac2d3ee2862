"""Normalisation over groups of channels."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from earthformer_jax.layers.norm import EPSILON, GroupNorm


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_as_that_of_flax(groups):
    random = np.random.default_rng(0)
    x = jnp.asarray(2 + random.normal(size=(2, 3, 4, 6)), jnp.float32)
    params = {
        "scale": jnp.asarray(random.normal(size=6), jnp.float32),
        "bias": jnp.asarray(random.normal(size=6), jnp.float32),
    }
    of_flax = nn.GroupNorm(groups, epsilon=EPSILON, use_fast_variance=False)

    def value_and_gradients(layer):
        def run(params, x):
            y = layer.apply({"params": params}, x)
            return jnp.sum(jnp.sin(y)), y

        return jax.value_and_grad(run, (0, 1), has_aux=True)(params, x)

    found, wanted = map(value_and_gradients, (GroupNorm(groups), of_flax))
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_float16_does_not_overflow():
    x = 200 * jnp.ones((1, 8, 8, 2), jnp.float16).at[:, 0].set(2)
    y, _ = GroupNorm(1).init_with_output(jax.random.key(0), x)
    assert y.dtype == jnp.float16
    np.testing.assert_allclose(np.asarray(y, np.float32).std(), 1, atol=1e-2)


def test_groups_that_do_not_divide_the_channels():
    with pytest.raises(ValueError, match="4 groups .* expected a divisor of the 6"):
        GroupNorm(4).init(jax.random.key(0), jnp.ones((1, 2, 2, 6)))


def test_any_number_of_examples():
    shape = jax.export.symbolic_shape("b, 2, 2, 4")
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    layer = GroupNorm(2)
    params = layer.init(jax.random.key(0), jnp.ones((1, 2, 2, 4)))
    jax.export.export(jax.jit(layer.apply))(params, x)
