"""What was not observed never teaches: neither as a target nor as a frame to read."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax import models
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib
from tests.variables import drawn

SHAPE = (3, 8, 8, 1)
MODELS = {
    "predrnn": ("predrnn", dict(num_layers=1, features=2, kernel_size=1, patch=2)),
    "predrnn backward": (
        "predrnn",
        dict(
            num_layers=1,
            features=2,
            kernel_size=1,
            decoupling=True,
            reverse_sampling=True,
            reverse_input=True,
        ),
    ),
    "predrnn latents": (
        "predrnn",
        dict(num_layers=1, features=2, kernel_size=1, patch=1, downsampling=2),
    ),
    "e3d_lstm": ("e3d_lstm", dict(num_layers=1, features=2, kernel_size=(1, 1, 1))),
    "e3d_lstm latents": (
        "e3d_lstm",
        dict(num_layers=1, features=2, kernel_size=(1, 1, 1), downsampling=2, patch=1),
    ),
    "phydnet": (
        "phydnet",
        dict(
            features=2,
            norm_groups=1,
            phycell_features=(1,),
            phycell_kernel=1,
            phycell_groups=1,
            convcell_features=(4,),
        ),
    ),
}


@functools.cache
def learner(label):
    """One step of gradient descent, with and without land, and the state before it.

    After so few steps of a long training nearly all frames that are read are true.
    """
    name, options = MODELS[label]
    model = models.create_model(name, SHAPE, SHAPE, **options)
    tx = optax.sgd(0.1)
    create = functools.partial(
        state_lib.create_state, model=model, tx=tx, input_shape=SHAPE
    )
    state = jax.jit(create)(jax.random.key(0))
    weights = np.ones((1, 8, 8, 1), np.float32)
    weights[:, :2, :2] = 0  # land
    step = functools.partial(
        step_lib.update,
        model=model,
        tx=tx,
        learning_rate=lambda step: jnp.float32(0.1),
        loss_weights=weights,
        total_steps=100_000,
    )
    return jax.jit(step), state


def batch():
    generator = np.random.default_rng(0)
    values = generator.uniform(size=(2, 2, *SHAPE)).astype(np.float32)
    observed = generator.random((2, 2, *SHAPE)) < 0.8
    return dict(
        inputs=np.where(observed[0], values[0], 0),
        targets=values[1],
        inputs_observed=observed[0],
        observed=observed[1],
    )


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(label, marks=[pytest.mark.slow] * (label == "phydnet"))
        for label in MODELS
    ],
)
def test_unknown_targets_change_neither_loss_nor_gradient(label):
    step, state = learner(label)
    complete = batch()
    land = np.broadcast_to(np.arange(8) < 2, (8, 8))
    land = (land & land.T)[..., None]
    unknown = ~complete["observed"] | land
    results = [
        step(state, complete | dict(targets=np.where(unknown, other, values)))
        for values in [complete["targets"]]
        for other in (0.0, 1e3, np.nan)
    ]
    want, scalars = results[0]
    assert np.isfinite(scalars["loss"]) and scalars["grad_norm"] > 0
    for have, others in results[1:]:
        jax.tree.map(np.testing.assert_array_equal, have.params, want.params)
        assert others["loss"] == scalars["loss"]
    # Known values do matter.
    known = np.where(unknown, 0, complete["targets"] + 1)
    _, others = step(state, complete | dict(targets=known))
    assert others["loss"] != scalars["loss"]


@pytest.mark.parametrize("label", ["predrnn", "e3d_lstm", "phydnet"])
def test_unknown_context_is_not_restored(label):
    """What fills a gap of the inputs is read, but is nothing to be forecast."""
    name, options = MODELS[label]
    model = models.create_model(name, SHAPE, SHAPE, **options)
    x = batch()
    v = drawn(model.init, x["inputs"])
    context = {"phydnet": "reconstruction"}.get(name, "context")

    @jax.jit
    def loss(input_weights):
        _, sown = model.apply(
            v,
            x["inputs"],
            train=True,
            targets=x["targets"],
            input_weights=input_weights,
            step=0,
            rngs={"sampling": jax.random.key(0)},
            mutable="losses",
        )
        return sown["losses"][context][0]

    ones = np.ones(x["inputs"].shape, np.float32)
    whole = float(loss(ones))
    first = ones.copy()
    first[:, 0] = 0  # never forecast
    assert float(loss(first)) == whole
    parts = [np.where(where, ones, 0) for where in np.indices(ones.shape)[2:3] < 4]
    parts.append(ones - parts[0])
    np.testing.assert_allclose(sum(float(loss(p)) for p in parts), whole, rtol=1e-5)
    assert float(loss(0 * ones)) == 0


def test_a_model_reads_its_own_values_where_frames_are_unknown():
    """All unknown: as if it was never taught; one pixel: others are still read."""
    name, options = MODELS["predrnn"]
    model = models.create_model(name, SHAPE, SHAPE, **options, sampling_rate=0.0)
    x = batch()
    v = drawn(model.init, x["inputs"])

    @jax.jit
    def train(weights, targets):
        return model.apply(
            v,
            x["inputs"],
            train=True,
            targets=targets,
            weights=weights,
            step=0,
            rngs={"sampling": jax.random.key(0)},
        )

    ones = np.ones(x["targets"].shape, np.float32)
    free = jax.jit(model.apply)(v, x["inputs"])
    np.testing.assert_allclose(train(0 * ones, x["targets"]), free, atol=1e-5)
    taught = train(ones, x["targets"])
    assert not np.allclose(taught[:, 1], free[:, 1], atol=1e-4)
    own = x["targets"].copy()
    own[:, 0, 2, 3] = taught[:, 0, 2, 3]
    one = ones.copy()
    one[:, 0, 2, 3] = 0
    np.testing.assert_allclose(
        train(one, x["targets"])[:, 1], train(ones, own)[:, 1], atol=1e-6
    )
