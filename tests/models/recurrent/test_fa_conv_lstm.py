"""FAConvLSTM: what it factorises, where it attends, its parts, what it refuses."""

import functools
import itertools
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import keras as keras_interop
from earthformer_jax.layers.axial_attention import AxialAttention
from earthformer_jax.models.recurrent import (
    ConvLSTM,
    FAConvLSTM,
    SubspaceHead,
    sparse_scan,
)

OPTIONS = dict(
    filters=8,
    kernel_size=3,
    padding="same",
    bottleneck=4,
    dilations=(1, 2),
    attention_every=3,
    return_sequences=True,
)
PLAIN = dict(  # only the factorised windows are left
    dilations=(1,),
    mix_activation=None,
    squeeze=0,
    peephole="none",
    attention_every=0,
)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def frames():
    return draw(2, 8, 5, 6, 3)


def variables(x=None, **options):
    """Parameters of which none is zero (gains and peepholes start there)."""
    layer = FAConvLSTM(**OPTIONS | options)
    x = frames() if x is None else x
    v = jax.eval_shape(layer.init, jax.random.key(0), x)
    leaves, tree = jax.tree.flatten(v)
    return tree.unflatten([0.5 * draw(*a.shape, seed=i) for i, a in enumerate(leaves)])


compiled = functools.cache(lambda layer: jax.jit(layer.apply))


def run(v, x=None, call=None, **options):
    layer = FAConvLSTM(**OPTIONS | options)
    x = frames() if x is None else x
    if call:
        return jax.jit(functools.partial(layer.apply, **call))(v, x)
    return compiled(layer)(v, x)


def assert_close(have, want, tolerance=2e-5):
    chex.assert_trees_all_close(have, want, rtol=tolerance, atol=tolerance)


def factors_multiplied(v):
    """The weights of the ConvLSTM that a PLAIN layer is."""
    p = v["params"]

    def kernel(projection):
        return jnp.einsum(
            "cr,abr,rg->abcg", projection, p["taps"][0], p["gates_kernel"]
        )

    return [
        kernel(p["input_projection"]),
        kernel(p["recurrent_projection"]),
        p["bias"],
    ]


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "strides"), [(3, 1), ((3, 5), 2), (3, (2, 3))])
def test_its_windows_are_those_of_a_factorised_conv_lstm(size, strides, padding):
    options = dict(
        filters=4,
        kernel_size=size,
        strides=strides,
        padding=padding,
        return_state=True,
        return_sequences=True,
    )
    x = draw(2, 3, 8, 9, 3)
    v = variables(x, **options, **PLAIN)
    have = run(v, x, **options, **PLAIN)
    weights = keras_interop.conv_lstm_params(factors_multiplied(v))
    assert_close(have, jax.jit(ConvLSTM(**options).apply)(weights, x), 1e-5)


def test_the_same_beside_keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", minversion="3.0")
    options = dict(filters=4, kernel_size=3, strides=2, return_sequences=True)
    x = draw(2, 3, 8, 9, 3)
    v = variables(x, **options, padding="valid", **PLAIN)
    theirs = keras.layers.ConvLSTM2D(**options)
    theirs.build(x.shape)
    theirs.set_weights([np.asarray(w) for w in factors_multiplied(v)])
    have = run(v, x, **options, padding="valid", **PLAIN)
    np.testing.assert_allclose(have, theirs(np.asarray(x)), atol=1e-5)


@functools.cache
def streaming():
    v = variables()
    apply = jax.jit(FAConvLSTM(**OPTIONS, return_state=True, return_step=True).apply)
    return v, apply, apply(v, frames())


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_sequence_in_pieces(cut):
    """The step number travels with the state, here into a compiled function."""
    v, apply, (y, h, c, n) = streaming()
    first, *middle = apply(v, frames()[:, :cut])
    rest, *last = apply(v, frames()[:, cut:], middle)
    assert int(middle[2]) == cut
    assert_close(jnp.concatenate([first, rest], axis=1), y)
    assert_close(last, [h, c, n])


def test_step_by_step():
    v, apply, (y, h, c, n) = streaming()
    state, outputs = None, []
    for t in range(8):
        out, *state = apply(v, frames()[:, t : t + 1], state)
        outputs.append(out)
    assert_close(jnp.concatenate(outputs, axis=1), y)
    assert_close(state, [h, c, n])


def test_drop_in_state():
    """Three values as from ConvLSTM2D; h and c alone start to count at zero."""
    v = variables()
    y, h, c = run(v, return_state=True)
    np.testing.assert_array_equal(y[:, -1], h)
    two = run(v, call=dict(initial_state=(h, c)))
    three = run(v, call=dict(initial_state=(h, c, 0)))
    np.testing.assert_array_equal(two, three)
    later = run(v, call=dict(initial_state=(h, c, 1)))
    assert not np.allclose(two, later, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "where"), [(0, "h"), (5, "h"), (1, "output")])
def test_chunks_are_the_decisions_of_every_step(first, where, monkeypatch):
    """Values and gradients of the chunked scan and of one `lax.cond` per step."""
    layer = FAConvLSTM(**OPTIONS, attention_where=where)
    v, state = variables(), (draw(2, 5, 6, 8), draw(2, 5, 6, 8, seed=1))

    def run(scan, first):
        def loss(v, x):
            with monkeypatch.context() as m:
                m.setattr(sparse_scan, "scan", scan)
                y = layer.apply(v, x, (*state, first))
            return jnp.sum(jnp.sin(y)), y

        grad = jax.value_and_grad(loss, (0, 1), has_aux=True)
        return grad(v, frames())

    want = jax.jit(functools.partial(run, sparse_scan.scan_by_step))(jnp.int32(first))
    have = jax.jit(lambda: run(sparse_scan.scan_in_chunks, first))()
    assert_close(have, want, 1e-4)


@pytest.mark.slow
def test_the_decision_stays_one_under_vmap():
    layer = FAConvLSTM(**OPTIONS)

    def loss(v, x):
        return jnp.sum(layer.apply(v, x))

    x = jnp.stack([frames(), 2 * frames()])
    gradient = jax.vmap(jax.grad(loss), (None, 0))
    program = str(jax.make_jaxpr(gradient)(variables(), x))
    assert program.count(" cond[") == 2  # one forward, one back
    two = jax.jit(gradient)(variables(), x)
    one = jax.jit(jax.grad(loss))(variables(), frames())
    assert_close(jax.tree.map(lambda g: g[0], two), one, 1e-4)


@pytest.mark.slow
def test_gradients_by_finite_differences():
    options = dict(filters=4, bottleneck=2, attention_every=2, dilations=(1, 2))
    x = draw(1, 3, 3, 4, 2)
    with jax.enable_x64(True):
        layer = FAConvLSTM(**OPTIONS | options, param_dtype=jnp.float64)
        x = jnp.asarray(np.asarray(x), jnp.float64)
        v = jax.tree.map(
            lambda a: jnp.asarray(np.asarray(a), jnp.float64), variables(x, **options)
        )
        apply = jax.jit(lambda v, x: jnp.sum(jnp.cos(layer.apply(v, x))))
        grads = jax.jit(jax.grad(apply, (0, 1)))(v, x)
        direction = jax.tree.map(
            lambda a: jnp.asarray(np.random.default_rng(7).normal(size=a.shape)), (v, x)
        )
        slope = sum(
            jnp.vdot(g, d)
            for g, d in zip(*map(jax.tree.leaves, (grads, direction)), strict=True)
        )
        step = 1e-5
        ends = [
            apply(*jax.tree.map(lambda a, d, s=s: a + s * d, (v, x), direction))
            for s in (step, -step)
        ]
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / 2 / step, rel=1e-6)


def test_attention_outside_the_state_changes_single_outputs():
    v = variables()
    off = run(v, attention_every=0)
    y = run(v, attention_where="output")
    np.testing.assert_array_equal(
        [not np.allclose(y[:, t], off[:, t], atol=1e-4) for t in range(8)],
        [(t + 1) % 3 == 0 for t in range(8)],
    )


def test_without_gain_attention_is_nothing():
    v = variables()
    attention = v["params"]["attention"]
    for axis in ("rows", "columns"):
        attention[axis]["gain"] = jnp.zeros_like(attention[axis]["gain"])
    want = run(v, attention_every=0)
    for every in (1, 3, 8):
        assert_close(run(v, attention_every=every), want, 1e-6)


def test_one_step_that_attends_is_axial_attention():
    v = variables()
    x = frames()[:, :1]
    plain = run(v, x, attention_every=0)[:, 0]
    attention = {"params": v["params"]["attention"]}
    want = AxialAttention(heads=1, features=8).apply(attention, plain)
    assert_close(run(v, x, attention_every=1)[:, 0], want)


@pytest.mark.parametrize(
    ("size", "strides", "padding", "data_format"),
    [
        c
        for i, c in enumerate(
            itertools.product(
                (1, 3, (5, 3)),
                (1, 2, (3, 1)),
                ("valid", "same"),
                ("channels_last", "channels_first"),
            )
        )
        if i % 3 == 0
    ],
)
def test_shapes_are_those_of_conv_lstm(size, strides, padding, data_format):
    x = jnp.zeros(
        (2, 3, 8, 9, 2) if data_format == "channels_last" else (2, 3, 2, 8, 9)
    )
    for sequences, state in ((False, True), (True, False)):
        options = dict(
            filters=4,
            kernel_size=size,
            strides=strides,
            padding=padding,
            data_format=data_format,
            return_sequences=sequences,
            return_state=state,
        )
        have, want = (
            jax.eval_shape(layer.init_with_output, jax.random.key(0), x)[0]
            for layer in (FAConvLSTM(**options), ConvLSTM(**options))
        )
        assert jax.tree.map(jnp.shape, have) == jax.tree.map(jnp.shape, want)


def test_the_sequence_laws_of_conv_lstm():
    """Reversed, transposed, masked and dropped input, as for ConvLSTM."""
    v = variables()
    y = run(v)
    assert_close(run(v, go_backwards=True), run(v, frames()[:, ::-1]))
    first = run(v, jnp.moveaxis(frames(), -1, 2), data_format="channels_first")
    assert_close(jnp.moveaxis(first, 2, -1), y)
    mask = jnp.array([[1, 1, 0, 1, 1, 0, 1, 1]] * 2, bool)
    masked = run(v, call=dict(mask=mask))
    np.testing.assert_array_equal(masked[:, 2], masked[:, 1])
    np.testing.assert_array_equal(masked[:, 5], masked[:, 4])
    assert_close(masked[:, :2], y[:, :2])
    other = frames().at[:, 2].set(9)
    assert_close(run(v, other, dict(mask=mask)), masked)
    assert_close(run(v, remat=True), y)
    assert_close(run(v, unroll=True), y)


@pytest.mark.parametrize("option", ["dropout", "recurrent_dropout"])
def test_dropout(option):
    v, layer = variables(), FAConvLSTM(**OPTIONS, **{option: 0.5})

    @jax.jit
    def output(key):
        return layer.apply(v, frames(), train=True, rngs={"dropout": key})

    one, again, other = (output(jax.random.key(i)) for i in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)
    assert_close(run(v, **{option: 0.5}), run(v), 1e-6)


def test_on_a_circle_of_longitude_the_origin_does_not_matter():
    x = draw(1, 4, 5, 8, 3)
    options = dict(pad_mode="circular_lon", dilations=(1, 3))
    v = variables(x, **options)
    y = run(v, x, **options)
    assert_close(run(v, jnp.roll(x, 3, axis=3), **options), jnp.roll(y, 3, axis=3))
    assert not np.allclose(run(v, x, dilations=(1, 3)), y, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "gone"),
    [
        (dict(squeeze=0), {"squeeze_kernel", "excite_bias"}),
        (dict(peephole="none"), {"peephole"}),
        (dict(attention_every=0), {"attention"}),
        (dict(use_bias=False), {"bias"}),
    ],
)
def test_every_part_can_be_left_out(options, gone):
    whole, part = variables()["params"], variables(**options)["params"]
    assert gone <= set(whole) - set(part)
    assert np.isfinite(run({"params": part}, **options)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(share_taps=False, norm="layer"),
        dict(peephole="full", dilations=(3,)),
        dict(squeeze=3, attention_heads=2, attention_features=6),
    ],
)
def test_every_part_can_be_changed(options):
    """And every parameter then has a part in the output."""
    layer = FAConvLSTM(**OPTIONS | options)
    v = variables(**options)
    loss = jax.jit(jax.grad(lambda v: jnp.sum(jnp.sin(layer.apply(v, frames())))))
    grads = loss(v)["params"]
    if len(layer.dilations) == 1:
        grads.pop("branch_logits")  # the share of a single branch is one
    chex.assert_tree_all_finite(grads)
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads))


@pytest.mark.slow
def test_embeddings():
    head = dict(features=16, heads=2, causal=True)
    options = dict(return_embeddings=True, head=head, return_state=True)
    time = jnp.arange(8) * 1440
    v = variables(**options)
    y, _, _, z = run(v, call=dict(time=time), **options)
    params = {"params": v["params"]["subspace_head"]}
    want = SubspaceHead(**head).apply(params, y, time)
    assert_close(z, want)
    later = run(v, call=dict(time=time + 90 * 1440), **options)[-1]
    assert not np.allclose(z, later, atol=1e-3)


def test_without_input_zeros_are_read():
    v = variables(draw(2, 8, 5, 6, 8))
    state = draw(2, 5, 6, 8), draw(2, 5, 6, 8, seed=1)
    want = run(v, jnp.zeros((2, 8, 5, 6, 8)), dict(initial_state=state))
    have = FAConvLSTM(**OPTIONS).apply(v, None, state, steps=8)
    assert_close(have, want)


def test_low_precision():
    v = variables()
    y = run(v, dtype=jnp.bfloat16)
    assert y.dtype == jnp.bfloat16
    want = run(v)
    error = np.abs(y.astype(jnp.float32) - want)
    assert np.sqrt(np.mean(error**2)) < 0.05 * np.sqrt(np.mean(want**2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(kernel_size=2), r"kernel_size must be odd; got \(2, 2\)"),
        (dict(dilation_rate=2), "use dilations, such as"),
        (dict(dilations=()), "dilations needs positive integers"),
        (dict(dilations=(1, 0)), r"got \(1, 0\)"),
        (dict(bottleneck=0), "bottleneck must be an integer >= 1; got 0"),
        (dict(attention_every=-1), "attention_every must be an integer >= 0"),
        (dict(attention_heads=3), "3 heads for 8 features"),
        (dict(norm="batch"), "norm must be one of"),
        (dict(attention_where="c"), "attention_where must be one of"),
        (dict(mix_activation="mish!"), "mix_activation must be a function or one of"),
        (dict(stateful=True), "return_state=True"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        variables(**options)


def test_refused_state():
    with pytest.raises(ValueError, match="h and c, and optionally .* got 1 entries"):
        FAConvLSTM(**OPTIONS).init(jax.random.key(0), frames(), [0])
