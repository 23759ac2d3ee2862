"""The feed-forward layer in C++ equals that of JAX, with the same elements dropped."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.feed_forward import FeedForward, FeedForwardOptions
from earthformer_jax.ops import forward_mode
from earthformer_jax.ops.tuned.hashed_key import hashed_key
from earthformer_jax.ops.tuned.native import calls, library
from earthformer_jax.ops.tuned.native import feed_forward as native
from earthformer_jax.profiling.multiply_adds import multiply_adds
from tests.ops.tuned.native.comparing import (
    NEEDS_COMPILER,
    WAYS,
    check_on_two_devices,
    value_and_gradients,
)

pytestmark = NEEDS_COMPILER

KEYS = hashed_key(jax.random.key(3)), hashed_key(jax.random.key(4))
# Shape of the field and hidden channels: of whole blocks and panels, and not.
SIZES = {
    "a few rows": ((2, 1, 3, 16), 32),
    "several blocks": ((2, 3, 50, 16), 48),
    "several panels": ((2, 4, 4, 80), 160),
}


def arguments(shape, hidden):
    random = np.random.default_rng(0)
    c = shape[-1]

    def array(*shape, like=0.0):
        return jnp.asarray(like + 0.1 * random.normal(size=shape), jnp.float32)

    weights = native.Weights(
        scale=array(c, like=1.0),
        offset=array(c),
        widen=array(c, hidden),
        widen_bias=array(hidden),
        narrow=array(hidden, c),
        narrow_bias=array(c),
    )
    return 10 * array(*shape), weights


def in_jax(x, weights, *, epsilon, rate=0.0, keys=(None, None)):
    """The layer as it is without C++."""
    options = FeedForwardOptions(hidden=len(weights.widen_bias), dropout=rate)
    del epsilon, keys
    names = dict(
        norm=("scale", "bias"), ffn_1=("kernel", "bias"), ffn_2=("kernel", "bias")
    )
    values = iter(weights)
    params = {k: {name: next(values) for name in own} for k, own in names.items()}
    with library.without():
        return jnp.asarray(FeedForward(options).apply({"params": params}, x))


@pytest.mark.parametrize("size", SIZES)
def test_as_in_jax(size):
    x, weights = arguments(*SIZES[size])
    assert native.suits(x, weights)
    found = value_and_gradients(
        functools.partial(native.feed_forward, epsilon=1e-5), x, weights
    )
    wanted = value_and_gradients(functools.partial(in_jax, epsilon=1e-5), x, weights)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("size", ["a few rows", "several blocks"])
def test_what_is_dropped(size):
    x, weights = arguments(*SIZES[size])
    layer = FeedForward(FeedForwardOptions(hidden=len(weights.widen_bias), dropout=0.3))
    params = layer.init(jax.random.key(0), x)

    def run(params, x):
        key = {"dropout": jax.random.key(1)}
        return layer.apply(params, x, train=True, rngs=key)

    found = value_and_gradients(run, params, x)
    with library.without():
        wanted = value_and_gradients(run, params, x)
    chex.assert_trees_all_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_used_by_the_layer():
    layer = FeedForward(FeedForwardOptions(hidden=32))
    x = jnp.ones((1, 2, 3, 16))
    params = layer.init(jax.random.key(0), x)

    def text(**options):
        layer = FeedForward(FeedForwardOptions(hidden=32, **options))
        return jax.jit(layer.apply).lower(params, x).as_text()

    target = library.target("feed_forward")
    assert target in text()
    assert target not in text(activation="relu")
    for context in (library.without, forward_mode):
        with context():
            assert target not in text()


@pytest.mark.parametrize(
    ("shape", "hidden", "dtype"),
    [
        ((1, 2, 12), 32, jnp.float32),
        ((1, 2, 16), 24, jnp.float32),
        ((2, 16), 32, jnp.float32),
        ((0, 2, 16), 32, jnp.float32),
        ((1, 2, 16), 32, jnp.bfloat16),
    ],
)
def test_what_does_not_suit(shape, hidden, dtype):
    x, weights = arguments(shape, hidden)
    assert not native.suits(x.astype(dtype), weights)


def test_what_is_not_finite_stays_so():
    x, weights = arguments((1, 1, 3, 16), 32)
    x = x.at[0, 0, 1, 2].set(jnp.nan)
    found = native.feed_forward(x, weights, epsilon=1e-5)
    assert np.isnan(found[0, 0, 1]).all()
    assert np.isfinite(found[0, 0, 0]).all()


def test_far_from_zero():
    """GELU where its distribution function is 0 or 1 up to rounding."""
    x, weights = arguments((1, 1, 40, 16), 32)
    weights = weights._replace(widen_bias=jnp.linspace(-60, 60, 32))
    found = native.feed_forward(x, weights, epsilon=1e-5)
    np.testing.assert_allclose(
        found, in_jax(x, weights, epsilon=1e-5), rtol=1e-5, atol=1e-4
    )


def test_second_derivatives():
    x, weights = arguments((1, 2, 3, 16), 16)
    options = dict(epsilon=1e-5, rate=0.2, keys=KEYS)

    def norm_of_gradient(function, x):
        found = jax.grad(lambda *y: jnp.sum(jnp.sin(function(*y))), (0, 1))(x, weights)
        return sum(jnp.sum(jnp.square(y)) for y in jax.tree.leaves(found))

    def plain(x, weights):
        words = [native.key_words(key) for key in KEYS]
        rest = jnp.arange(1, dtype=jnp.uint32), *words
        rows = x.reshape(1, -1, 16)
        call = native._Call(1e-5, 0.2, 6 * 16, 6 * 16)
        return native._in_jax(call, (rows, weights), rest).reshape(x.shape)

    def second(function):
        return jax.jit(jax.grad(functools.partial(norm_of_gradient, function)))(x)

    found = second(functools.partial(native.feed_forward, **options))
    chex.assert_trees_all_close(found, second(plain), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", WAYS)
def test_on_two_devices(how):
    x, weights = arguments((2, 2, 3, 16), 32)
    dropped = {} if how == "shard_map" else dict(rate=0.3, keys=KEYS)

    def layer(weights, x):
        return native.feed_forward(x, weights, epsilon=1e-5, **dropped)

    check_on_two_devices(how, layer, weights, x)


def test_on_several_cores(monkeypatch):
    x, weights = arguments(*SIZES["several blocks"])
    options = dict(epsilon=1e-5, rate=0.2, keys=KEYS)
    wanted = value_and_gradients(
        functools.partial(native.feed_forward, **options), x, weights
    )
    monkeypatch.setattr(calls, "threads", lambda: 3)
    found = value_and_gradients(
        functools.partial(native.feed_forward, **options), x, weights
    )
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=2e-5)


def test_products_are_counted():
    x, weights = arguments((1, 2, 3, 16), 32)
    layer = FeedForward(FeedForwardOptions(hidden=len(weights.widen_bias)))
    params = layer.init(jax.random.key(0), x)
    assert multiply_adds(layer.apply, params, x) == 2 * 6 * 16 * 32


def test_other_shapes_are_refused():
    x, weights = arguments((1, 2, 3, 16), 32)
    wrong = weights._replace(widen_bias=jnp.ones(31))
    with pytest.raises(ValueError, match="widen_bias has shape"):
        native.feed_forward(x, wrong, epsilon=1e-5)
    with pytest.raises(ValueError, match="x has shape"):
        native.feed_forward(x[..., :8], weights, epsilon=1e-5)
