"""Parameters in bfloat16 learn what float32 ones would, on average."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from earthformer_jax.training import optimizer
from earthformer_jax.training import settings as settings_lib
from earthformer_jax.training import state as state_lib
from earthformer_jax.training.precision import storage


def test_rounding_is_right_on_average():
    x = jnp.concatenate(
        [jnp.full(4096, value) for value in (1.001, -3.0e-5, 300.3, 1e-30)]
    )
    rounded = jax.jit(storage.round_at_random)(x, jax.random.key(0))
    assert rounded.dtype == jnp.bfloat16
    for values, want in zip(jnp.split(rounded, 4), jnp.split(x, 4), strict=True):
        near = {float(v) for v in np.unique(np.asarray(values, np.float32))}
        assert len(near) == 2 and min(near) < want[0] < max(near)
        gap = max(near) - min(near)
        mean = np.asarray(values, np.float64).mean()
        assert abs(mean - float(want[0])) < 4 * 0.5 * gap / 64  # 4 sigma


def test_numbers_that_bfloat16_has_stay():
    x = jnp.asarray([0.0, -0.0, 1.5, -2.0, jnp.inf, -jnp.inf, jnp.nan])
    rounded = storage.round_at_random(x, jax.random.key(1))
    np.testing.assert_array_equal(np.asarray(rounded, np.float32), x)


def test_small_updates_add_up():
    params = {"a": jnp.ones(256, jnp.bfloat16), "b": jnp.ones(2)}
    updates = jax.tree.map(lambda x: jnp.full(x.shape, 1e-3), params)
    apply = jax.jit(storage.apply_updates)
    for key in jax.random.split(jax.random.key(0), 100):
        params = apply(params, updates, key)
    assert params["a"].dtype == jnp.bfloat16 and params["b"].dtype == jnp.float32
    np.testing.assert_allclose(
        np.asarray(params["a"], np.float64).mean(), 1.1, rtol=3e-3
    )
    np.testing.assert_allclose(params["b"], 1.1, rtol=1e-5)


def test_other_parameters_are_updated_as_by_optax():
    params = {"a": jnp.arange(3.0), "b": jnp.ones(2, jnp.float16)}
    updates = {"a": jnp.full(3, 0.1), "b": jnp.full(2, 0.3, jnp.float16)}
    got = storage.apply_updates(params, updates, jax.random.key(0))
    jax.tree.map(
        np.testing.assert_array_equal, got, optax.apply_updates(params, updates)
    )


class Half:
    """A model with one parameter in bfloat16."""

    def init(self, rngs, inputs, train):
        return {"params": {"kernel": jnp.ones((2, 2), jnp.bfloat16)}}


def test_moments_and_averages_are_float32():
    optim = settings_lib.OptimSettings()
    tx, _ = optimizer.make_optimizer(optim, 10)
    create = functools.partial(
        state_lib.create_state, model=Half(), tx=tx, input_shape=(1, 1, 1, 1), ema=True
    )
    state = jax.eval_shape(create, jax.random.key(0))
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    assert len(moments) == 2 and all(x.dtype == jnp.float32 for x in moments)
    assert state.params["kernel"].dtype == jnp.bfloat16
    assert state.ema_params["kernel"].dtype == jnp.float32
    state = create(jax.random.key(0))
    assert state.variables["params"]["kernel"].dtype == jnp.bfloat16
    grads = {"kernel": jnp.ones((2, 2))}
    updates, _ = tx.update(grads, state.opt_state, state.params)
    assert updates["kernel"].dtype == jnp.float32
