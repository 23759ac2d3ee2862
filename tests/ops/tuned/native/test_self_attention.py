"""Layers of cuboid self-attention in C++ equal those of JAX, with the same dropout."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.earthformer.cuboid_attention import CuboidSelfAttention
from earthformer_jax.models.earthformer.options import AttentionOptions
from earthformer_jax.ops import forward_mode
from earthformer_jax.ops.cuboid import CuboidSpec
from earthformer_jax.ops.tuned.hashed_key import hashed_key, key_words
from earthformer_jax.ops.tuned.native import calls, library
from earthformer_jax.ops.tuned.native import self_attention as native
from earthformer_jax.profiling.multiply_adds import multiply_adds
from tests.ops.tuned.native.comparing import (
    NEEDS_COMPILER,
    WAYS,
    check_on_two_devices,
    value_and_gradients,
)

pytestmark = NEEDS_COMPILER

GRID, CHANNELS = (4, 6, 6), 16
KEYS = hashed_key(jax.random.key(3)), hashed_key(jax.random.key(4))
LOCAL, DILATED = "lll", "ldd"
# Cut, heads and options of the layer.
CASES = {
    "time": (CuboidSpec((4, 1, 1), LOCAL, (0, 0, 0)), 4, {}),
    "height": (CuboidSpec((1, 6, 1), LOCAL, (0, 0, 0)), 2, {}),
    "shifted windows": (CuboidSpec((2, 3, 3), LOCAL, (1, 1, 1)), 1, {}),
    "dilated": (CuboidSpec((2, 2, 3), DILATED, (0, 0, 0)), 4, {}),
    "the whole field": (CuboidSpec(GRID, LOCAL, (0, 0, 0)), 4, {}),
    "one position": (CuboidSpec((1, 1, 1), LOCAL, (0, 0, 0)), 4, {}),
    "other order": (CuboidSpec((2, 3, 1), LOCAL, (0, 0, 0), order="htw"), 4, {}),
    "no bias": (
        CuboidSpec((1, 1, 6), LOCAL, (0, 0, 0)),
        4,
        dict(use_relative_pos=False, qk_scale=0.7),
    ),
}


def built(case, causal=False):
    """A layer, its parameters, none of them zero, and a field."""
    spec, heads, options = CASES[case]
    layer = CuboidSelfAttention(
        AttentionOptions(num_heads=heads, attn_drop=0.2, proj_drop=0.3, **options),
        spec=spec,
        causal=causal,
    )
    random = np.random.default_rng(0)
    x = jnp.asarray(random.normal(size=(2, *GRID, CHANNELS)), jnp.float32)
    params = layer.init(jax.random.key(0), x)
    noise = functools.partial(random.normal, scale=0.1)
    params = jax.tree.map(lambda p: p + noise(size=p.shape).astype(np.float32), params)
    return layer, params, x


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_as_in_jax(case, causal):
    layer, params, x = built(case, causal)

    def run(params, x):
        keys = {"dropout": jax.random.key(1)}
        return layer.apply(params, x, train=True, rngs=keys)[0]

    assert library.target("self_attention") in jax.jit(run).lower(params, x).as_text()
    found = value_and_gradients(run, params, x)
    with library.without():
        wanted = value_and_gradients(run, params, x)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    "change",
    [
        dict(use_final_proj=False),
        dict(qkv_bias=True),
        dict(norm="rms_norm"),
        dict(implementation="library", attn_drop=0.0),
        dict(dtype=jnp.bfloat16),
    ],
    ids=str,
)
def test_other_layers_are_left_to_jax(change):
    spec = CASES["time"][0]
    options = AttentionOptions(**dict(num_heads=4) | change)
    layer = CuboidSelfAttention(options, spec=spec)
    x = jnp.ones((1, *GRID, CHANNELS))
    params = layer.init(jax.random.key(0), x)

    def run(params, x):
        keys = {"dropout": jax.random.key(1)}
        return layer.apply(params, x, train=True, rngs=keys)[0]

    text = jax.jit(run).lower(params, x).as_text()
    assert library.target("self_attention") not in text


def test_padded_fields_and_global_vectors_are_left_to_jax():
    layer, params, x = built("time")
    target = library.target("self_attention")

    def text(*arrays, layer=layer):
        variables = layer.init(jax.random.key(0), *arrays)
        return jax.jit(layer.apply).lower(variables, *arrays).as_text()

    assert target in text(x)
    assert target not in text(x, jnp.ones((2, 3, 16)))
    padded = layer.clone(spec=CuboidSpec((1, 4, 4), LOCAL, (0, 0, 0)))
    assert target not in text(x, layer=padded)
    for context in (library.without, forward_mode):
        with context():
            assert target not in text(x)
    del params


def test_captured_weights_are_those_of_jax():
    layer, params, x = built("time")
    y, _ = layer.apply(params, x)
    (same, _), found = layer.apply(params, x, mutable=["intermediates"])
    assert jax.tree.leaves(found)
    np.testing.assert_allclose(y, same, atol=1e-5)


def arrays_of(heads=4):
    random = np.random.default_rng(0)

    def array(*shape, like=0.0):
        return jnp.asarray(like + 0.2 * random.normal(size=shape), jnp.float32)

    c = CHANNELS
    weights = native.Weights(
        scale=array(c, like=1.0),
        offset=array(c),
        qkv=array(c, 3 * c),
        proj=array(c, c),
        proj_bias=array(c),
        bias=array(heads, 4, 4),
    )
    options = native.Options(CASES["time"][0], heads, 0.5, 1e-5, 0.2, 0.3)
    return 5 * array(2, *GRID, c), weights, options


def test_second_derivatives():
    x, weights, options = arrays_of()

    def norm_of_gradient(function, x):
        found = jax.grad(lambda *y: jnp.sum(jnp.sin(function(*y))), (0, 1))(x, weights)
        return sum(jnp.sum(jnp.square(y)) for y in jax.tree.leaves(found))

    def in_cpp(x, weights):
        return native.self_attention(x, weights, options, key=KEYS[0], out_key=KEYS[1])

    def in_jax(x, weights):
        position = native._positions(GRID, options.spec)
        rows = x.reshape(len(x), -1, CHANNELS)
        rest = dict(
            position=position,
            mask=None,
            cuboid=jnp.arange(len(position), dtype=jnp.uint32),
            example=jnp.arange(len(x), dtype=jnp.uint32),
            words=key_words(KEYS[0]),
            out_words=key_words(KEYS[1]),
        )
        call = native._Call(options, 0, 0)
        arrays = rows, weights._replace(bias=weights.bias[None])
        return native._in_jax(call, arrays, rest).reshape(x.shape)

    def second(function):
        return jax.jit(jax.grad(functools.partial(norm_of_gradient, function)))(x)

    np.testing.assert_allclose(in_cpp(x, weights), in_jax(x, weights), atol=1e-5)
    np.testing.assert_allclose(second(in_cpp), second(in_jax), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("how", WAYS)
def test_on_two_devices(how):
    x, weights, options = arrays_of()
    drawn = {} if how == "shard_map" else dict(key=KEYS[0], out_key=KEYS[1])

    def layer(weights, x):
        return native.self_attention(x, weights, options, **drawn)

    check_on_two_devices(how, layer, weights, x)


def test_on_several_cores(monkeypatch):
    x, weights, options = arrays_of()
    drawn = dict(options=options, key=KEYS[0], out_key=KEYS[1])
    layer = functools.partial(native.self_attention, **drawn)
    wanted = value_and_gradients(layer, x, weights)
    monkeypatch.setattr(calls, "threads", lambda: 3)
    layer = functools.partial(native.self_attention, **drawn)
    found = value_and_gradients(layer, x, weights)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=2e-5)


def test_what_is_not_finite_stays_so():
    x, weights, options = arrays_of()
    x = x.at[0, 1, 2, 3, 4].set(jnp.nan)
    found = np.isnan(native.self_attention(x, weights, options))
    assert found[0, :, 2, 3].all()
    assert found.sum() == found[0, :, 2, 3].size


def test_products_are_counted():
    layer, params, x = built("time")
    count = multiply_adds(lambda p, x: layer.apply(p, x)[0], params, x)
    positions = x.size // CHANNELS
    assert count == positions * (4 * CHANNELS**2 + 2 * 4 * CHANNELS)


def test_other_shapes_are_refused():
    x, weights, options = arrays_of()
    for name in ("qkv", "proj_bias", "bias"):
        wrong = weights._replace(**{name: getattr(weights, name)[:-1]})
        with pytest.raises(ValueError, match=f"{name} has shape"):
            native.self_attention(x, wrong, options)
    with pytest.raises(ValueError, match="mask has shape"):
        native.self_attention(x, weights, options, mask=np.ones((1, 4, 4), bool))
