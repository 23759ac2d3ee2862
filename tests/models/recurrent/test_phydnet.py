"""PhyDNet: the published numbers, feeding back, teaching, losses, refusals."""

import functools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import torch_phydnet
from earthformer_jax.models.paper import PAPER_OPTIONS
from earthformer_jax.models.recurrent.phydnet import PUBLISHED_TEACHER_STEPS, PhyDNet
from earthformer_jax.ops.moments import moment_loss
from tests import golden_files
from tests.variables import drawn

SMALL = dict(
    features=4,
    norm_groups=2,
    phycell_features=(9,),
    phycell_kernel=3,
    phycell_groups=3,
    convcell_features=(6, 8),
)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(size=shape), jnp.float32)


def channels_last(array):
    """`[..., c, h, w]` to `[..., h, w, c]`."""
    return np.moveaxis(array, -3, -1)


def largest(have, want):
    """Largest difference relative to the largest value."""
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


@functools.cache
def make(input_shape=(3, 8, 12, 2), target_shape=(3, 8, 12, 1), **options):
    model = PhyDNet(input_shape, target_shape, **SMALL | options)
    x = draw(2, *input_shape)
    return model, drawn(model.init, x), x


forecaster = functools.cache(lambda model: jax.jit(model.apply))


@functools.cache
def taught(**options):
    """Model, and (variables, inputs, targets, step, key) to (forecast, sown)."""
    model, v, x = make(**options)

    @jax.jit
    def train(v, x, targets, step, key):
        return model.apply(
            v,
            x,
            train=True,
            targets=targets,
            step=step,
            rngs={"sampling": key},
            mutable=["losses", "intermediates"],
        )

    return model, train, v, x


@functools.cache
def published():
    """The published model's file, our model, and its total loss with a teacher or not.

    A step count past the schedule's end frees the model of its teacher, so that one
    program serves both files.
    """
    data = golden_files.load("baselines/phydnet_model_free")
    x = channels_last(data["input/input_seq"])
    targets = channels_last(data["input/target_seq"])
    count = targets.shape[1]
    model = PhyDNet(
        x.shape[1:], targets.shape[1:], features=16, convcell_features=(16, 32)
    )

    def total(v, x, step, cotangents):
        forecast, sown = model.apply(
            v,
            x,
            train=True,
            targets=targets,
            step=step,
            rngs={"sampling": jax.random.key(0)},
            mutable=["losses", "intermediates"],
        )
        losses = {k: count * v[0] for k, v in sown["losses"].items()}
        outputs = {
            "images": jnp.concatenate(
                [sown["intermediates"]["restored"][0], forecast], axis=1
            ),
            "image_loss": count * jnp.mean((forecast - targets) ** 2)
            + losses["reconstruction"],
            "moment_loss": losses["moments"],
        }
        loss = sum(jnp.vdot(outputs[k], cotangents[k]) for k in outputs)
        return loss, (outputs, sown["intermediates"])

    grad = jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True))
    v = torch_phydnet.phydnet_params(golden_files.group(data, "param"))
    return data, model, v, x, grad


@pytest.mark.slow
@pytest.mark.parametrize(("name", "step"), [("free", 208_333), ("teacher", 0)])
def test_the_published_model(name, step, record_property):
    free, _, v, x, grad = published()
    data = golden_files.load(f"baselines/phydnet_model_{name}")
    outputs, cotangents = (
        {k: channels_last(a) if a.ndim else a for k, a in group.items()}
        for group in (golden_files.group(data, p) for p in ("output", "cotangent"))
    )
    (_, (have, inside)), (grads, input_grad) = grad(v, x, step, cotangents)
    for k, want in outputs.items():
        error = largest(have[k], want)
        record_property("golden PhyDNet output error", float(error))
        assert error < 1e-5, k
    want = channels_last(data["grad/input/input_seq"])
    error = largest(input_grad, want)
    record_property("golden PhyDNet gradient error", float(error))
    assert error < 1e-4
    if stored := golden_files.group(data, "grad/param"):
        error = largest(grads, torch_phydnet.phydnet_params(stored))
        record_property("golden PhyDNet gradient error", float(error))
        assert error < 1e-4

    first = golden_files.load("baselines/phydnet_step_outputs")
    for k, ours in (
        ("output_image", "restored"),
        ("out_phys", "physical_part"),
        ("out_conv", "residual_part"),
        ("phycell_H", "physical_state"),
    ):
        want = channels_last(first[f"output/{k}"])
        assert largest(inside[ours][0][:, 0], want) < 1e-5, k
    assert np.array_equal(free["input/input_seq"][:, 0], first["input/x"])


def test_the_published_forecast(record_property):
    data, model, v, x, _ = published()
    want = channels_last(data["output/images"])[:, x.shape[1] - 1 :]
    error = largest(forecaster(model)(v, x), want)
    record_property("golden PhyDNet output error", float(error))
    assert error < 1e-5


@pytest.mark.parametrize(
    ("data", "shape", "count"),
    [
        ("mnist", (10, 64, 64, 1), 3_091_732),
        ("enso", (12, 24, 48, 1), 3_091_732),
        ("sevir", (13, 384, 384, 1), 13_710_612),
    ],
)
def test_parameters_of_the_paper(data, shape, count):
    model = PhyDNet(shape, shape, **PAPER_OPTIONS["phydnet"].get(data, {}))
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    assert set(v) == {"params"}
    assert sum(a.size for a in jax.tree.leaves(v)) == count


@pytest.mark.slow
def test_a_forecast_is_fed_back_with_the_other_channels_of_the_last_frame():
    """Two frames ahead is one ahead, after a frame that was itself forecast."""
    plane = (7, 9)
    model, v, x = make((3, *plane, 2), (2, *plane, 1))
    forecast = forecaster(model)(v, x)
    chex.assert_shape(forecast, (2, 2, *plane, 1))
    assert forecast.dtype == jnp.float32
    assert 0 < forecast.min() < forecast.max() < 1
    frame = jnp.concatenate([forecast[:, :1], x[:, -1:, ..., 1:]], axis=-1)
    longer = PhyDNet((4, *plane, 2), (1, *plane, 1), **SMALL)
    second = forecaster(longer)(v, jnp.concatenate([x, frame], axis=1))
    np.testing.assert_allclose(second[:, 0], forecast[:, 1], atol=1e-5)


@pytest.mark.slow
def test_planes_are_enlarged_with_zeros():
    model, v, x = make((3, 7, 9, 2), (1, 7, 9, 1))
    larger = PhyDNet((3, 8, 12, 2), (1, 8, 12, 1), **SMALL)
    grown = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 3), (0, 0)))
    want = forecaster(larger)(v, grown)[:, :, :7, :9]
    np.testing.assert_allclose(forecaster(model)(v, x), want, atol=1e-5)


@pytest.mark.slow
def test_export_for_any_batch():
    model, v, x = make()
    (b,) = jax.export.symbolic_shape("b")
    shape = jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
    artifact = jax.export.export(jax.jit(lambda x: model.apply(v, x)))(shape)
    np.testing.assert_allclose(artifact.call(x), forecaster(model)(v, x), atol=1e-5)


@pytest.mark.slow
def test_the_teacher():
    """At first true frames are fed back, at the end forecasts are."""
    model, train, v, x = taught()
    key, targets = jax.random.key(0), draw(2, *model.target_shape, seed=1)
    free = forecaster(model)(v, x)
    end = PUBLISHED_TEACHER_STEPS
    np.testing.assert_allclose(train(v, x, targets, end, key)[0], free, atol=1e-5)
    led = train(v, x, targets, 0, key)[0]
    np.testing.assert_allclose(led[:, 0], free[:, 0], atol=1e-5)
    assert not np.allclose(led[:, 1:], free[:, 1:], atol=1e-4)
    # The frame after the truth is the first forecast of inputs that end with it.
    truth = jnp.concatenate([targets[:, :1], x[:, -1:, ..., 1:]], axis=-1)
    longer = model.clone(input_shape=(4, 8, 12, 2))
    want = forecaster(longer)(v, jnp.concatenate([x, truth], axis=1))[:, 0]
    np.testing.assert_allclose(led[:, 1], want, atol=1e-5)
    # Nothing follows the last frame.
    same = train(v, x, targets.at[:, -1].set(0), 0, key)[0]
    np.testing.assert_array_equal(same, led)
    np.testing.assert_array_equal(
        jax.jit(functools.partial(model.apply, targets=targets, step=0))(v, x), free
    )


@pytest.mark.slow
def test_the_teacher_is_there_less_and_less_often():
    model, train, v, x = taught()
    targets = draw(2, *model.target_shape, seed=1)
    steps = [PUBLISHED_TEACHER_STEPS * share // 4 for share in (1, 3)]
    first = [
        np.concatenate(
            [train(v, x, targets, s, jax.random.key(i))[0] for i in range(40)]
        )
        for s in steps
    ]
    led = train(v, x, targets, 0, jax.random.key(0))[0][0, 1]
    counts = [
        np.sum([np.allclose(f[1], led, atol=1e-5) for f in s[::2]]) for s in first
    ]
    assert 22 <= counts[0] <= 38  # 30 expected, of 40
    assert 3 <= counts[1] <= 18  # 10 expected


def test_no_teacher_without_schedule_or_targets():
    model, v, x = make(teacher_steps=0)
    targets = draw(2, *model.target_shape, seed=1)
    apply = functools.partial(model.apply, train=True, mutable=["losses"])
    free = jax.jit(apply)(v, x)[0]
    led = jax.jit(functools.partial(apply, step=0))(v, x, targets=targets)[0]
    np.testing.assert_allclose(led, free, atol=1e-5)


@pytest.mark.slow
def test_the_losses():
    model, train, v, x = taught(reconstruction_weight=0.5, moment_weight=0.25)
    _, sown = train(v, x, draw(2, *model.target_shape), 0, jax.random.key(0))
    restored, losses = sown["intermediates"]["restored"][0], sown["losses"]
    chex.assert_shape(restored, (2, 2, 8, 12, 1))
    error = jnp.mean((restored - x[:, 1:, ..., :1]) ** 2)
    np.testing.assert_allclose(
        losses["reconstruction"][0], 0.5 * 2 / 3 * error, rtol=1e-5
    )
    kernel = v["params"]["physical"]["cells_0"]["derivative"]["kernel"]
    np.testing.assert_allclose(
        losses["moments"][0], 0.25 / 3 * moment_loss(kernel), rtol=1e-5
    )
    _, train, v, x = taught(reconstruction_weight=0.0, moment_weight=0.0)
    given = v, x, draw(2, *model.target_shape), 0, jax.random.key(0)
    assert not jax.eval_shape(train, *given)[1].get("losses")


@pytest.mark.slow
def test_what_can_be_looked_at():
    model, v, x = make()
    y, sown = jax.jit(functools.partial(model.apply, mutable="intermediates"))(v, x)
    np.testing.assert_allclose(y, forecaster(model)(v, x), atol=1e-5)
    shapes = {k: s[0].shape for k, s in sown["intermediates"].items()}
    assert shapes == {
        "restored": (2, 2, 8, 12, 1),
        "physical_part": (2, 5, 8, 12, 1),
        "residual_part": (2, 5, 8, 12, 1),
        "physical_state": (2, 5, 2, 3, 8),
    }


@pytest.mark.slow
def test_every_parameter_learns_with_recomputation_or_without():
    targets = draw(2, 3, 8, 12, 1, seed=1)

    def gradient(**options):
        _, train, v, x = taught(**options)

        def loss(v):
            forecast, sown = train(v, x, targets, 0, jax.random.key(0))
            terms = jax.tree.leaves(sown["losses"])
            return jnp.sum((forecast - targets) ** 2) + sum(terms)

        return jax.jit(jax.grad(loss))(v)

    grads = gradient()
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.abs(grad).max() > 0, jax.tree_util.keystr(path)
    chex.assert_trees_all_close(gradient(remat=True), grads, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_program_does_not_grow_with_the_frames():
    lines = []
    for frames in (10, 20):
        shape = (frames, 8, 8, 1)
        model = PhyDNet(shape, shape, **SMALL)
        x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        v = jax.eval_shape(model.init, jax.random.key(0), x)

        def loss(v, x, model=model):
            y, sown = model.apply(
                v,
                x,
                train=True,
                targets=x,
                step=0,
                rngs={"sampling": jax.random.key(0)},
                mutable=["losses"],
            )
            return jnp.mean((y - x) ** 2) + sum(jax.tree.leaves(sown))

        program = jax.make_jaxpr(jax.grad(loss))(v, x)
        lines.append(len(str(program).splitlines()))
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_linear_output():
    linear, v, x = make(target_shape=(1, 8, 12, 1), output="linear")
    squeezed = linear.clone(output="sigmoid")
    np.testing.assert_allclose(
        jax.nn.sigmoid(forecaster(linear)(v, x)),
        forecaster(squeezed)(v, x),
        atol=1e-6,
    )


@pytest.mark.slow
def test_bfloat16_keeps_float32_parameters_and_forecasts():
    model, v, x = make(dtype=jnp.bfloat16)
    forecast = forecaster(model)(v, x)
    assert forecast.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(v)} == {jnp.dtype("float32")}
    want = forecaster(make()[0])(v, x)
    np.testing.assert_allclose(forecast, want, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(features=5), "norm_groups must divide features 5; got 2"),
        (dict(norm_groups=0), "norm_groups=0: expected"),
        (dict(phycell_features=()), r"phycell_features=.*: expected"),
        (dict(phycell_features=(9, 8)), r"must divide phycell_features \(9, 8\)"),
        (dict(phycell_features=(12,)), "9 moments .* or set moment_weight=0"),
        (dict(convcell_features=(8, 6)), "2 features = 8; got .* \\(8, 6\\)"),
        (dict(phycell_kernel=4), "phycell_kernel must be a positive odd number; got 4"),
        (dict(output="tanh"), "output='tanh': expected"),
        (dict(teacher_steps=-1), "teacher_steps=-1: expected"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        PhyDNet((3, 8, 12, 1), (3, 8, 12, 1), **SMALL | options).check()


def test_refused_shapes():
    with pytest.raises(ValueError, match="four whole numbers"):
        PhyDNet((3, 8, 12), (3, 8, 12, 1)).check()
    with pytest.raises(ValueError, match="the same height and width"):
        PhyDNet((3, 8, 12, 1), (3, 8, 8, 1)).check()
    with pytest.raises(ValueError, match="got 1 input and 2 target channels"):
        PhyDNet((3, 8, 12, 1), (3, 8, 12, 2)).check()
    model, v, x = make()
    with pytest.raises(ValueError, match=r"inputs need .* got \(2, 3, 8, 8, 2\)"):
        model.apply(v, x[:, :, :, :8])
    with pytest.raises(ValueError, match=r"targets need .* got \(2, 3, 8, 12, 2\)"):
        model.apply(v, x, train=True, targets=x, step=0)
    with pytest.raises(ValueError, match="pass step"):
        model.apply(v, x, train=True, targets=x[..., :1])


def test_weights_of_another_model():
    data = published()[0]
    stored = golden_files.group(data, "param")
    with pytest.raises(ValueError, match="no entry encoder_E.c1.main.0.weight"):
        torch_phydnet.phydnet_params({})
    with pytest.raises(ValueError, match="no entry phycell.cell_list.0.F.conv1.weight"):
        part = {k: a for k, a in stored.items() if not k.startswith("phycell")}
        torch_phydnet.phydnet_params(part)
    with pytest.raises(ValueError, match="no entry convcell.cell_list.1.conv.bias"):
        part = {
            k: a for k, a in stored.items() if k != "convcell.cell_list.1.conv.bias"
        }
        torch_phydnet.phydnet_params(part)
    with pytest.raises(ValueError, match="needs 4 axes"):
        wrong = stored | {"decoder_D.upc3.weight": np.zeros(3)}
        torch_phydnet.phydnet_params(wrong)
    with pytest.raises(ValueError, match="upc3.bias has 2 numbers, .* 1"):
        wrong = stored | {"decoder_D.upc3.bias": np.zeros(2)}
        torch_phydnet.phydnet_params(wrong)
    with pytest.raises(ValueError, match="c1.main.1.bias has 3 numbers, .* 16"):
        wrong = stored | {"encoder_E.c1.main.1.bias": np.zeros(3)}
        torch_phydnet.phydnet_params(wrong)
    with pytest.raises(ValueError, match="has not: more"):
        torch_phydnet.phydnet_params(stored | {"more": np.zeros(7)})
