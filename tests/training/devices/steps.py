"""Steps of plain gradient descent on some devices."""

import functools

import jax
import numpy as np
import optax

from earthformer_jax.losses.pointwise import SquaredError
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training import settings
from earthformer_jax.training import state as state_lib
from earthformer_jax.training.devices.programs import Program, make_program
from tests.training import toy

RATE = 0.1  # of plain gradient descent: Adam would hide wrong factors of the gradient


def batch_of(size: int) -> dict[str, np.ndarray]:
    """Toy examples; a third of the last targets is unknown."""
    source = toy.ToySource(size)
    examples = [source[i] for i in range(size)]
    batch = {k: np.stack([e[k] for e in examples]) for k in ("inputs", "targets")}
    observed = np.ones(batch["targets"].shape, bool)
    observed[-1, 0] = False
    return batch | {"observed": observed}


def settings_of(batch_size: int, micro_batch: int, **parallel) -> settings.Settings:
    """Settings of a training, with those of its devices."""
    train = dict(batch_size=batch_size, micro_batch=micro_batch)
    return settings.from_config({"train": train, "parallel": parallel})


def first_state(network, input_shape):
    """A function of a key: the state before the first step."""
    return functools.partial(
        state_lib.create_state,
        model=network,
        tx=optax.sgd(RATE),
        input_shape=input_shape,
        ema=True,
    )


def descent(config, mesh, layout, network) -> Program:
    """The program of a step, for a state that is laid out like this."""
    return make_program(
        config,
        mesh,
        layout,
        model=network,
        tx=optax.sgd(RATE),
        learning_rate=optax.constant_schedule(RATE),
        loss_weights=np.ones((1, 1, 1, 1), np.float32),
        loss=SquaredError(),
        ema_decay=0.5,
        total_steps=8,
    )


def program_of(network, mesh, *, batch_size, micro_batch, steps=1, **parallel):
    """A function of a batch: the state after steps on it, and the last scalars."""
    config = settings_of(batch_size, micro_batch, **parallel)
    init, key = first_state(network, toy.SHAPE), jax.random.key(0)
    layout = mesh_lib.state_sharding(jax.eval_shape(init, key), mesh)
    state = jax.jit(init, out_shardings=layout)(key)
    program = descent(config, mesh, layout, network)

    def take(batch):
        now, scalars = jax.tree.map(jax.numpy.copy, state), {}  # a step overwrites it
        for _ in range(steps):
            now, scalars = program.take_step(now, program.put(batch))
        return now, jax.device_get(scalars)

    return take


def assert_close(found, expected):
    """Equal within 1e-5, leaf by leaf."""
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5),
        jax.device_get(found),
        jax.device_get(expected),
    )
