"""Derivatives of every model in forward mode, against those in reverse mode."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.ops import forward_mode

INPUT = TARGET = (2, 4, 4, 1)
LSTM = dict(features=(2,), kernels=(3,), strides=(2,), up_kernels=(4,), stem_features=2)
PHYSICS = dict(phycell_features=(9,), phycell_kernel=3, phycell_groups=3)
# Shape of inputs and targets, and options.
SMALLEST = {
    "persistence": (INPUT, {}),
    "unet": (INPUT, dict(features=(2,), center_features=2)),
    "earthformer": (
        INPUT,
        dict(
            base_units=16,
            num_heads=1,
            enc_depth=(1,),
            dec_depth=(1,),
            enc_pattern="full",
            dec_self_pattern="full",
            num_global_vectors=1,
            stem_scale=(1, 1, 1),
            stem_conv_layers=1,
            head_conv_layers=1,
        ),
    ),
    "earthformer_ar": (
        INPUT,
        dict(
            base_units=4,
            num_heads=1,
            enc_depth=(1,),
            dec_depth=(1,),
            enc_pattern="full",
            dec_self_pattern="full",
            num_global_vectors=0,
            codebook_size=4,
            factor=2,
            tokenizer_options=dict(features=4, code_width=2, blocks=0, frames=1),
        ),
    ),
    "conv_lstm": (INPUT, LSTM),
    "fa_conv_lstm": (INPUT, LSTM),
    "predrnn": (INPUT, dict(num_layers=1, features=2, kernel_size=3, patch=2)),
    "phydnet": (
        INPUT,
        dict(features=2, norm_groups=1, convcell_features=(4,), **PHYSICS),
    ),
    "e3d_lstm": (INPUT, dict(num_layers=1, features=2, patch=2, norm_epsilon=1e-3)),
    "rainformer": (
        INPUT,
        dict(features=8, factors=(2,), heads=(1,), head_dim=2, window=2),
    ),
    "conv_autoencoder": (
        INPUT,
        dict(features=2, embedding=4, plane_features=2, hidden=0, heads=2, harmonics=2),
    ),
    "vq_vae": (
        INPUT,
        dict(factor=2, codebook_size=4, code_width=2, features=4, blocks=1),
    ),
}


quickly_compiled = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def numbers(like, seed):
    """Random arrays of the shapes of a tree."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: jnp.asarray(0.5 * random.normal(size=x.shape), x.dtype), like
    )


def dot(x, y):
    return sum(jax.tree.leaves(jax.tree.map(jnp.vdot, x, y)))


def assert_close(have, want):
    """To 1e-3 of the largest number of all arrays together."""
    have, want = (
        np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (have, want)
    )
    np.testing.assert_allclose(have, want, rtol=0, atol=1e-3 * np.abs(want).max())


# Forward and reverse mode of these take longest to compile. Of `TRACED` only the rules
# are asked for: their numbers are those of layers and operations, which have tests.
SLOW = ("earthformer", "fa_conv_lstm")
TRACED = ("e3d_lstm", "phydnet", "rainformer", "earthformer_ar", "conv_autoencoder")
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in models.names()
    if name not in TRACED
]


# With a second derivative as well: all functions are JAX's own then, whose second
# derivatives need no test for each model.
TWICE = ("unet", "conv_lstm", "predrnn", "earthformer")


def loss_of(name):
    """A function of parameters and inputs, and their shapes."""
    shape, options = SMALLEST[name]
    model = models.create_model(name, shape, shape, **options)
    inputs = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), inputs))
    like = variables.pop("params", {}), inputs
    rest = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), variables)

    def loss(point):
        params, inputs = point
        return jnp.sum(jnp.sin(model.apply({"params": params, **rest}, inputs)))

    return loss, like


@pytest.mark.parametrize("name", TRACED)
def test_every_operation_has_a_rule_in_forward_mode(name):
    loss, like = loss_of(name)
    with forward_mode():
        out, change = jax.eval_shape(lambda x: jax.jvp(loss, (x,), (x,)), like)
    assert out.shape == change.shape == ()


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode(name):
    """First derivatives in inputs and parameters, and the Hessian times a vector."""
    loss, like = loss_of(name)
    point, direction = numbers(like, 0), numbers(like, 1)

    def along(point):
        return dot(jax.grad(loss)(point), direction)

    @quickly_compiled
    def tuned(point):
        value, gradient = jax.value_and_grad(loss)(point)
        return value, dot(gradient, direction)

    @quickly_compiled
    def plain(point):
        first = jax.jvp(loss, (point,), (direction,))
        if name not in TWICE:
            return first, None, None
        _, forward = jax.jvp(jax.grad(loss), (point,), (direction,))
        return first, forward, jax.grad(along)(point)

    want = tuned(point)
    with forward_mode():
        have, forward, reverse = plain(point)
    assert_close(have, want)
    if name in TWICE:
        assert_close(forward, reverse)
