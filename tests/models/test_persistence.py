"""Persistence: the reference's numbers, channels, and that the trainer can run it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax.models.persistence import Persistence
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib
from tests import golden_files


def test_the_reference(record_property):
    data = golden_files.load("baselines/persistence")
    x, want = data["input/in_seq"], data["output/pred"]
    model = Persistence(x.shape[1:], want.shape[1:])
    forecast = model.apply({"params": {}}, x)
    np.testing.assert_array_equal(forecast, want)
    mse = np.mean((np.asarray(forecast) - data["input/target"]) ** 2)
    error = abs(mse / data["output/mse"] - 1)
    record_property("golden persistence error", float(error))
    assert error < 1e-5


def test_only_the_first_channels():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 3))
    forecast = Persistence((3, 4, 5, 3), (6, 4, 5, 2)).apply({}, x)
    assert forecast.shape == (2, 6, 4, 5, 2)
    for lead in range(6):
        np.testing.assert_array_equal(forecast[:, lead], x[:, -1, ..., :2])


def test_whole_numbers_become_float32():
    model = Persistence((1, 2, 2, 1), (1, 2, 2, 1))
    assert model.apply({}, jnp.ones((1, 1, 2, 2, 1), jnp.int32)).dtype == jnp.float32
    half = model.apply({}, jnp.ones((1, 1, 2, 2, 1), jnp.bfloat16))
    assert half.dtype == jnp.float32


def test_a_training_step_changes_nothing():
    shape = (2, 3, 4, 1)
    model, tx = Persistence(shape, shape), optax.adam(1e-3)
    state = state_lib.create_state(
        jax.random.key(0), model=model, tx=tx, input_shape=shape, ema=True
    )
    assert state_lib.abstract_variables(model, shape) == {"params": {}}
    assert state_lib.count_parameters(state.params) == 0
    x = jax.random.normal(jax.random.key(1), (4, *shape))
    for parts in (1, 2):
        after, scalars = step_lib.update(
            state,
            {"inputs": x, "targets": jnp.zeros_like(x)},
            model=model,
            tx=tx,
            learning_rate=lambda step: 1e-3,
            loss_weights=np.ones(1, np.float32),
            micro_batches=parts,
            ema_decay=0.9,
        )
        np.testing.assert_allclose(scalars["loss"], np.mean(x[:, -1] ** 2), rtol=1e-5)
        assert scalars["grad_norm"] == 0
        assert after.params == state.params == {}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 4, 4), (2, 4, 4, 1)), "input_shape=.*: expected four whole numbers"),
        (((2, 4, 4, 1), (0, 4, 4, 1)), "target_shape=.*: expected four whole numbers"),
        (((2, 4, 4, 1), (2, 4, 5, 1)), "the same height and width"),
        (((2, 4, 4, 1), (2, 4, 4, 2)), "cannot forecast 2 channels from inputs of 1"),
    ],
)
def test_refused_shapes(shapes, message):
    with pytest.raises(ValueError, match=message):
        Persistence(*shapes).check()


def test_refused_inputs():
    model = Persistence((2, 4, 4, 1), (2, 4, 4, 1))
    with pytest.raises(ValueError, match=r"got \(1, 3, 4, 4, 1\)"):
        model.apply({}, jnp.zeros((1, 3, 4, 4, 1)))
