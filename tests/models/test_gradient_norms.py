"""Gradients in bfloat16 have the size they should have, for every parameter."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from earthformer_jax import models
from earthformer_jax.models.rainformer import blocks
from tests.models import gradient_norms


def test_every_model_that_learns_is_in_the_table():
    assert {*gradient_norms.MODELS, "persistence"} == {*models.names()}
    shape = (gradient_norms.FRAMES, gradient_norms.SIDE, gradient_norms.SIDE, 1)
    for name, options in gradient_norms.MODELS.items():
        models.create_model(name, shape, shape, dtype="bfloat16", **options)


def check(leaves):
    assert len(leaves) > 10
    for leaf in leaves:
        assert abs(leaf.ratio - 1) < gradient_norms.TOLERANCE, leaf


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, exact", [("conv_lstm", False), ("predrnn", False), ("unet", True)]
)
def test_every_gradient(name, exact):
    check(gradient_norms.compare(name, number=2, exact=exact))


def test_sums_of_a_block_whose_gradient_jumps():
    """Attention over channels and positions of 4096 cells in all."""
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 16)).astype(jnp.bfloat16)
    with gradient_norms.without_jumps():
        init = functools.partial(blocks.CASA().init, train=True)
        variables = dict(gradient_norms.compiled(init)(jax.random.key(1), x))

        def gradient(params, dtype):
            def loss(params):
                y, _ = blocks.CASA(dtype=dtype).apply(
                    variables | {"params": params},
                    x.astype(dtype),
                    train=True,
                    mutable=["batch_stats"],
                )
                return jnp.square(y.astype(jnp.float32) - 0.5).sum()

            return gradient_norms.compiled(jax.grad(loss))(params)

        low = gradient(variables["params"], jnp.bfloat16)
        wanted = gradient(variables["params"], jnp.float32)
    for have, want in zip(jax.tree.leaves(low), jax.tree.leaves(wanted), strict=True):
        ratio = jnp.linalg.norm(have) / jnp.linalg.norm(want)
        assert abs(ratio - 1) < gradient_norms.TOLERANCE
    x = jnp.ones((1, 2, 3))
    for smooth in (True, False):
        with gradient_norms.without_jumps() if smooth else contextlib.nullcontext():
            slopes = jax.grad(lambda x: blocks.maximum(x, 1).sum())(x)
            assert slopes[0, 1, 0] == (0.5 if smooth else 0)
            assert jax.grad(nn.relu)(0.0) == (0.5 if smooth else 0)
