"""Gradients of layers in bfloat16 against those in float32, on many positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from earthformer_jax.layers.axial_attention import AxialAttention
from earthformer_jax.layers.convolution import Conv, ConvTranspose, FrameConv
from earthformer_jax.layers.dense import Dense, Linear
from earthformer_jax.layers.embedding import PositionEmbedding
from earthformer_jax.layers.loop_conv import LoopConv
from earthformer_jax.layers.norm import LayerNorm
from earthformer_jax.layers.resample import Upsample
from tests.models.test_forward_mode import quickly_compiled

FRAMES = 4, 8, 16, 16, 4
PLANES = 32, 16, 16, 4
LAYERS = {
    "dense": (Dense, dict(features=3), FRAMES),
    "linear": (Linear, dict(features=3), FRAMES),
    "linear over two axes": (Linear, dict(features=3, axes=2), FRAMES),
    "conv": (Conv, dict(features=3, kernel_size=(3, 3)), FRAMES),
    "transposed": (
        ConvTranspose,
        dict(features=3, kernel_size=(2, 2), strides=(2, 2)),
        PLANES,
    ),
    "frames": (FrameConv, dict(features=3), FRAMES),
    "loop": (LoopConv, dict(features=3, stride=2), PLANES),
    "upsample": (Upsample, dict(features=3, plane=(32, 32)), FRAMES),
    "positions": (PositionEmbedding, dict(max_grid=FRAMES[1:4]), FRAMES),
    "plane": (PositionEmbedding, dict(max_grid=FRAMES[1:4], kind="t+hw"), FRAMES),
    "norm": (LayerNorm, {}, FRAMES),
}


def _rounded(x):
    return jnp.asarray(x, jnp.bfloat16).astype(jnp.float32)


def gradient(layer, params, x, dy):
    def loss(params):
        y = layer.apply({"params": params}, x)
        return jnp.sum(y.astype(jnp.float32) * dy)

    return quickly_compiled(jax.grad(loss))(params)


@pytest.mark.parametrize("name", LAYERS)
def test_sums(name):
    kind, options, shape = LAYERS[name]
    layer = kind(**options)
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=shape) + 1, jnp.bfloat16)
    wide = x.astype(jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), wide)
    params = jax.tree.map(
        lambda p: jnp.asarray(random.normal(size=p.shape), jnp.bfloat16).astype(
            p.dtype
        ),
        variables["params"],
    )
    y = jax.eval_shape(layer.apply, {"params": params}, wide)
    dy = _rounded(random.normal(size=y.shape) + 1)
    low = layer.clone(dtype=jnp.bfloat16)
    assert low.apply({"params": params}, x).dtype == jnp.bfloat16
    have = gradient(low, params, x, dy)
    want = gradient(layer, params, wide, dy)
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        assert jnp.linalg.norm((a - b).ravel()) < 0.01 * jnp.linalg.norm(b.ravel())


def test_gain_of_axial_attention():
    layer = AxialAttention(heads=1, features=4)
    x = jax.random.normal(jax.random.key(0), (64, 8, 8, 4)).astype(jnp.bfloat16)
    params = layer.init(jax.random.key(1), x.astype(jnp.float32))["params"]
    dy = jnp.ones(x.shape)
    have, want = (
        gradient(layer, params, y, dy)["rows"]["gain"]
        for y in (x, x.astype(jnp.float32))
    )
    assert jnp.linalg.norm(have - want) < 0.03 * jnp.linalg.norm(want)


@pytest.mark.parametrize("layer", [Conv(3, (3, 3), (2, 2)), ConvTranspose(3, (2, 2))])
def test_convolutions_are_those_of_flax(layer):
    twin = getattr(nn, type(layer).__name__)(3, layer.kernel_size, layer.strides)
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
    variables = layer.init(jax.random.key(1), x)
    jax.tree.map(
        np.testing.assert_array_equal, variables, twin.init(jax.random.key(1), x)
    )
    np.testing.assert_array_equal(layer.apply(variables, x), twin.apply(variables, x))


def test_linear_is_that_of_flax():
    layer = Linear(3, axes=2, kernel_init=nn.initializers.glorot_uniform())
    twin = nn.DenseGeneral(3, axis=(-2, -1), kernel_init=layer.kernel_init)
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 4))
    variables = layer.init(jax.random.key(1), x)
    jax.tree.map(
        np.testing.assert_array_equal, variables, twin.init(jax.random.key(1), x)
    )
    np.testing.assert_array_equal(layer.apply(variables, x), twin.apply(variables, x))
