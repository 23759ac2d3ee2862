"""PredRNN: the PyTorch code's numbers, the paper's counts, sampling, sizes, errors."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_predrnn
from earthformer_jax.models.paper import PAPER_OPTIONS
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.models.recurrent.predrnn import V2, PredRNN
from earthformer_jax.ops.patches import reshape_patch, reshape_patch_back
from tests import golden_files
from tests.variables import drawn

SMALL = dict(num_layers=2, features=3, kernel_size=3, patch=2)
MODELS = ["v1_model_rss0", "v2_model_rss0", "v2_model_rss1"]


@functools.cache
def make(input_shape=(3, 4, 6, 1), target_shape=(2, 4, 6, 1), **options):
    """(model, variables, inputs, targets)."""
    model = PredRNN(input_shape, target_shape, **SMALL | options)
    x = jax.random.normal(jax.random.key(0), (2, *input_shape))
    y = jax.random.normal(jax.random.key(1), (2, *target_shape))
    return model, drawn(model.init, x), x, y


@functools.cache
def learner(model):
    """(v, x, targets, step, key) to (forecast, terms of the loss)."""

    @jax.jit
    def learn(v, x, y, step, key):
        forecast, sown = model.apply(
            v,
            x,
            train=True,
            targets=y,
            step=step,
            rngs={"sampling": key},
            mutable=["losses"],
        )
        return forecast, sown.get("losses", {})

    return learn


forecaster = functools.cache(lambda model: jax.jit(model.apply))


@pytest.mark.parametrize("name", MODELS)
def test_the_pytorch_code(name, monkeypatch, record_property):
    """Forecast and loss, with the stored masks in place of drawn ones."""
    data = golden_files.load(f"baselines/predrnn_{name}")
    c = data["config"]["configs"]
    patch, context = c["patch_size"], c["input_length"]
    frames = reshape_patch_back(data["input/frames_patched"], patch)
    x, y = frames[:, :context], frames[:, context:]
    mask = data["input/mask_true"] > 0
    assert (mask == mask[:, :, :1, :1, :1]).all()

    def draw(key, probability, batch, steps):
        assert (batch, steps) == mask.shape[:2]
        assert probability.shape == (steps,)
        return mask[:, :, 0, 0, 0]

    monkeypatch.setattr(scheduled_sampling, "draw", draw)
    model = PredRNN(
        x.shape[1:],
        y.shape[1:],
        num_layers=data["config"]["num_layers"],
        features=data["config"]["num_hidden"][0],
        kernel_size=c["filter_size"],
        patch=patch,
        decoupling=name.startswith("v2"),
        decoupling_weight=c["decouple_beta"],
        reverse_sampling=bool(c["reverse_scheduled_sampling"]),
    )
    v = torch_predrnn.predrnn_params(golden_files.group(data, "param"))
    created = jax.eval_shape(model.init, jax.random.key(0), x)
    chex.assert_trees_all_equal_shapes(dict(v["params"]), dict(created["params"]))

    forecast, sown = learner(model)(v, x, y, 0, jax.random.key(0))
    want = data["output/next_frames"][:, context - 1 :]
    error = np.abs(reshape_patch(forecast, patch) - want).max() / np.abs(want).max()
    record_property("golden PredRNN model output error", float(error))
    assert error < 1e-5
    loss = jnp.mean(jnp.square(forecast - y)) + sum(jax.tree.leaves(sown))
    loss *= y.shape[1] / (frames.shape[1] - 1)
    error = abs(float(loss / data["output/loss"]) - 1)
    record_property("golden PredRNN loss error", float(error))
    assert error < 1e-5


@pytest.mark.parametrize(
    ("input_shape", "ahead", "options", "count"),
    [
        ((10, 64, 64, 1), 10, {}, 23_838_720),
        ((12, 24, 48, 1), 14, {}, 23_838_720),
        ((13, 384, 384, 1), 12, PAPER_OPTIONS["predrnn"]["sevir"], 46_546_944 + 37_233),
        ((10, 64, 64, 1), 10, V2, 23_855_104),
        ((10, 64, 64, 1), 10, dict(layer_norm=True), 27_770_880),
    ],
)
def test_parameters_of_the_paper(input_shape, ahead, options, count):
    model = PredRNN(input_shape, (ahead, *input_shape[1:]), **options)
    model.check()
    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    y, v = jax.eval_shape(model.init_with_output, jax.random.key(0), x)
    assert y.shape == (1, ahead, *input_shape[1:])
    assert sum(a.size for a in jax.tree.leaves(v["params"])) == count
    assert set(v) == {"params"}


def test_forecast():
    model, v, x, _ = make()
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 2, 4, 6, 1))
    assert forecast.dtype == jnp.float32
    np.testing.assert_allclose(forecaster(model)(v, x[1:])[0], forecast[1], atol=1e-5)
    longer = forecaster(model.clone(target_shape=(5, 4, 6, 1)))(v, x)
    np.testing.assert_allclose(longer[:, :2], forecast, atol=1e-5)
    fed = jnp.concatenate([x, forecast[:, :1]], axis=1)
    later = model.clone(input_shape=(4, 4, 6, 1), target_shape=(1, 4, 6, 1))
    np.testing.assert_allclose(forecaster(later)(v, fed), forecast[:, 1:], atol=1e-5)


def test_targets_are_read_in_training_only():
    model, v, x, y = make((3, 4, 6, 1), (3, 4, 6, 1), sampling_rate=0.1)
    key = jax.random.key(0)
    apply = functools.partial(model.apply, v, x)
    np.testing.assert_array_equal(apply(targets=y, step=0), apply())
    first, _ = learner(model)(v, x, y, -1, key)  # the probability is 1 before step 0
    other, _ = learner(model)(v, x, y.at[:, 0].add(1.0), -1, key)
    np.testing.assert_array_equal(other[:, 0], first[:, 0])
    assert not np.allclose(other[:, 1], first[:, 1])
    last, _ = learner(model)(v, x, y.at[:, -1].add(1.0), -1, key)
    np.testing.assert_array_equal(last, first)
    done, _ = learner(model)(v, x, y, 10, key)
    np.testing.assert_allclose(done, apply(), atol=1e-5)
    between = [learner(model)(v, x, y, 4, jax.random.key(k))[0] for k in range(8)]
    assert len({float(b.sum()) for b in between}) > 1


def test_reverse_sampling_ends_as_forecasting_is_done():
    model, v, x, y = make(
        (3, 4, 6, 1),
        (3, 4, 6, 1),
        reverse_sampling=True,
        reverse_begin=2,
        reverse_end=20,
        reverse_decay=4.0,
    )
    forecast = forecaster(model)(v, x)
    for k in range(3):
        done, _ = learner(model)(v, x, y, 19, jax.random.key(k))
        np.testing.assert_allclose(done, forecast, atol=1e-5)
    early = [learner(model)(v, x, y, 0, jax.random.key(k))[0] for k in range(6)]
    # The context is drawn as well: the first forecast reads no target, and varies.
    assert len({float(f[:, 0].sum()) for f in early}) > 1


@pytest.mark.slow
def test_losses():
    """The forecast of the second and third input frame, and the decoupling."""
    model, v, x, y = make(decoupling=True, context_weight=0.5, decoupling_weight=0.2)
    _, sown = learner(model)(v, x, y, 100_000, jax.random.key(0))
    assert set(sown) == {"context", "decoupling"}
    shorter = model.clone(input_shape=(1, 4, 6, 1), target_shape=(1, 4, 6, 1))
    longer = model.clone(input_shape=(2, 4, 6, 1), target_shape=(1, 4, 6, 1))
    errors = [
        jnp.mean((forecaster(m)(v, x[:, :t]) - x[:, t : t + 1]) ** 2)
        for t, m in ((1, shorter), (2, longer))
    ]
    np.testing.assert_allclose(sown["context"][0], 0.5 * sum(errors) / 2, rtol=1e-5)
    twice = model.clone(decoupling_weight=0.4, context_weight=0.0)
    _, other = learner(twice)(v, x, y, 100_000, jax.random.key(0))
    assert set(other) == {"decoupling"}
    assert 0 < sown["decoupling"][0] < 0.2 * 4 / 2
    np.testing.assert_allclose(
        other["decoupling"][0], 2 * sown["decoupling"][0], rtol=1e-6
    )
    one, v, x, y = make((1, 4, 6, 1), (1, 4, 6, 1))
    forecast, sown = learner(one)(v, x, y, 0, jax.random.key(0))
    assert sown == {}
    np.testing.assert_allclose(forecast, forecaster(one)(v, x), atol=1e-5)


@pytest.mark.parametrize(
    "options", [dict(decoupling=True, layer_norm=True), dict(downsampling=2)]
)
def test_every_parameter_learns(options):
    model, v, x, y = make((2, 4, 8, 2), (2, 4, 8, 1), num_layers=1, **options)

    @jax.jit
    @jax.grad
    def gradient(v):
        forecast, sown = learner(model)(v, x, y, 0, jax.random.key(0))
        return jnp.mean((forecast - y) ** 2) + sum(jax.tree.leaves(sown))

    for path, g in jax.tree_util.tree_leaves_with_path(gradient(v)):
        assert jnp.abs(g).max() > 0, jax.tree_util.keystr(path)


def test_reversed_input():
    """The loss of the sequence backward in time is added, with the same draws."""
    model, v, x, y = make((3, 4, 6, 1), (2, 4, 6, 1), reverse_input=True, patch=1)
    whole = jnp.concatenate([x, y], axis=1)
    back = whole[:, ::-1]
    key = jax.random.key(0)
    forecast, sown = learner(model)(v, x, y, 20_000, key)
    once = learner(model.clone(reverse_input=False))
    want, forward = once(v, x, y, 20_000, key)
    np.testing.assert_allclose(forecast, want, atol=1e-6)
    other, backward = once(v, back[:, :3], back[:, 3:], 20_000, key)
    np.testing.assert_allclose(
        sown["reversed"][0], jnp.mean((other - back[:, 3:]) ** 2), rtol=1e-5
    )
    np.testing.assert_allclose(
        sown["context"][0], forward["context"][0] + backward["context"][0], rtol=1e-5
    )


def test_any_plane():
    """What is added behind stays zero while the model feeds itself."""
    model, v, x, y = make((3, 5, 7, 1), (3, 5, 7, 1))
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 3, 5, 7, 1))
    grown = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)))
    larger = model.clone(input_shape=(3, 6, 8, 1), target_shape=(1, 6, 8, 1))
    for lead in range(3):
        plain = forecaster(larger.clone(input_shape=(3 + lead, 6, 8, 1)))(v, grown)
        want = plain[:, :, :5, :7]
        np.testing.assert_allclose(forecast[:, lead : lead + 1], want, atol=1e-5)
        zeros = jnp.pad(want, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)))
        grown = jnp.concatenate([grown, zeros], axis=1)
    learnt, _ = learner(model)(v, x, y, 100_000, jax.random.key(0))
    np.testing.assert_allclose(learnt, forecast, atol=1e-5)


def test_further_channels_are_kept_as_they_were_last():
    model, v, x, y = make((2, 4, 6, 3), (3, 4, 6, 2))
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 3, 4, 6, 2))
    kernel = v["params"]["recurrence"]["step"]["cell_0"]["input_kernel"]
    assert kernel.shape == (3, 3, 3 * 4, 7 * 3)
    fed = jnp.concatenate([forecast[:, :1], x[:, -1:, ..., 2:]], axis=-1)
    later = model.clone(input_shape=(3, 4, 6, 3), target_shape=(2, 4, 6, 2))
    again = forecaster(later)(v, jnp.concatenate([x, fed], axis=1))
    np.testing.assert_allclose(again, forecast[:, 1:], atol=1e-5)
    learnt, _ = learner(model)(v, x, y, 100_000, jax.random.key(0))
    np.testing.assert_allclose(learnt, forecast, atol=1e-5)


def test_downsampling():
    model, v, x, y = make((3, 7, 12, 2), (2, 7, 12, 1), downsampling=2)
    assert set(v["params"]) == {"encoder", "recurrence", "decoder"}
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 2, 7, 12, 1))
    done, _ = learner(model)(v, x, y, 100_000, jax.random.key(0))
    np.testing.assert_allclose(done, forecast, atol=1e-5)
    early, sown = learner(model)(v, x, y, -1, jax.random.key(0))
    assert not np.allclose(early[:, 1], forecast[:, 1], atol=1e-4)
    assert set(sown) == {"context"}


def test_the_program_does_not_grow_with_the_frames():
    def lines(frames, **options):
        shape = (frames, 4, 6, 1)
        model = PredRNN(shape, shape, **SMALL, **options)
        x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
        v = jax.eval_shape(model.init, jax.random.key(0), x)

        def loss(v, x, step):
            y, sown = model.apply(
                v,
                x,
                train=True,
                targets=x,
                step=step,
                rngs={"sampling": jax.random.key(0)},
                mutable=["losses"],
            )
            return jnp.sum(y) + sum(jax.tree.leaves(sown))

        return len(str(jax.make_jaxpr(jax.grad(loss))(v, x, 0)).splitlines())

    for options in ({}, V2):
        assert lines(20, **options) == lines(10, **options)


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters_and_forecasts():
    model, v, x, y = make(dtype=jnp.bfloat16, downsampling=2, **V2)
    forecast = forecaster(model)(v, x)
    assert forecast.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(v)} == {jnp.dtype("float32")}
    want = forecaster(model.clone(dtype=None))(v, x)
    assert np.abs(forecast - want).max() < 0.05 * np.abs(want).max()
    learnt, sown = learner(model)(v, x, y, 0, jax.random.key(0))
    assert {a.dtype for a in jax.tree.leaves((learnt, sown))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(input_shape=(3, 4, 6)), "input_shape=.*: expected four whole numbers"),
        (
            dict(target_shape=(0, 4, 6, 1)),
            "target_shape=.*: expected four whole numbers",
        ),
        (dict(target_shape=(2, 6, 6, 1)), "the same height and width"),
        (dict(target_shape=(2, 4, 6, 2)), "got 1 and 2 channels"),
        (dict(features=0), "features=0: expected"),
        (dict(patch=-1), "patch=-1: expected"),
        (dict(kernel_size=4), "kernel_size must be odd.* got 4"),
        (dict(downsampling=3), "downsampling must be a power of two.* got 3"),
        (dict(downsampling=0), "downsampling=0: expected"),
        (dict(decoupling_weight=-1), "decoupling_weight=-1: expected"),
        (dict(sampling_start=2), "sampling_start=2: expected"),
        (dict(reverse_end=10, reverse_begin=20), "reverse_end=10 must not come before"),
        (dict(reverse_decay=0.0), "reverse_decay=0.0: expected"),
        (
            dict(reverse_input=True, input_shape=(3, 4, 6, 2)),
            "the same channels; got 2 and 1",
        ),
    ],
)
def test_refused_options(options, message):
    shapes = dict(input_shape=(3, 4, 6, 1), target_shape=(2, 4, 6, 1))
    with pytest.raises(ValueError, match=message):
        PredRNN(**shapes | SMALL | options).check()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(inputs=jnp.zeros((2, 3, 4, 4, 1))), r"inputs .*\(batch, 3, 4, 6, 1\); g"),
        (dict(train=True, step=0), "train=True needs targets and step"),
        (dict(train=True, targets=jnp.zeros((2, 2, 4, 6, 1))), "needs targets and"),
        (
            dict(train=True, step=0, targets=jnp.zeros((2, 3, 4, 6, 1))),
            r"targets need shape .* \(2, 2, 4, 6, 1\); got \(2, 3, 4, 6, 1\)",
        ),
    ],
)
def test_refused_calls(call, message):
    model = PredRNN((3, 4, 6, 1), (2, 4, 6, 1), **SMALL)
    inputs = call.get("inputs", jnp.zeros((2, 3, 4, 6, 1)))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            functools.partial(model.init, **{**call, "inputs": inputs}),
            jax.random.key(0),
        )
