"""UNet: the Keras model's numbers, parameters, shapes, modes, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.interop import keras_unet
from earthformer_jax.models import paper
from earthformer_jax.models.unet import UNet
from tests import golden_files

SMALL = dict(features=(3, 4), center_features=5)
SHAPES = ((3, 8, 12, 2), (2, 8, 12, 1))
# The short file lacks the gradients of parameters, for the sake of its size.
WHOLE = golden_files.shared_folder() is not None
GOLDEN = (
    "3level_enso_eval",
    "3level_enso_train" if WHOLE else "3level_enso_train_short",
    "4level_eval",
    pytest.param("4level_train", marks=pytest.mark.slow),
)
# Here one input of a ReLU is 2e-6, and rounding to float32 moves it below zero.
GRADIENT_IN_FLOAT64 = ("4level_train",)


def largest(have, want):
    """Largest difference relative to the largest value."""
    have, want = jax.tree.leaves(have), jax.tree.leaves(want)
    scale = max(np.abs(w).max() for w in want)
    return max(np.abs(h - w).max() for h, w in zip(have, want, strict=True)) / scale


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_the_keras_model(name, record_property):
    data = golden_files.load(f"baselines/unet_{name}")
    config, weights = data["config"], golden_files.group(data, "param")
    height, width, channels = config["input_shape"]
    model = UNet(
        (channels, height, width, 1),
        (config["num_outputs"], height, width, 1),
        config["encoder_widths"],
        config["center_width"],
    )
    train = config["mode"] == "train"
    v = keras_unet.unet_params(weights)

    def frames(planes):
        return np.moveaxis(planes, -1, 1)[..., None]

    def forward(params, x):
        v_all = {"params": params, "batch_stats": v["batch_stats"]}
        return model.apply(v_all, x, train=train, mutable="batch_stats")

    @jax.jit
    def gradients(params, x, cotangent):
        _, pull, _ = jax.vjp(forward, params, x, has_aux=True)
        return pull(cotangent)

    x, cotangent = frames(data["input/x"]), frames(data["cotangent/y"])
    y, after = jax.jit(forward)(v["params"], x)
    error = largest(y, frames(data["output/y"]))
    record_property("golden UNet output error", float(error))
    assert error < 1e-5

    if train:
        stored = golden_files.group(data, "output/after_fused_float32")
        want = keras_unet.unet_params(weights | stored)["batch_stats"]
        error = largest(after["batch_stats"], want)
        record_property("golden UNet batch statistics error", float(error))
        assert error < 1e-5

    args = (v["params"], x, cotangent)
    if name in GRADIENT_IN_FLOAT64:
        with jax.enable_x64(True):
            args = jax.tree.map(lambda a: np.asarray(a, np.float64), args)
            grads = jax.device_get(gradients(*args))
    else:
        grads = gradients(*args)
    stored = golden_files.group(data, "grad")
    have, want = [grads[1]], [frames(stored["input/x"])]
    stored = golden_files.group(stored, "param")
    if stored:
        # Nothing is compared with the running statistics, but the mapping wants them.
        want.append(keras_unet.unet_params(weights | stored)["params"])
        have.append(grads[0])
    error = largest(have, want)
    record_property("golden UNet gradient error", float(error))
    assert error < 1e-4


@pytest.mark.parametrize(
    ("data", "parameters", "with_statistics"),
    [
        ("mnist", 16_555_114, 16_564_970),
        ("sevir", 16_556_044, 16_565_900),
        ("enso", 12_062_254, 12_069_038),
    ],
)
def test_parameters_of_the_paper(data, parameters, with_statistics):
    model = UNet(*paper.SHAPES[data], **paper.PAPER_OPTIONS["unet"].get(data, {}))
    x = jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32)
    v = jax.eval_shape(model.init, jax.random.key(0), x)
    assert sum(a.size for a in jax.tree.leaves(v["params"])) == parameters
    assert sum(a.size for a in jax.tree.leaves(v)) == with_statistics


@functools.cache
def make(shapes=SHAPES, **options):
    model = UNet(*shapes, **SMALL | options)
    x = jax.random.normal(jax.random.key(1), (2, *model.input_shape))
    v = jax.jit(model.init)(jax.random.key(0), x)
    # Statistics and biases that are told apart from zeros and ones.
    rng = np.random.default_rng(2)
    return model, jax.tree.map(lambda a: a + rng.uniform(0, 0.3, a.shape), v), x


forecaster = functools.cache(lambda model: jax.jit(model.apply))


def test_forecasts():
    model, v, x = make()
    forecast = forecaster(model)(v, x)
    assert forecast.shape == (2, *model.target_shape)
    assert forecast.dtype == jnp.float32
    others = forecaster(model)(v, x.at[0].multiply(-2))
    np.testing.assert_allclose(others[1], forecast[1], atol=1e-5)
    assert not np.allclose(others[0], forecast[0], atol=1e-3)


def test_the_fresh_model_begins_near_zero():
    model = UNet(*SHAPES, **SMALL)
    v = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *SHAPES[0])))
    for layer in ("encoder_0", "center"):
        np.testing.assert_array_equal(v["params"][layer]["conv_0"]["bias"], 0)
    kernel = v["params"]["center"]["conv_0"]["kernel"]  # Glorot-uniform
    bound = np.sqrt(6 / (9 * 4 + 9 * 5))
    assert 0.8 * bound < np.abs(kernel).max() <= bound


def test_any_size():
    """Planes are enlarged with zeros behind and cut again."""
    model, v, x = make(((3, 7, 9, 2), (2, 7, 9, 1)))
    forecast = forecaster(model)(v, x)
    larger = UNet((3, 8, 12, 2), (2, 8, 12, 1), **SMALL)
    grown = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 3), (0, 0)))
    want = forecaster(larger)(v, grown)[:, :, :7, :9]
    np.testing.assert_allclose(forecast, want, atol=1e-5)


def test_channels_of_forecasts():
    """The head's channels are frames first: frame k, channel c is k * C + c."""
    model, v, x = make(((3, 8, 12, 2), (2, 8, 12, 3)))
    only = np.zeros(6)
    only[1 * 3 + 2] = 1
    head = {"kernel": v["params"]["head"]["kernel"] * 0, "bias": jnp.asarray(only)}
    marked = forecaster(model)(v | {"params": v["params"] | {"head": head}}, x)
    assert marked.shape == (2, 2, 8, 12, 3)
    np.testing.assert_array_equal(marked[:, 1, ..., 2], 1)
    assert marked.sum() == 2 * 8 * 12


def test_every_parameter_learns():
    """In training, biases in front of a normalisation have no effect."""
    model, v, x = make()

    @functools.partial(jax.jit, static_argnums=1)
    def grads(v, train):
        def loss(params):
            y, _ = model.apply(v | {"params": params}, x, train=train, mutable=True)
            return jnp.sum(y**2)

        return jax.grad(loss)(v["params"])

    for train in (False, True):
        leaves = jax.tree_util.tree_leaves_with_path(grads(v, train))
        scale = max(np.abs(g).max() for _, g in leaves)
        names = [jax.tree_util.keystr(p, simple=True, separator="/") for p, _ in leaves]
        still = {
            name
            for name, (_, g) in zip(names, leaves, strict=True)
            if np.abs(g).max() < 1e-6 * scale
        }
        silent = {n for n in names if n.endswith("bias") and "norm" not in n}
        silent -= {"head/bias"}
        assert still == (silent if train else set())


@functools.cache
def trainer(model):
    """(variables, inputs) to the forecast in training, and the variables after it."""

    @jax.jit
    def step(v, x):
        y, after = model.apply(v, x, train=True, mutable="batch_stats")
        return y, v | after

    return step


def test_training_normalises_with_the_batch():
    """Without memory the statistics kept are the batch's, but with n - 1 for n."""
    model, v, x = make(norm_momentum=0.0)
    y, after = trainer(model)(v, x)
    counts = {"encoder_0": 192, "encoder_1": 48, "center": 12}
    counts |= {"decoder_0": 192, "decoder_1": 48}

    def biased(path, stat):
        n, is_var = counts[path[0].key], path[-1].key == "var"
        return stat * (n - 1) / n if is_var else stat

    stats = jax.tree_util.tree_map_with_path(biased, after["batch_stats"])
    forecast = forecaster(model)(v | {"batch_stats": stats}, x)
    np.testing.assert_allclose(forecast, y, atol=1e-5)
    shifted, _ = trainer(model)(v, x.at[0].add(1.0))
    assert not np.allclose(shifted[1], y[1])


def test_bfloat16_keeps_float32_parameters_and_forecasts():
    model, v, x = make(dtype=jnp.bfloat16)
    forecast, after = trainer(model)(v, x)
    assert forecast.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves((v, after))} == {jnp.dtype("float32")}
    want, _ = trainer(make()[0])(v, x)
    assert np.abs(forecast - want).max() < 0.1 * np.abs(want).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(features=()), "features=.*: expected a sequence"),
        (dict(features=(4, 0)), r"features=\(4, 0\): expected"),
        (dict(center_features=0), "center_features=0: expected"),
        (dict(norm_momentum=1.0), "norm_momentum=.*less than 1"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(*SHAPES, **SMALL | options).check()


def test_refused_shapes():
    with pytest.raises(ValueError, match="the same height and width"):
        UNet((3, 8, 12, 1), (3, 8, 8, 1)).check()
    with pytest.raises(ValueError, match="four whole numbers"):
        UNet((3, 8, 12), (3, 8, 12, 1)).check()
    model, v, _ = make()
    with pytest.raises(ValueError, match=r"got \(2, 3, 8, 8, 2\)"):
        model.apply(v, jnp.zeros((2, 3, 8, 8, 2)))
