"""The encoder-forecaster: the PyTorch port's numbers, shapes, modes, refusals."""

import functools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.interop import torch_conv_lstm
from earthformer_jax.models.recurrent.encoder_forecaster import EncoderForecaster
from tests import golden_files
from tests.variables import drawn

SMALL = dict(
    features=(4, 6),
    stem_features=3,
    kernels=(3, 3),
    strides=(2, 2),
    up_kernels=(4, 4),
)
GOLDEN = {
    "paper_kernels": dict(features=(4, 6, 8), stem_features=3),
    "hko7_geometry": dict(
        features=(4, 6, 6),
        stem_features=2,
        head_features=3,
        strides=(5, 3, 2),
        up_kernels=(7, 5, 4),
        peephole="full",
    ),
}


def frames_last(array):
    """`[t, b, c, h, w]` to `[b, t, h, w, c]`, `[b, c, h, w]` to `[b, h, w, c]`."""
    if array.ndim == 4:
        return np.moveaxis(array, 1, -1)
    return np.moveaxis(array, (0, 2), (1, -1))


def largest(have, want):
    """Largest difference relative to the largest value."""
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_the_pytorch_port(name, record_property):
    data = golden_files.load(f"baselines/convlstm_ef_{name}")
    x = frames_last(data["input/inputs"])
    want = frames_last(data["output/pred"])
    model = EncoderForecaster(x.shape[1:], want.shape[1:], **GOLDEN[name])
    v = torch_conv_lstm.encoder_forecaster_params(golden_files.group(data, "param"))
    cotangent = frames_last(data["cotangent/pred"])

    @jax.jit
    def compute(v, x):
        def forward(v, x):
            return model.apply(v, x, mutable="intermediates")

        y, pull, inside = jax.vjp(forward, v, x, has_aux=True)
        return y, pull(cotangent), inside

    y, (grads, input_grad), inside = compute(v, x)
    error = largest(y, want)
    record_property("golden ConvLSTM encoder-forecaster output error", float(error))
    assert error < 1e-5
    (states,) = inside["intermediates"]["states"]
    for scale, state in enumerate(states):
        for array, which in zip(state, "hc", strict=True):
            stored = frames_last(data[f"output/encoder_{which}{scale + 1}"])
            assert largest(array, stored) < 1e-5
    stored = golden_files.group(data, "grad")
    want = torch_conv_lstm.encoder_forecaster_params(
        golden_files.group(stored, "param")
    )
    error = largest((grads, input_grad), (want, frames_last(stored["input/inputs"])))
    record_property("golden ConvLSTM encoder-forecaster gradient error", float(error))
    assert error < 1e-4


@pytest.mark.parametrize(
    ("shape", "strides", "up_kernels"),
    [
        ((10, 64, 64, 1), (2, 2, 2), (6, 4, 4)),
        ((12, 24, 48, 1), (2, 2, 2), (6, 4, 4)),
        ((13, 384, 384, 1), (3, 2, 2), (6, 4, 4)),
    ],
)
def test_parameters_of_the_paper_on_all_its_data(shape, strides, up_kernels):
    model = models.create_model(
        "conv_lstm", shape, shape, strides=strides, up_kernels=up_kernels
    )
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(v["params"])) == 14_175_561


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv_lstm", "fa_conv_lstm"])
def test_export_for_any_batch(name):
    model, v, x = make(name)
    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
    artifact = jax.export.export(jax.jit(lambda x: model.apply(v, x)))(shape)
    np.testing.assert_allclose(artifact.call(x), forecaster(model)(v, x), atol=1e-6)


@functools.cache
def make(name, input_shape=(3, 8, 12, 2), target_shape=(4, 8, 12, 1), **options):
    options = SMALL | options
    if name == "fa_conv_lstm":
        options["cell_options"] = dict(dilations=(1, 2), attention_every=2)
    model = models.create_model(name, input_shape, target_shape, **options)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *input_shape)), "float32")
    return model, drawn(model.init, x), x


forecaster = functools.cache(lambda model: jax.jit(model.apply))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv_lstm", "fa_conv_lstm"])
def test_forecast(name):
    model, v, x = make(name)
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 4, 8, 12, 1))
    assert forecast.dtype == jnp.float32
    others = forecaster(model)(v, x.at[0].multiply(-2))
    np.testing.assert_allclose(others[1], forecast[1], rtol=1e-4, atol=1e-5)
    assert not np.allclose(others[0], forecast[0], rtol=1e-4, atol=1e-5)
    longer = model.clone(target_shape=(6, 8, 12, 1))
    np.testing.assert_allclose(
        forecaster(longer)(v, x)[:, :4], forecast, rtol=1e-4, atol=1e-5
    )
    rngs = {"dropout": jax.random.key(0)}
    train = functools.partial(model.apply, train=True, rngs=rngs)
    np.testing.assert_array_equal(jax.jit(train)(v, x), forecast)


@pytest.mark.slow
def test_the_name_decides_the_cell():
    shape = (3, 8, 12, 2)

    def weights(name, **options):
        model = models.create_model(name, shape, shape, **SMALL, **options)
        v = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *shape)))
        return v["params"]["encoder_0"]

    assert "recurrent_kernel" in weights("conv_lstm")
    assert "taps" in weights("fa_conv_lstm")
    assert "taps" in weights("conv_lstm", cell="fa_conv_lstm")


def test_any_size():
    """Where the strides do not fit, zeros are added behind and cut off again."""
    h, w = 7, 9
    model, v, x = make("conv_lstm", (3, h, w, 1), (2, h, w, 3))
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 2, h, w, 3))
    grown = jnp.pad(x, ((0, 0), (0, 0), (0, -h % 4), (0, -w % 4), (0, 0)))
    larger, _, _ = make(
        "conv_lstm", (3, h + -h % 4, w + -w % 4, 1), (2, h + -h % 4, w + -w % 4, 3)
    )
    want = forecaster(larger)(v, grown)[:, :, :h, :w]
    np.testing.assert_allclose(forecast, want, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv_lstm", "fa_conv_lstm"])
def test_every_parameter_learns_but_the_kernel_without_input(name):
    """The forecaster's first cell reads nothing, as in the port."""
    model, v, x = make(name)
    grads = jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, x) ** 2)))(v)["params"]
    still = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, g in jax.tree_util.tree_leaves_with_path(grads)
        if not jnp.abs(g).max()
    }
    kernel = "kernel" if name == "conv_lstm" else "input_projection"
    attention = {s for s in still if "/attention/" in s}  # until its gains have moved
    assert still - attention == {f"forecaster_1/{kernel}"}
    assert not any(s.endswith("gain") for s in still)


def test_dropout_and_recomputation():
    model, v, x = make("conv_lstm", dropout=0.3, recurrent_dropout=0.3)
    apply = functools.partial(model.apply, train=True)
    learn = jax.jit(lambda v, x, key: apply(v, x, rngs={"dropout": key}))
    train = [learn(v, x, jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(train[0], train[1])
    assert not np.allclose(train[0], train[2])
    again, _, _ = make("conv_lstm", remat=True)
    np.testing.assert_allclose(
        forecaster(again)(v, x), forecaster(model)(v, x), atol=1e-6
    )


def test_bfloat16_keeps_float32_parameters_and_forecasts():
    model, v, x = make("conv_lstm", dtype="bfloat16")
    forecast = forecaster(model)(v, x)
    assert forecast.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(v)} == {jnp.dtype("float32")}
    want = forecaster(make("conv_lstm")[0])(v, x)
    assert np.abs(forecast - want).max() < 0.1 * np.abs(want).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(cell="gru"), r"cell must be one of \('conv_lstm', 'fa_conv_lstm'\)"),
        (dict(kernels=(3,)), "kernels needs one entry per scale"),
        (dict(strides=(2, 5)), "scale 1: stride 5 must be at least 1 and at most"),
        (
            dict(cell_options=dict(dilations=(1,))),
            "'conv_lstm' has no option dilations",
        ),
        (dict(cell="fa_conv_lstm", cell_kernel=2), "kernel_size must be odd"),
        (dict(peephole="some"), "peephole must be one of"),
        (dict(hidden=3), "has no option 'hidden'"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        models.create_model(
            "conv_lstm", (3, 8, 12, 1), (3, 8, 12, 1), **SMALL | options
        )


def test_refused_shapes():
    with pytest.raises(ValueError, match="the same height and width"):
        models.create_model("conv_lstm", (3, 8, 12, 1), (3, 8, 8, 1))
    with pytest.raises(ValueError, match="four whole numbers"):
        models.create_model("conv_lstm", (3, 8, 12), (3, 8, 12, 1))
    model, v, _ = make("conv_lstm")
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 8, 2\)"):
        model.apply(v, jnp.zeros((2, 3, 8, 8, 2)))


def test_weights_of_another_model():
    data = golden_files.load("baselines/convlstm_ef_paper_kernels")
    stored = golden_files.group(data, "param")
    with pytest.raises(ValueError, match="no entry encoder.rnn1._conv.weight"):
        torch_conv_lstm.encoder_forecaster_params({})
    with pytest.raises(ValueError, match="no entry encoder.rnn2._conv.bias"):
        part = {k: v for k, v in stored.items() if k != "encoder.rnn2._conv.bias"}
        torch_conv_lstm.encoder_forecaster_params(part)
    with pytest.raises(ValueError, match="needs 4 axes"):
        wrong = stored | {"encoder.rnn1._conv.weight": np.zeros(3)}
        torch_conv_lstm.encoder_forecaster_params(wrong)
    with pytest.raises(ValueError, match="it is of another model"):
        torch_conv_lstm.encoder_forecaster_params(stored | {"more": np.zeros(7)})
