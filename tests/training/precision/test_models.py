"""Models that train in float16."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from earthformer_jax import models
from earthformer_jax.training import state as state_lib
from earthformer_jax.training import step as step_lib
from tests.models.test_forward_mode import SMALLEST, quickly_compiled

STEPS = 24
NAMES = ("unet", "conv_lstm", "earthformer")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_loss_falls_and_the_scale_finds_its_place(name):
    """Steps overflow while the scale is too large, and those after them learn."""
    shape, options = SMALLEST[name]
    model = models.create_model(name, shape, shape, dtype="float16", **options)
    schedule = optax.constant_schedule(0.01)
    tx = optax.adam(schedule)
    make = functools.partial(
        state_lib.create_state,
        model=model,
        tx=tx,
        input_shape=shape,
        loss_scale=2.0**24,
    )
    state = quickly_compiled(make)(jax.random.key(0))
    update = functools.partial(
        step_lib.update,
        model=model,
        tx=tx,
        learning_rate=schedule,
        loss_weights=np.ones((1, 1, 1, 1), np.float32),
        total_steps=STEPS,
    )
    step = quickly_compiled(update)
    random = np.random.default_rng(0)
    fields = 1 + random.normal(size=(4, 2 * shape[0], *shape[1:])).astype(np.float32)
    batch = dict(inputs=fields[:, : shape[0]], targets=fields[:, shape[0] :])
    losses = []
    for _ in range(STEPS):
        state, scalars = step(state, batch)
        losses.append(float(scalars["loss"]))
    skipped = int(state.loss_scale.skipped)
    assert skipped < STEPS / 2 and state.loss_scale.scale == 2.0 ** (24 - skipped)
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[skipped : skipped + 3])
    for leaf in jax.tree.leaves(state.variables):
        assert jnp.isfinite(leaf).all()
