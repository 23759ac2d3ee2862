"""Derivatives of every model in forward mode, against those in reverse mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.ops import forward_mode

INPUT = TARGET = (2, 4, 4, 1)
LSTM = dict(features=(2,), kernels=(3,), strides=(2,), up_kernels=(4,), stem_features=2)
PHYSICS = dict(phycell_features=(2,), phycell_kernel=3, phycell_groups=1)
# Shape of inputs and targets, and options.
SMALLEST = {
    "persistence": (INPUT, {}),
    "unet": (INPUT, dict(features=(2,), center_features=2)),
    "earthformer": (
        INPUT,
        dict(
            base_units=16,
            num_heads=1,
            enc_depth=(1, 1),
            dec_depth=(1, 1),
            enc_pattern="divided_st",
            dec_self_pattern="divided_st",
            num_global_vectors=1,
            stem_scale=(1, 1, 1),
        ),
    ),
    "conv_lstm": (INPUT, LSTM),
    "fa_conv_lstm": (INPUT, LSTM),
    "predrnn": (INPUT, dict(num_layers=1, features=2, kernel_size=3, patch=2)),
    "phydnet": (
        INPUT,
        dict(features=2, norm_groups=1, convcell_features=(2,), **PHYSICS),
    ),
    "e3d_lstm": (INPUT, dict(num_layers=1, features=2, patch=2, norm_epsilon=1e-3)),
    "rainformer": (
        (2, 16, 16, 1),
        dict(features=4, heads=(1, 1, 1, 1), head_dim=2, window=1),
    ),
    "conv_autoencoder": (INPUT, {}),
}


def numbers(like, seed):
    """Random arrays of the shapes of a tree."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(0.5 * random.normal(size=x.shape), x.dtype), like
    )


def dot(x, y):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, x, y)))


def assert_close(have, want):
    """To 1e-4 of the largest number of all arrays together."""
    have, want = (
        np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (have, want)
    )
    np.testing.assert_allclose(have, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("name", models.names())
def test_forward_mode(name):
    """First derivatives, and the Hessian times a vector, in inputs and parameters."""
    shape, options = SMALLEST[name]
    model = models.create_model(name, shape, shape, **options)
    inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), inputs))
    like = variables.pop("params", {}), inputs
    rest = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), variables)
    point, direction = numbers(like, 0), numbers(like, 1)

    def forecast(point):
        params, inputs = point
        return model.apply({"params": params, **rest}, inputs)

    def loss(point):
        return jnp.sum(jnp.sin(forecast(point)))

    @jax.jit
    def by_reverse(point):
        value, gradient = jax.value_and_grad(loss)(point)
        curved = jax.grad(lambda z: dot(jax.grad(loss)(z), direction))(point)
        return value, dot(gradient, direction), curved

    @jax.jit
    def by_forward(point):
        value, change = jax.jvp(loss, (point,), (direction,))
        return value, change, jax.jvp(jax.grad(loss), (point,), (direction,))[1]

    want = by_reverse(point)
    with forward_mode():
        have = by_forward(point)
    for x, y in zip(have, want, strict=True):
        assert_close(x, y)
