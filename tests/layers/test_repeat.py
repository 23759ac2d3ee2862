"""Equal blocks as a loop: the same parameters, values and gradients."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.earthformer.model import Earthformer
from tests.variables import drawn

SHAPE = (2, 4, 4, 1)


def small(**options):
    return Earthformer(
        input_shape=SHAPE,
        target_shape=SHAPE,
        base_units=16,
        num_heads=2,
        stem_scale=(1, 1, 1),
        stem_conv_layers=1,
        enc_depth=(2,),
        dec_depth=(2,),
        dec_use_first_self_attn=True,
        enc_pattern="full",
        dec_self_pattern="full",
        num_global_vectors=2,
        use_dec_self_global=True,
        use_dec_cross_global=True,
        **options,
    )


@pytest.fixture(scope="module")
def variables():
    return drawn(small().init, jnp.zeros((1, *SHAPE)))


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(1), (2, *SHAPE))


@pytest.mark.slow
def test_the_parameters_are_those_of_the_blocks(variables):
    loop = small(scan_blocks=True)
    shapes = jax.eval_shape(loop.init, jax.random.key(0), jnp.zeros((1, *SHAPE)))
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, variables)


@pytest.mark.slow
def test_values_and_gradients(variables, inputs):
    def loss(variables, model):
        return jnp.square(model.apply(variables, inputs)).sum()

    value, gradient = jax.jit(jax.value_and_grad(loss), static_argnums=1)(
        variables, small()
    )
    of_loop = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    looped, looped_gradient = of_loop(variables, small(scan_blocks=True))
    np.testing.assert_allclose(looped, value, rtol=1e-5)
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient))
    chex.assert_trees_all_close(looped_gradient, gradient, atol=1e-5 * largest)


@pytest.mark.slow
def test_blocks_draw_dropout_of_their_own(variables, inputs):
    model = small(scan_blocks=True)

    @jax.jit
    def forecast(key):
        return model.apply(variables, inputs, train=True, rngs={"dropout": key})

    first, again, other = (forecast(jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_the_program_does_not_grow_with_the_depth(inputs):
    def size(depth):
        model = small(scan_blocks=True).clone(enc_depth=(depth,))
        variables = jax.eval_shape(model.init, jax.random.key(0), inputs)
        lowered = jax.jit(model.apply).lower(variables, inputs).as_text()
        return sum(lowered.count(op) for op in ("dot_general", "exponential"))

    assert size(2) == size(4)
