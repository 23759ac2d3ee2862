"""Loops that each device runs for its own examples, and what they exchange."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.devices import examples
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.profiling.communication import collectives
from earthformer_jax.training import mesh as mesh_lib

STEPS, CHANNELS = 5, 3
RNG = np.random.default_rng(0)
WEIGHTS = {"kernel": RNG.normal(size=(CHANNELS, CHANNELS)).astype(np.float32)}


def loop(weights, sequence):
    """The states `[t, b, c]` of all steps, and their mean square."""

    def step(state, x):
        state = jnp.tanh(x + state @ weights["kernel"])
        return state, state

    states = jax.lax.scan(step, jnp.zeros_like(sequence[0]), sequence)[1]
    return states, examples.mean(jnp.mean(jnp.square(states)))


def loss(weights, sequence):
    run = shared_by_examples(loop, axes=(1,), out_axes=(1, None))
    states, mean = run(weights, sequence)
    return jnp.sum(states) + mean, states


@pytest.mark.parametrize("count", [8, 6])
def test_gradients_are_exchanged_once(count):
    """Six examples cannot be shared by four devices: then the compiler decides."""
    sequence = RNG.normal(size=(STEPS, count, CHANNELS)).astype(np.float32)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    want = step(WEIGHTS, sequence)
    mesh = mesh_lib.data_mesh()
    assert mesh.size == 4
    weights = jax.device_put(WEIGHTS, mesh_lib.replicated(mesh))
    by_example = jax.NamedSharding(mesh, jax.P(None, mesh_lib.EXAMPLES))
    if count == 6:
        by_example = mesh_lib.replicated(mesh)
    sequence = jax.device_put(sequence, by_example)
    program = step.lower(weights, sequence).compile()
    for a, b in zip(
        jax.tree.leaves(program(weights, sequence)), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    found = collectives(program.as_text() or "", mesh.size)
    exchanged = [one for one in found if (CHANNELS, CHANNELS) in one.shapes]
    assert sum(one.times for one in exchanged) == (1 if count == 8 else 0)
