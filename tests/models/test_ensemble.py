"""The mean of trained copies of a model."""

import jax
import numpy as np
import pytest

from earthformer_jax.models import create_model
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.models.hybrid import Hybrid, network_of

SHAPES = (3, 8, 8, 1), (2, 8, 8, 1)
SMALL = {"unet": dict(features=(4,), center_features=4)}
SIZE = 3
NETWORKS = ["unet", "conv_lstm"]  # with batch statistics, and with a recurrence


def filled(like, rng):
    """Variables of given shapes; variances are positive."""
    made = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype) / 9, like)
    return jax.tree.map(np.abs, made)


def test_mean_of_the_members():
    """Those of the model alone with its variables, batch statistics and base, too."""
    rng = np.random.default_rng(0)
    options = SMALL["unet"] | dict(base="damped_persistence")
    alone = create_model("unet", *SHAPES, **options)
    model = create_model("unet", *SHAPES, **options, ensemble=SIZE)
    assert isinstance(model, Ensemble) and model.member == alone
    inputs = rng.normal(size=(2, *SHAPES[0])).astype(np.float32)
    like = jax.eval_shape(alone.init, jax.random.key(0), inputs)
    each = [filled(like, rng) for _ in range(SIZE)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *each)
    variables = {kind: {"member": tree} for kind, tree in stacked.items()}
    wanted = [alone.apply(v, inputs) for v in each]
    members = np.asarray(model.apply(variables, inputs, method="members"))
    np.testing.assert_allclose(members, wanted, rtol=1e-5, atol=1e-6)
    forecast = np.asarray(model.apply(variables, inputs))
    np.testing.assert_allclose(forecast, np.mean(wanted, 0), rtol=1e-5, atol=1e-6)
    assert np.ptp(wanted, axis=0).max() > 0.01


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    """Variables are those of a member with a further first axis."""
    alone = create_model(name, *SHAPES, **SMALL.get(name, {}))
    model = create_model(name, *SHAPES, **SMALL.get(name, {}), ensemble=SIZE)
    inputs = jax.ShapeDtypeStruct((2, *SHAPES[0]), np.float32)
    like, stacked = (
        jax.eval_shape(m.init, jax.random.key(0), inputs) for m in (alone, model)
    )
    for kind in ("params", "batch_stats"):
        wanted = jax.tree.map(lambda x: (SIZE, *x.shape), dict(like.get(kind, {})))
        found = jax.tree.map(lambda x: x.shape, dict(stacked.get(kind, {})))
        assert found == ({"member": wanted} if wanted else {})
    assert jax.eval_shape(model.apply, stacked, inputs).shape == (2, *SHAPES[1])


def test_network_of_a_member():
    model = create_model("unet", *SHAPES, **SMALL["unet"], base="advection", ensemble=2)
    assert isinstance(model, Ensemble) and isinstance(model.member, Hybrid)
    assert network_of(model) is model.member.network


def test_it_is_not_trained_itself():
    model = create_model("unet", *SHAPES, **SMALL["unet"], ensemble=2)
    with pytest.raises(ValueError, match="train its members"):
        model.apply({}, np.zeros((1, *SHAPES[0])), train=True)


@pytest.mark.parametrize(
    "name, size, message",
    [
        ("unet", 0, "ensemble=0: expected a whole number of at least 1"),
        ("unet", 2.0, "ensemble=2.0: expected a whole number"),
        ("persistence", 2, "ensemble=2: model 'persistence' has nothing to learn"),
        ("conv_autoencoder", 2, "'conv_autoencoder' restores its inputs .* expected 1"),
    ],
)
def test_refusals(name, size, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, *SHAPES, ensemble=size)
