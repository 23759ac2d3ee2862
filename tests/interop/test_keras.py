"""Weights of ConvLSTM2D both ways, and the layer against Keras if it is installed."""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import keras as interop
from earthformer_jax.models.recurrent import ConvLSTM

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:keras")


@pytest.fixture(scope="module")
def keras():
    """Keras 3 on JAX."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    module = pytest.importorskip("keras", minversion="3.0")
    if module.backend.backend() != "jax":
        pytest.skip("Keras runs on another backend than JAX here")
    return module


def draw(*shape, seed=0, scale=1.0):
    random = np.random.default_rng(seed)
    return (scale * random.normal(size=shape)).astype(np.float32)


def compare(keras, tolerance=1e-5, call=None, unroll=False, **options):
    """Both layers with the same weights on the same frames; the largest error."""
    options = dict(filters=3, return_state=True) | options
    x = draw(2, 3, 8, 9, 2)
    if options.get("data_format") == "channels_first":
        x = np.moveaxis(x, -1, 2)
    theirs = keras.layers.ConvLSTM2D(unroll=unroll, **options)
    theirs.build(x.shape)
    weights = [draw(*w.shape, seed=i, scale=0.4) for i, w in enumerate(theirs.weights)]
    theirs.set_weights(weights := weights[: len(theirs.get_weights())])
    want = theirs(x, **call or {})
    have = ConvLSTM(**options).apply(interop.conv_lstm_params(weights), x, **call or {})
    for h, w in zip(have, want, strict=True):
        assert h.shape == w.shape
        np.testing.assert_allclose(h, w, atol=tolerance)


GRID = [
    dict(kernel_size=k, strides=s, padding=p, dilation_rate=d, return_sequences=r)
    for (k, s, p, d), r in zip(
        itertools.product((1, 2, 3, (3, 5)), (1, 2, (3, 1)), ("valid", "same"), (1, 2)),
        itertools.cycle((True, False)),
    )
    if s == 1 or d == 1
]


@pytest.mark.parametrize("options", GRID[::3], ids=str)
def test_grid(keras, options):
    compare(keras, **options)


@pytest.mark.slow
@pytest.mark.parametrize("options", [g for g in GRID if g not in GRID[::3]], ids=str)
def test_the_rest_of_the_grid(keras, options):
    compare(keras, **options)


@pytest.mark.parametrize(
    "options",
    [
        dict(data_format="channels_first", strides=2),
        dict(go_backwards=True, return_sequences=True),
        dict(use_bias=False),
        dict(activation="softsign", recurrent_activation="hard_sigmoid"),
        dict(activation=None, recurrent_activation="tanh"),
        dict(padding="SAME", activation="gelu"),
    ],
    ids=str,
)
def test_other_options(keras, options):
    compare(keras, kernel_size=3, **options)


@pytest.mark.parametrize("go_backwards", [False, True])
def test_masks(keras, go_backwards):
    mask = np.array([[1, 0, 1], [0, 1, 0]], bool)
    compare(
        keras,
        call=dict(mask=mask),
        unroll=True,  # Keras's loop on JAX does not take a mask for five axes
        kernel_size=3,
        return_sequences=True,
        go_backwards=go_backwards,
    )


def test_gradients(keras):
    x = jnp.asarray(draw(2, 4, 6, 7, 2))
    options = dict(filters=3, kernel_size=3, padding="same", return_sequences=True)
    theirs = keras.layers.ConvLSTM2D(**options)
    theirs.build(x.shape)
    weights = [
        jnp.asarray(draw(*w.shape, seed=i, scale=0.4))
        for i, w in enumerate(theirs.get_weights())
    ]
    seeds = [v.value for v in theirs.non_trainable_variables]
    ours = ConvLSTM(**options)

    def their_loss(weights, x):
        return jnp.sum(theirs.stateless_call(weights, seeds, x)[0] ** 2)

    def our_loss(weights, x):
        names = ("kernel", "recurrent_kernel", "bias")
        params = dict(zip(names, weights, strict=True))
        return jnp.sum(ours.apply({"params": params}, x) ** 2)

    want = jax.jit(jax.grad(their_loss, argnums=(0, 1)))(weights, x)
    have = jax.jit(jax.grad(our_loss, argnums=(0, 1)))(weights, x)
    for h, w in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(h, w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_there_and_back(use_bias):
    layer = ConvLSTM(filters=3, kernel_size=(3, 2), use_bias=use_bias)
    variables = layer.init(jax.random.key(0), draw(1, 2, 6, 7, 2))
    weights = interop.conv_lstm_weights(variables)
    assert [w.shape for w in weights] == [(3, 2, 2, 12), (3, 2, 3, 12), (12,)][
        : 2 + use_bias
    ]
    again = interop.conv_lstm_params(weights)
    jax.tree.map(np.testing.assert_array_equal, again, dict(variables))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(3, 3, 2, 12)], "got 1 arrays"),
        ([(3, 3, 2, 12), (3, 3, 2, 12), (12,)], "recurrent_kernel"),
        ([(3, 3, 2, 12), (3, 3, 3, 12), (3,)], r"bias.*\(3,\)"),
        ([(3, 3, 2, 10), (3, 3, 2, 10)], "4 f"),
        ([(2, 12), (3, 12), (12,)], "4 f"),
    ],
)
def test_wrong_weights(shapes, message):
    with pytest.raises(ValueError, match=message):
        interop.conv_lstm_params([np.zeros(s) for s in shapes])


def test_parameters_that_keras_has_not():
    layer = ConvLSTM(filters=3, kernel_size=3, peephole="channel")
    variables = layer.init(jax.random.key(0), draw(1, 2, 6, 7, 2))
    with pytest.raises(ValueError, match="no peepholes"):
        interop.conv_lstm_weights(variables)
    with pytest.raises(ValueError, match="got taps"):
        interop.conv_lstm_weights({"params": {"taps": np.zeros(3)}})
