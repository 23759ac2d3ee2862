"""Devices that share the examples exchange gradients of the parameters, nothing larger.

Gradients of tables by relative position, of position embeddings and of the decoder's
first state are sums over all examples of arrays that are larger than the parameters.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.embedding import PositionEmbedding
from earthformer_jax.models.earthformer.cuboid_attention import (
    CuboidCrossAttention,
    CuboidSelfAttention,
)
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.patterns import CrossSpec
from earthformer_jax.profiling.communication import collectives

DEVICES, GRID, FEATURES = 4, (3, 4, 6), 8
OPTIONS = AttentionOptions(num_heads=2)
LAYERS = {
    "self": CuboidSelfAttention(OPTIONS, CuboidSpec((3, 4, 6))),
    "cross": CuboidCrossAttention(OPTIONS, CrossSpec((4, 6)), 6),
    "plane": PositionEmbedding(GRID, "t+hw"),
    "axes": PositionEmbedding(GRID, "t+h+w"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_exchanged_in_the_shape_of_parameters(name):
    layer = LAYERS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=(8, *GRID, FEATURES)).astype(np.float32)

    def fields(x):
        return (x, x[:, ::-1]) if name == "cross" else (x,)

    def loss(params, x):
        y = layer.apply({"params": params}, *fields(x))
        return jnp.mean(jnp.square(jax.tree.leaves(y)[0] - 1))

    params = jax.jit(layer.init)(jax.random.key(0), *fields(x))["params"]
    step = jax.jit(jax.value_and_grad(loss))
    want = step(params, x)
    mesh = jax.make_mesh(
        (DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    laid_out = (
        jax.device_put(params, jax.NamedSharding(mesh, jax.P())),
        jax.device_put(x, jax.NamedSharding(mesh, jax.P("data"))),
    )
    program = step.lower(*laid_out).compile()
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6),
        program(*laid_out),
        want,
    )
    found = collectives(program.as_text() or "", DEVICES)
    assert {one.kind for one in found} == {"all-reduce"}
    parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(one.bytes for one in found) <= 4 * (parameters + 1)
