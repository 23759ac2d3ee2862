"""A network on a base: what it is untrained, which networks it takes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models import RESTORERS, create_model, names
from earthformer_jax.models.bases import create_base
from earthformer_jax.models.contract import uses_targets
from earthformer_jax.models.hybrid import Hybrid, network_of
from earthformer_jax.run.recipes import SMALL

SHAPES = (3, 16, 16, 2), (2, 16, 16, 1)
ALONE = ("persistence", "earthformer_ar", *RESTORERS)
NETWORKS = [n for n in names() if n not in ALONE]


def variables_of(model, rng):
    """Random variables, with a gain of 0 and the shapes of the model's own."""
    inputs = jnp.zeros((1, *model.input_shape))
    like = jax.eval_shape(model.init, jax.random.key(0), inputs)
    made = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype) / 9, like)
    if "batch_stats" in made:  # variances
        made["batch_stats"] = jax.tree.map(np.abs, made["batch_stats"])
    made["params"]["gain"] = np.zeros_like(made["params"]["gain"])
    return made


@pytest.mark.parametrize("base", ["persistence", "damped_persistence"])
def test_untrained_it_is_its_base(base):
    """Bitwise, with a network of any output; the gain is for each lead and channel."""
    rng = np.random.default_rng(0)
    model = create_model("unet", *SHAPES, **SMALL["test"]["unet"], base=base)
    variables = variables_of(model, rng)
    assert variables["params"]["gain"].shape == (2, 1, 1, 1)
    inputs = rng.normal(size=(2, *SHAPES[0])).astype(np.float32)
    constants = variables["batch_stats"].get("base", {})
    alone = create_base(base, *SHAPES).apply({"batch_stats": constants}, inputs)
    np.testing.assert_array_equal(model.apply(variables, inputs), alone)
    variables["params"]["gain"][1] = 1
    changed = np.asarray(model.apply(variables, inputs))
    np.testing.assert_array_equal(changed[:, 0], alone[:, 0])
    assert np.abs(changed[:, 1] - alone[:, 1]).max() > 0


def test_damped_persistence():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, *SHAPES[0])).astype(np.float32)
    factors = rng.uniform(size=SHAPES[1]).astype(np.float32)
    arrays = {"factors": factors, "center": np.full(1, 0.5, np.float32)}
    base = create_base("damped_persistence", *SHAPES)
    forecast = base.apply({"batch_stats": arrays}, inputs)
    wanted = 0.5 + factors * (inputs[:, -1:, ..., :1] - 0.5)
    np.testing.assert_allclose(forecast, wanted, rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network(name):
    """It can be trained without targets, and has no sigmoid for a correction."""
    options = SMALL["test"].get(name, {})
    if name == "earthformer":
        options = dict(base_units=16, num_heads=2, enc_depth=(1, 1), dec_depth=(1, 1))
    shapes = [(*shape[:3], 1) for shape in SHAPES]
    model = create_model(name, *shapes, **options, base="persistence")
    assert isinstance(model, Hybrid) and not uses_targets(model)
    assert network_of(model) is model.network and network_of(model.network)
    assert getattr(model.network, "output", "linear") == "linear"
    inputs = jax.ShapeDtypeStruct((2, *shapes[0]), np.float32)
    keys = {n: jax.random.key(0) for n in ("params", "dropout", "sampling")}
    like = jax.eval_shape(model.init, keys, inputs)

    def forecast(variables, inputs):
        collections = ["losses", "batch_stats"]
        return model.apply(
            variables, inputs, train=True, rngs=keys, mutable=collections
        )

    out, changed = jax.eval_shape(forecast, like, inputs)
    assert out.shape == (2, *shapes[1]) and out.dtype == np.float32
    assert uses_targets(model.network) <= (not changed.get("losses"))


@pytest.mark.parametrize(
    "name, base, message",
    [
        ("unet", "persistance", "base='persistance': .*did you mean persistence"),
        ("unet", 3, "base=3: expected an empty text or one of persistence, "),
        ("unet", None, "base=None: expected an empty text or one of persistence, "),
        ("persistence", "lim", "base='lim': model 'persistence' has nothing to learn"),
        ("conv_autoencoder", "lim", "base='lim': .*restores its inputs"),
    ],
)
def test_refusals(name, base, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, *SHAPES, base=base)


@pytest.mark.parametrize("base", ["persistence", "damped_persistence"])
def test_targets_that_are_not_among_the_inputs(base):
    with pytest.raises(ValueError, match=f"base='{base}': .*2 channels from inputs"):
        create_model("unet", (2, 16, 16, 1), (2, 16, 16, 2), base=base)
