"""What all functions in C++ take and return."""

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax.layers.convolution import Conv
from earthformer_jax.layers.feed_forward import FeedForward
from earthformer_jax.models.earthformer.cuboid_attention import CuboidSelfAttention
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.models.earthformer.stem import ConvLayers
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.tuned.native import calls, library
from tests.ops.tuned.native.comparing import NEEDS_COMPILER

pytestmark = NEEDS_COMPILER

SHAPE = (1, 2, 4, 4, 16)
# Without biases, masks and dropout: what is not there is an array without elements.
PLAIN = AttentionOptions(num_heads=2, use_relative_pos=False)
CUBOIDS = CuboidSpec((2, 1, 1))
LAYERS = {
    "attention": (CuboidSelfAttention(PLAIN, CUBOIDS), (1, 3, 16)),  # global vectors
    "self_attention": (CuboidSelfAttention(PLAIN, CUBOIDS), None),
    "feed_forward": (FeedForward(), None),
    "convolution": (Conv(16, (3, 3), use_bias=False), None),
    "group_norm": (ConvLayers(16, 1, 4, "leaky"), None),
}


@pytest.mark.parametrize("name", LAYERS)
def test_float32_where_float64_is_allowed(name):
    layer, more = LAYERS[name]
    x = jnp.linspace(-1, 1, 512, dtype=jnp.float32).reshape(SHAPE)
    arguments = x, *([] if more is None else [jnp.ones(more, jnp.float32)])
    params = layer.init(jax.random.key(0), *arguments)

    def loss(params, *arguments):
        return jnp.sum(jax.tree.leaves(layer.apply(params, *arguments))[0] ** 2)

    wanted = jax.jit(jax.grad(loss))(params, *arguments)
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(loss))
        text = gradient.lower(params, *arguments).as_text()
        assert library.target(name) in text
        found = gradient(params, *arguments)
    for x, y in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        assert x.dtype == jnp.float32
        assert jnp.allclose(x, y, rtol=1e-5, atol=1e-5)


def test_all_devices_at_once_on_more_threads_than_there_are(monkeypatch):
    """Threads that all wait for shares of their calls still get them done."""
    monkeypatch.setattr(calls, "threads", lambda: 8)
    layer = ConvLayers(16, 2, 4, "leaky")
    x = jnp.linspace(-1, 1, 8 * 2 * 256 * 16).reshape(8, 2, 16, 16, 16)
    params = layer.init(jax.random.key(0), x)
    mesh = jax.sharding.Mesh(jax.devices()[:4], "data")
    divided = jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))
    apply = jax.jit(layer.apply)
    wanted = apply(params, x)
    for found in [apply(params, divided) for _ in range(20)]:
        assert jnp.allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_what_none_stands_for():
    assert calls.given(None).shape == (0,)
    assert calls.given(None, jnp.uint32).dtype == jnp.uint32
    assert calls.suit(jnp.ones(2), None)
    assert not calls.suit(jnp.ones(2), jnp.ones(2, jnp.bfloat16))
    assert not calls.suit(jnp.ones((0, 2)))
