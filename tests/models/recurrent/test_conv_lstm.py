"""ConvLSTM: laws of a recurrence, Keras's numbers, cells of other code, refusals."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import keras, torch_conv_lstm
from earthformer_jax.models.recurrent import ConvLSTM
from tests import golden_files

OPTIONS = dict(
    filters=3, kernel_size=3, padding="same", return_sequences=True, return_state=True
)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def frames():
    return draw(2, 5, 6, 7, 2)


@functools.cache
def variables(**options):
    """Parameters of which none is zero."""
    layer = ConvLSTM(**OPTIONS | options)
    v = jax.eval_shape(layer.init, jax.random.key(0), frames())
    leaves, tree = jax.tree.flatten(v)
    return tree.unflatten([0.4 * draw(*x.shape, seed=i) for i, x in enumerate(leaves)])


compiled = functools.cache(lambda layer: jax.jit(layer.apply))


def run(x=None, v=None, call=None, **options):
    apply = compiled(ConvLSTM(**OPTIONS | options))
    v, x = variables() if v is None else v, frames() if x is None else x
    return apply(v, x, **call or {})


def assert_close(have, want, tolerance=1e-5):
    chex.assert_trees_all_close(have, want, rtol=tolerance, atol=tolerance)


def test_one_pixel_by_hand():
    """A 1x1 window on one pixel is an LSTM: three steps, equation by equation."""
    x = draw(1, 3, 1, 1, 2)
    layer = ConvLSTM(filters=1, kernel_size=1, peephole="channel", return_state=True)
    params = dict(
        kernel=draw(1, 1, 2, 4, seed=1),
        recurrent_kernel=draw(1, 1, 1, 4, seed=2),
        bias=draw(4, seed=3),
        peephole=draw(3, 1, seed=4),
    )
    y, h, c = layer.apply({"params": params}, x)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    hidden = cell = 0.0
    p = [float(a) for a in params["peephole"][:, 0]]
    for frame in np.asarray(x, np.float64)[0, :, 0, 0]:
        i, f, z, o = (
            frame @ params["kernel"][0, 0]
            + hidden * params["recurrent_kernel"][0, 0, 0]
            + params["bias"]
        )
        i, f = sigmoid(i + p[0] * cell), sigmoid(f + p[1] * cell)
        cell = f * cell + i * np.tanh(z)
        hidden = sigmoid(o + p[2] * cell) * np.tanh(cell)
    assert float(c.squeeze()) == pytest.approx(float(cell), abs=1e-6)
    assert float(h.squeeze()) == float(y.squeeze())
    assert float(y.squeeze()) == pytest.approx(float(hidden), abs=1e-6)


@pytest.mark.parametrize("cut", [1, 3])
def test_a_sequence_in_pieces(cut):
    y, *state = run()
    first, *middle = run(frames()[:, :cut])
    rest, *last = run(frames()[:, cut:], call=dict(initial_state=middle))
    assert_close(jnp.concatenate([first, rest], axis=1), y)
    assert_close(last, state)


def test_what_is_returned():
    y, h, c = run()
    chex.assert_shape(y, (2, 5, 6, 7, 3))
    np.testing.assert_array_equal(y[:, -1], h)
    last = run(return_sequences=False, return_state=False)
    np.testing.assert_array_equal(last, h)
    sequence = run(return_state=False)
    np.testing.assert_array_equal(sequence, y)
    assert c.shape == h.shape


def test_backwards_is_the_reversed_input():
    want = run(frames()[:, ::-1])
    assert_close(run(go_backwards=True), want)
    mask = jnp.array([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]], bool)
    want = run(frames()[:, ::-1], call=dict(mask=mask[:, ::-1]))
    assert_close(run(go_backwards=True, call=dict(mask=mask)), want)


def test_a_masked_frame_is_as_if_it_were_not_there():
    mask = jnp.array([[1, 1, 0, 1, 0]] * 2, bool)
    y, h, c = run(call=dict(mask=mask))
    kept, *state = run(frames()[:, np.array([0, 1, 3])])
    assert_close(y[:, np.array([0, 1, 3])], kept)
    assert_close((h, c), tuple(state))
    np.testing.assert_array_equal(y[:, 2], y[:, 1])
    np.testing.assert_array_equal(y[:, 4], y[:, 3])


def test_channels_first_is_a_transposition():
    x = jnp.moveaxis(frames(), -1, 2)
    state = draw(2, 3, 6, 7), draw(2, 3, 6, 7, seed=1)
    y, h, c = run(x, call=dict(initial_state=state), data_format="channels_first")
    last = tuple(jnp.moveaxis(s, 1, -1) for s in state)
    want, want_h, want_c = run(call=dict(initial_state=last))
    assert_close(jnp.moveaxis(y, 2, -1), want)
    assert_close((jnp.moveaxis(h, 1, -1), jnp.moveaxis(c, 1, -1)), (want_h, want_c))


@pytest.mark.parametrize("strides", [1, (2, 2)])
def test_on_a_circle_of_longitude_the_origin_does_not_matter(strides):
    x = draw(2, 3, 6, 8, 2)
    options = dict(pad_mode="circular_lon", strides=strides, return_state=False)
    y = run(x, **options)
    turned = run(jnp.roll(x, 4, axis=3), **options)
    assert_close(turned, jnp.roll(y, 4 * y.shape[3] // 8, axis=3))
    zeros = run(x, **options | dict(pad_mode="zeros"))
    assert not np.allclose(y, zeros, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("options", [dict(remat=True), dict(unroll=True)])
def test_memory_and_unrolling_change_no_value(options):
    def gradient(**options):
        layer = ConvLSTM(**OPTIONS | dict(return_state=False) | options)
        loss = jax.jit(jax.grad(lambda v, x: jnp.sum(layer.apply(v, x) ** 2), (0, 1)))
        return loss(variables(), frames())

    assert_close(gradient(**options), gradient())


def test_forward_mode_reverse_mode_and_vmap():
    layer = ConvLSTM(**OPTIONS | dict(return_state=False))

    @jax.jit
    def products(v, x, direction):
        f = functools.partial(layer.apply, v)
        y, forward = jax.jvp(f, (x,), (direction,))
        (backward,) = jax.vjp(f, x)[1](y)
        return jnp.vdot(forward, y), jnp.vdot(direction, backward)

    forward, backward = products(variables(), frames(), draw(*frames().shape, seed=9))
    assert float(forward) == pytest.approx(float(backward), rel=1e-4)
    many = jax.tree.map(lambda a: jnp.stack([a, 0 * a]), variables())
    two = jax.vmap(layer.apply, (0, None))(many, frames())
    assert_close(two[0], run(return_state=False))
    np.testing.assert_array_equal(two[1], 0)


def test_the_program_does_not_grow_with_the_sequence():
    layer = ConvLSTM(**OPTIONS)

    def length(steps):
        x = jax.ShapeDtypeStruct((1, steps, 6, 7, 2), jnp.float32)
        loss = jax.grad(lambda v, x: jnp.sum(layer.apply(v, x)[0]))
        return len(str(jax.make_jaxpr(loss)(variables(), x)).splitlines())

    assert length(40) == length(4)


def test_dropout():
    def outputs(x=None, v=None, **options):
        layer = ConvLSTM(**OPTIONS | dict(return_state=False) | options)

        @jax.jit
        def output(v, x, key):
            return layer.apply(v, x, train=True, rngs={"dropout": key})

        v, x = variables() if v is None else v, frames() if x is None else x
        return [output(v, x, jax.random.key(i)) for i in (0, 0, 1)]

    want = run(return_state=False)
    for option in ("dropout", "recurrent_dropout"):
        same = run(return_state=False, **{option: 0.5})
        np.testing.assert_array_equal(same, want)
        one, again, other = outputs(**{option: 0.5})
        np.testing.assert_array_equal(one, again)
        assert not np.allclose(one, other)
        assert not np.allclose(one, want)

    # Without memory (forget gate shut, no recurrence) equal frames give equal outputs,
    # if and only if the same entries are dropped at all steps.
    params = dict(variables()["params"])
    params["recurrent_kernel"] = jnp.zeros_like(params["recurrent_kernel"])
    params["bias"] = params["bias"].at[3:6].set(-1e9)
    x = jnp.broadcast_to(frames()[:, :1], frames().shape)
    y = outputs(x, {"params": params}, dropout=0.5)[0]
    assert_close(y, jnp.broadcast_to(y[:, :1], y.shape), 1e-6)


def test_low_precision():
    layer = ConvLSTM(**OPTIONS, dtype=jnp.bfloat16)
    y, h, c = layer.apply(variables(), frames())
    assert (y.dtype, h.dtype, c.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    created = jax.eval_shape(layer.init, jax.random.key(0), frames())
    assert {x.dtype for x in jax.tree.leaves(created)} == {jnp.dtype("float32")}
    want = run()[0]
    assert np.abs(y.astype(jnp.float32) - want).max() < 0.05 * np.abs(want).max()


def test_initial_parameters_are_those_of_keras():
    layer = ConvLSTM(filters=8, kernel_size=3)
    v = layer.init(jax.random.key(0), frames())["params"]
    np.testing.assert_array_equal(v["bias"], np.repeat([0, 1, 0, 0], 8))
    flat = v["recurrent_kernel"].reshape(-1, 32)
    assert_close(flat.T @ flat, jnp.eye(32))
    limit = (6 / (9 * 2 + 9 * 32)) ** 0.5
    assert 0.9 * limit < np.abs(v["kernel"]).max() <= limit
    plain = ConvLSTM(filters=8, kernel_size=3, unit_forget_bias=False)
    assert not plain.init(jax.random.key(0), frames())["params"]["bias"].any()


def test_without_input_zeros_are_read():
    zeros = jnp.zeros((2, 4, 6, 7, 3))
    state = draw(2, 6, 7, 3), draw(2, 6, 7, 3, seed=1)
    layer = ConvLSTM(**OPTIONS)
    v = layer.init(jax.random.key(0), None, state, steps=4)
    chex.assert_shape(v["params"]["kernel"], (3, 3, 3, 12))
    want = layer.apply(v, zeros, state)
    assert_close(layer.apply(v, None, state, steps=4), want)


@pytest.mark.parametrize("number", range(8))
def test_keras_numbers(number, record_property):
    """Outputs and gradients that Keras gave, see golden/make_keras_conv_lstm.py."""
    data = golden_files.load("keras_conv_lstm")
    options = data["config"][number]
    case = golden_files.group(data, str(number))

    def listed(name):
        return [a for k, a in sorted(case.items()) if k.startswith(f"{name}/")]

    layer = ConvLSTM(filters=3, return_state=True, **options)
    call = dict(initial_state=listed("state") or None, mask=case.get("mask"))

    @jax.jit
    def compute(v, x, cotangents):
        out, pull = jax.vjp(lambda v, x: layer.apply(v, x, **call), v, x)
        return out, pull(cotangents)

    v = keras.conv_lstm_params(listed("weight"))
    out, (grads, input_grad) = compute(v, case["x"], tuple(listed("cotangent")))
    want = keras.conv_lstm_params(listed("grad"))
    error = max(np.abs(a - b).max() for a, b in zip(out, listed("output"), strict=True))
    record_property("golden Keras ConvLSTM2D output error", float(error))
    assert error < 1e-5
    assert_close(input_grad, case["grad_x"])
    assert_close(dict(grads["params"]), want["params"], 2e-5)


@pytest.mark.parametrize("name", ["hzzone_layer", "hzzone_layer_noinput"])
def test_the_layer_of_the_pytorch_port(name):
    data = golden_files.load(f"baselines/convlstm_{name}")
    inputs = golden_files.group(data, "input")
    params = torch_conv_lstm.conv_lstm_params(golden_files.group(data, "param"))
    x = inputs.get("inputs", np.zeros((3, 2, 3, 5, 6), np.float32))
    x = np.moveaxis(x, (0, 2), (1, -1))
    state = [np.moveaxis(inputs[k], 1, -1) for k in ("h0", "c0")]
    layer = ConvLSTM(
        filters=4,
        kernel_size=3,
        padding="same",
        peephole="full",
        return_sequences=True,
        return_state=True,
    )

    want = golden_files.group(data, "output")
    want = (
        np.moveaxis(want["outputs"], (0, 2), (1, -1)),
        *(np.moveaxis(want[k], 1, -1) for k in "hc"),
    )
    cotangent = golden_files.group(data, "cotangent")
    cotangent = (
        np.moveaxis(cotangent["outputs"], (0, 2), (1, -1)),
        *(np.moveaxis(cotangent[k], 1, -1) for k in "hc"),
    )
    out, pull = jax.vjp(
        lambda v, x, s: layer.apply(v, x, s), {"params": params}, x, state
    )
    assert_close(out, want)
    grads, input_grad, state_grads = pull(tuple(map(jnp.asarray, cotangent)))
    stored = golden_files.group(data, "grad")
    want = torch_conv_lstm.conv_lstm_params(golden_files.group(stored, "param"))
    assert_close(dict(grads["params"]), want, 1e-4)
    for have, key in zip(state_grads, ("h0", "c0"), strict=True):
        assert_close(have, np.moveaxis(stored[f"input/{key}"], 1, -1), 1e-4)
    if "inputs" in inputs:
        want = np.moveaxis(stored["input/inputs"], (0, 2), (1, -1))
        assert_close(input_grad, want, 1e-4)


def test_the_cell_of_openstl():
    """OpenSTL's ConvLSTM stacks such cells and feeds forecasts back: another model.

    Its cell is ours without biases; its further two convolutions are never used.
    """
    data = golden_files.load("baselines/convlstm_openstl_cell")
    params = golden_files.group(data, "param")
    v = keras.conv_lstm_params(
        [params[f"conv_{k}.0.weight"].transpose(2, 3, 1, 0) for k in "xh"]
    )
    x, h, c = (np.moveaxis(data[f"input/{k}_t"], 1, -1) for k in ("x", "h", "c"))
    layer = ConvLSTM(
        filters=4, kernel_size=5, padding="same", use_bias=False, return_state=True
    )
    _, *state = layer.apply(v, x[:, None], (h, c))
    for have, name in zip(state, ("h_new", "c_new"), strict=True):
        assert_close(have, np.moveaxis(data[f"output/{name}"], 1, -1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(filters=0), "filters=0: expected"),
        (dict(kernel_size=(3, 3, 3)), "kernel_size must be one or two positive"),
        (dict(strides=0), "strides must be one or two positive"),
        (dict(strides=2, dilation_rate=2), "cannot be combined"),
        (dict(padding="causal"), "padding must be one of .* got 'causal'"),
        (dict(data_format="NHWC"), "data_format must be one of"),
        (dict(pad_mode="reflect"), "pad_mode must be one of"),
        (dict(pad_mode="circular_lon", padding="valid"), "needs padding='same'"),
        (dict(pad_mode="circular_lon", strides=2), "width 7 and strides"),
        (dict(peephole="all"), "peephole must be one of"),
        (dict(dropout=1.0), r"dropout must be in \[0, 1\); got 1.0"),
        (dict(activation="tahn"), "activation must be a function or one of"),
        (dict(kernel_initializer="he"), "kernel_initializer must be a function or"),
        (dict(stateful=True), "stateful=True is not an option here; use return_state"),
        (dict(seed=3), "seed=3 is not an option here; pass rngs"),
        (dict(kernel_regularizer="l2"), "add the penalty to the loss"),
        (dict(bias_constraint="non_neg"), "project the parameters"),
        (
            dict(kernel_size=9, padding="valid"),
            r"does not fit into a plane of \(6, 7\)",
        ),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        layer = ConvLSTM(**OPTIONS | options)
        jax.eval_shape(layer.init, jax.random.key(0), frames())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(inputs=draw(2, 6, 7, 2)), r"five axes .* got shape \(2, 6, 7, 2\)"),
        (dict(inputs=None), "needs steps, 1 or more; got None"),
        (dict(inputs=None, steps=2), "inputs=None needs an initial_state"),
        (dict(steps=2), "steps=2 is only for inputs=None"),
        (dict(mask=np.ones((5, 2), bool)), r"mask needs shape .* got \(5, 2\)"),
        (dict(initial_state=[draw(2, 6, 7, 3)]), "initial_state needs h and c"),
        (dict(initial_state=[draw(2, 6, 7, 2)] * 2), r"shape \(2, 6, 7, 3\)"),
    ],
)
def test_refused_calls(call, message):
    with pytest.raises(ValueError, match=message):
        ConvLSTM(**OPTIONS).apply(variables(), **dict(inputs=frames()) | call)
