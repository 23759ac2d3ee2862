"""E3D-LSTM: TensorFlow's numbers, a growing history, losses, sampling, refusals."""

import functools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import tf_e3d_lstm
from earthformer_jax.models.paper import PAPER_OPTIONS
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.models.recurrent.e3d_lstm import E3DLSTM
from earthformer_jax.models.recurrent.eidetic_lstm import EideticLSTM
from earthformer_jax.ops.patches import reshape_patch, reshape_patch_back
from tests import golden_files

SMALL = dict(num_layers=2, features=4, kernel_size=(2, 3, 3), patch=2)
IN, OUT = (3, 4, 6, 2), (4, 4, 6, 1)
NO_TEACHING = dict(sampling_start=0.0)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@functools.cache
def make(input_shape=IN, target_shape=OUT, **options):
    """A model, parameters of which none is zero, inputs and targets."""
    model = E3DLSTM(input_shape, target_shape, **SMALL | options)
    x, targets = draw(2, *input_shape), draw(2, *target_shape, seed=1)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    leaves, tree = jax.tree.flatten(v)
    leaves = [0.2 * draw(*a.shape, seed=i) for i, a in enumerate(leaves)]
    return model, tree.unflatten(leaves), x, targets


def learn(model, v, x, targets, step=0, seed=0):
    """Forecast and what is sown, while training."""
    y, sown = model.apply(
        v,
        x,
        train=True,
        targets=targets,
        step=step,
        rngs={"sampling": jax.random.key(seed)},
        mutable="losses",
    )
    return y, {k: a[0] for k, a in sown["losses"].items()}


forecaster = functools.cache(lambda model: jax.jit(model.apply))
learner = functools.cache(lambda model: jax.jit(functools.partial(learn, model)))


def largest(have, want):
    """Largest difference relative to the largest value."""
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["official", "fixedmem"])
def test_the_tensorflow_model(kind, monkeypatch, record_property):
    """Their loss is a sum of half squares and absolute errors over all frames."""
    data = golden_files.load(f"baselines/e3dlstm_tf_model_{kind}")
    images = data["input/images"]
    read = jnp.asarray(data["input/real_input_flag"][:, :, 0, 0, 0] > 0)
    monkeypatch.setattr(scheduled_sampling, "draw", lambda *_: read)
    v = tf_e3d_lstm.e3d_lstm_params(golden_files.group(data, "param"))
    model = E3DLSTM(
        (3, 4, 5, 4),
        (3, 4, 5, 4),
        num_layers=2,
        features=6,
        patch=1,
        update_memory=kind == "fixedmem",
    )

    @jax.jit
    def compute(v, images):
        def forward(v, images):
            y, sown = learn(model, v, images[:, :3], images[:, 3:])
            loss = jnp.mean(jnp.square(y - images[:, 3:])) + sum(sown.values())
            return y, loss * y.size / 2

        out, pull = jax.vjp(forward, v, images)
        cotangent = (data["cotangent/gen_images"], data["cotangent/loss"])
        return out, pull(jax.tree.map(jnp.asarray, cotangent))

    (y, loss), grads = compute(v, images)
    error = largest(y, data["output/gen_images"])
    record_property(f"golden E3D-LSTM {kind} output error", float(error))
    assert error < 1e-5
    assert float(loss) == pytest.approx(float(data["output/loss"]), rel=1e-5)
    stored = golden_files.group(data, "grad")
    want = tf_e3d_lstm.e3d_lstm_params(golden_files.group(stored, "param"))
    error = largest(grads, (want, stored["input/images"]))
    record_property(f"golden E3D-LSTM {kind} gradient error", float(error))
    assert error < 1e-4


@pytest.mark.parametrize(
    ("data", "shape", "count"),
    [
        ("mnist", (10, 64, 64, 1), 12_898_832),
        ("enso", (12, 24, 48, 1), 12_898_832),
        ("sevir", (13, 384, 384, 1), 35_645_297),
    ],
)
def test_parameters_of_the_paper(data, shape, count):
    model = E3DLSTM(shape, shape, **PAPER_OPTIONS["e3d_lstm"].get(data, {}))
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(v)) == count


@pytest.mark.slow
def test_a_loop_with_a_growing_history():
    """Frame by frame, with a history that has as many states as there were."""
    model, v, x, _ = make()
    p = v["params"]["step"]
    zero = jnp.zeros((2, 2, 2, 3, 4))
    cell = jax.jit(EideticLSTM(4, kernel_size=(2, 3, 3)).apply)
    states, memory = [(zero, zero, zero[:, :0])] * 2, zero
    read, want = [jnp.zeros((2, 2, 3, 8))], []
    further = reshape_patch(x[..., 1:], 2)
    for step in range(6):
        frame = reshape_patch(x[:, step, ..., :1], 2) if step < 3 else want[-1]
        read.append(jnp.concatenate([frame, further[:, min(step, 2)]], axis=-1))
        y = jnp.stack(read[-2:], axis=1)
        for layer, (hidden, c, history) in enumerate(states):
            history = jnp.concatenate([history, c], axis=1)
            params = {"params": p[f"cell_{layer}"]}
            y, c, memory = cell(params, y, hidden, c, memory, history)
            states[layer] = (y, c, history)
        head = jnp.einsum("blhwf,lfc->bhwc", y, p["head"]["kernel"])
        want.append(head + p["head"]["bias"])
    want = reshape_patch_back(jnp.stack(want[2:], axis=1), 2)
    have = forecaster(model)(v, x)
    chex.assert_shape(have, (2, *OUT))
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def test_forecasts_do_not_depend_on_how_many_are_asked_for():
    model, v, x, _ = make()
    forecast = forecaster(model)(v, x)
    longer = model.clone(target_shape=(6, *OUT[1:]))
    np.testing.assert_allclose(
        forecaster(longer)(v, x)[:, :4], forecast, rtol=1e-4, atol=1e-5
    )
    one = model.clone(target_shape=(1, *OUT[1:]))
    np.testing.assert_allclose(
        forecaster(one)(v, x[1:])[0], forecast[1, :1], rtol=1e-4, atol=1e-5
    )


def test_export_for_any_batch():
    model, v, x, _ = make()
    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, *IN), x.dtype)
    artifact = jax.export.export(jax.jit(lambda x: model.apply(v, x)))(shape)
    want = forecaster(model)(v, x)
    np.testing.assert_allclose(artifact.call(x), want, atol=1e-5)


def test_any_size():
    """Where patches do not fit, zeros are added behind and cut off again."""
    model, v, x, _ = make((3, 5, 7, 1), (2, 5, 7, 1))
    grown = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)))
    larger = model.clone(input_shape=(3, 6, 8, 1), target_shape=(2, 6, 8, 1))
    want = forecaster(larger)(v, grown)[:, :, :5, :7]
    np.testing.assert_allclose(forecaster(model)(v, x), want, atol=1e-5)


@pytest.mark.slow
def test_losses_by_hand():
    model, v, x, targets = make(**NO_TEACHING)
    y, sown = learner(model)(v, x, targets)
    # The context's predictions are the forecasts from a shorter context.
    shorter = model.clone(input_shape=(1, *IN[1:]), target_shape=(1, *OUT[1:]))
    first = forecaster(shorter)(v, x[:, :1])
    shorter = model.clone(input_shape=(2, *IN[1:]), target_shape=(1, *OUT[1:]))
    second = forecaster(shorter)(v, x[:, :2])
    error = np.concatenate([first, second], axis=1) - x[:, 1:, ..., :1]
    context = float(np.sum(error**2 + 2 * np.abs(error))) / targets.size
    assert float(sown["context"]) == pytest.approx(context, rel=1e-4)
    absolute = 2 * float(np.abs(y - targets).mean())
    assert float(sown["absolute"]) == pytest.approx(absolute, rel=1e-5)

    quiet = model.clone(context_weight=0.0, absolute_weight=0.0)
    teaching = dict(train=True, targets=targets, step=0)
    teaching["rngs"] = {"sampling": jax.random.key(0)}
    for silent, more in ((model, {}), (quiet, teaching)):
        apply = functools.partial(silent.apply, mutable="losses", **more)
        _, sown = jax.eval_shape(apply, v, x)
        assert not sown


@pytest.mark.slow
def test_scheduled_sampling():
    model, v, x, targets = make(sampling_rate=0.25)
    run = learner(model)
    forecast = forecaster(model)(v, x)
    late, _ = run(v, x, targets, step=3)
    np.testing.assert_allclose(late, forecast, rtol=1e-4, atol=1e-5)
    early = [run(v, x, targets, step=1, seed=seed)[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(early[0], early[1])
    assert not np.allclose(early[0], early[2])

    always = model.clone(sampling_rate=0.0)
    run = learner(always)
    taught, _ = run(v, x, targets)
    np.testing.assert_allclose(taught[:, 0], forecast[:, 0], rtol=1e-4, atol=1e-5)
    # A true frame that is read is one frame more of the context.
    last = jnp.concatenate([targets[:, :3], x[:, 2:, ..., 1:].repeat(3, 1)], axis=-1)
    known = model.clone(input_shape=(6, *IN[1:]), target_shape=(1, *OUT[1:]))
    want = forecaster(known)(v, jnp.concatenate([x, last], axis=1))
    np.testing.assert_allclose(taught[:, 3:], want, rtol=1e-4, atol=1e-5)

    # In place of an unknown value the prediction is read, and it does not count.
    holes = targets.at[0, 0, 1, 1].set(jnp.nan)
    y, sown = run(v, x, holes)
    np.testing.assert_allclose(y[1], taught[1], rtol=1e-4, atol=1e-5)
    own = targets.at[0, 0, 1, 1].set(forecast[0, 0, 1, 1])
    want, _ = run(v, x, own)
    np.testing.assert_allclose(y[0], want[0], rtol=1e-4, atol=1e-5)
    assert np.isfinite(list(sown.values())).all()


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, dict(downsampling=4, context_weight=0.0)])
def test_every_parameter_learns(options):
    shape = (2, 9, 16, 2) if options else IN
    target = (2, 9, 16, 1) if options else OUT
    model, v, x, targets = make(shape, target, **options)

    def loss(v):
        y, sown = learn(model, v, x, targets)
        return jnp.mean(jnp.square(y - targets)) + sum(sown.values())

    grads = jax.jit(jax.grad(loss))(v)
    chex.assert_tree_all_finite(grads)
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.abs(g).max() > 0, path
    if options:
        assert set(grads["params"]) == {"encoder", "decoder", "step"}
        return
    again = model.clone(remat=True)
    y, _ = learner(again)(v, x, targets)
    np.testing.assert_allclose(y, learner(model)(v, x, targets)[0], atol=1e-6)


def test_latents_are_fed_back():
    """With latents of the whole frame, as many channels in as the encoder makes."""
    model, v, x, targets = make((2, 9, 16, 2), (3, 9, 16, 1), downsampling=4)
    y = forecaster(model)(v, x)
    chex.assert_shape(y, (2, 3, 9, 16, 1))
    assert v["params"]["step"]["head"]["kernel"].shape == (2, 4, 64 * 4)
    grown = jnp.pad(x, ((0, 0), (0, 0), (0, 7), (0, 0), (0, 0)))
    larger = model.clone(input_shape=(2, 16, 16, 2), target_shape=(3, 16, 16, 1))
    want = forecaster(larger)(v, grown)[:, :, :9]
    np.testing.assert_allclose(y, want, atol=1e-5)


@pytest.mark.parametrize("window", [1, 3])
def test_other_windows(window):
    model, v, x, _ = make(window=window, layer_norm=False)
    forecast = forecaster(model)(v, x)
    assert np.isfinite(forecast).all()
    assert v["params"]["step"]["head"]["kernel"].shape == (window, 4, 4)


def test_bfloat16_keeps_float32_parameters_and_forecasts():
    model, v, x, _ = make()
    low = model.clone(dtype=jnp.bfloat16)
    assert {a.dtype for a in jax.tree.leaves(v)} == {jnp.dtype("float32")}
    forecast = forecaster(low)(v, x)
    assert forecast.dtype == jnp.float32
    want = forecaster(model)(v, x)
    assert np.abs(forecast - want).max() < 0.1 * np.abs(want).max()


def test_the_program_does_not_grow_with_the_frames():
    def lines(frames):
        shape = (frames, 8, 8, 1)
        model = E3DLSTM(shape, shape, **SMALL)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        v = jax.eval_shape(model.init, jax.random.key(0), x)

        def loss(v, x, targets):
            y, sown = learn(model, v, x, targets)
            return jnp.mean(jnp.square(y - targets)) + sum(sown.values())

        return len(jax.jit(jax.grad(loss)).lower(v, x, x).as_text().splitlines())

    assert lines(10) == lines(20)


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ((IN, (4, 4, 4, 1)), {}, "the same height and width"),
        (((3, 4, 6), OUT), {}, r"input_shape=.*: expected four whole numbers"),
        ((IN, (4, 4, 6, 3)), {}, "2 channels of inputs and 3 of targets"),
        ((IN, OUT), dict(features=0), "features=0: expected"),
        ((IN, OUT), dict(kernel_size=(3, 3)), "kernel_size=.*: expected"),
        ((IN, OUT), dict(window=0), "window=0: expected"),
        ((IN, OUT), dict(patch=0), "patch=0: expected"),
        ((IN, OUT), dict(downsampling=6), "must be a power of two, 2 or more; got 6"),
        ((IN, OUT), dict(sampling_start=2.0), "sampling_start=2.0: expected"),
        ((IN, OUT), dict(absolute_weight=-1.0), "absolute_weight=-1.0: expected"),
    ],
)
def test_refused_options(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        E3DLSTM(*shapes, **SMALL | options).check()


def test_refused_calls():
    model, v, x, targets = make()
    with pytest.raises(ValueError, match=r"inputs need shape .* got \(2, 2, 4, 6, 2\)"):
        model.apply(v, x[:, :2])
    with pytest.raises(ValueError, match=r"targets need shape .*got \(2, 3, 4, 6, 1\)"):
        model.apply(v, x, train=True, targets=targets[:, :3], step=0)
    with pytest.raises(ValueError, match="targets need step"):
        model.apply(v, x, train=True, targets=targets)


def stored_weights():
    """Arrays under TensorFlow's names, those of a cell from a file, and a head."""
    data = golden_files.load("baselines/e3dlstm_tf_cell_fixedmem")
    scope = "generator/e3d-lstm/"
    cell = golden_files.group(data, "param").items()
    weights = {f"{scope}{name}:0": array for name, array in cell}
    weights[f"{scope}conv3d/kernel:0"] = np.zeros((2, 1, 1, 4, 3), np.float32)
    weights[f"{scope}conv3d/bias:0"] = np.zeros(3, np.float32)
    return scope, weights


def test_weights_by_tensorflow_names():
    _, weights = stored_weights()
    have = tf_e3d_lstm.e3d_lstm_params(weights)
    model = E3DLSTM((2, 4, 5, 3), (2, 4, 5, 3), num_layers=1, features=4, patch=1)
    x = jax.ShapeDtypeStruct((1, 2, 4, 5, 3), jnp.float32)
    want = jax.eval_shape(model.init, jax.random.key(0), x)
    chex.assert_trees_all_equal_shapes(have, dict(want))


def test_weights_of_another_model():
    scope, weights = stored_weights()
    bare = {k: a for k, a in weights.items() if "gamma" not in k and "beta" not in k}
    cell = tf_e3d_lstm.e3d_lstm_params(bare)["params"]["step"]["cell_0"]
    assert "hidden_norm" not in cell
    with pytest.raises(ValueError, match="Are they those of an E3D-LSTM"):
        tf_e3d_lstm.e3d_lstm_params({})
    for name in ("e3d0/conv3d_3/bias", "e3d0/self_attn/gamma", "conv3d/kernel"):
        part = {k: a for k, a in weights.items() if k != f"{scope}{name}:0"}
        with pytest.raises(ValueError, match=f"no entry {scope}{name}"):
            tf_e3d_lstm.e3d_lstm_params(part)
    for name in ("e3d0/conv3d_6/bias", "e3d2/conv3d/bias"):
        with pytest.raises(ValueError, match=f"has not: {scope}{name}"):
            tf_e3d_lstm.e3d_lstm_params(weights | {scope + name: np.zeros(4)})
    wrong = weights | {f"{scope}e3d0/inputs/beta:0": np.zeros(3)}
    with pytest.raises(ValueError, match=r"inputs/beta needs shape \(28\); got \(3,\)"):
        tf_e3d_lstm.e3d_lstm_params(wrong)
