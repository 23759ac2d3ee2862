"""Functions of single frames: the same for any order of axes, on one device or more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from earthformer_jax.layers.frames import each_frame, loop_of_examples
from earthformer_jax.ops.convolution import convolve
from earthformer_jax.profiling.communication import collectives
from earthformer_jax.training import mesh as mesh_lib

RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(4, 3, 5, 6, 2)).astype(np.float32)  # [b, t, h, w, c]
KERNEL = RNG.normal(size=(3, 3, 2, 2)).astype(np.float32)


def smooth(frames):
    return convolve(frames, jnp.asarray(KERNEL), ((1, 1), (1, 1)))


def time_first(frames):
    return each_frame(smooth, frames.swapaxes(0, 1), time_first=True).swapaxes(0, 1)


def test_frames_are_independent():
    """A function sees frame after frame, whichever axis comes first."""
    expected = np.stack([smooth(x) for x in FRAMES])
    for found in (each_frame(smooth, jnp.asarray(FRAMES)), time_first(FRAMES)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("function", [lambda x: each_frame(smooth, x), time_first])
def test_examples_stay_on_their_device(function):
    """No device is sent the frames of others, in forecasts or gradients."""
    mesh = mesh_lib.data_mesh()
    assert mesh.size == 4
    x = jax.device_put(FRAMES, mesh_lib.by_example(mesh))

    def loss(x):
        return (function(x) ** 2).sum()

    step = jax.jit(jax.value_and_grad(loss)).lower(x).compile()
    found = collectives(str(step.as_text()), mesh.size)
    assert {x.kind for x in found} <= {"all-reduce"}
    assert sum(x.bytes for x in found) < x.nbytes / 10
    for a, b in zip(step(x), jax.value_and_grad(loss)(FRAMES), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


class Step(nn.Module):
    """Adds a frame to the state, after a linear layer."""

    @nn.compact
    def __call__(self, state, frame):
        state = jnp.tanh(frame + nn.Dense(2, name="layer")(state))
        return state, state


class Loop(nn.Module):
    """Runs over `[b, t, h, w, c]`."""

    @nn.compact
    def __call__(self, frames):
        steps = nn.scan(
            Step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )

        def loop(steps, frames, forward):
            frames = jnp.where(forward, frames, jnp.flip(frames, axis=1))
            return steps(jnp.zeros_like(frames[:, 0]), frames)[1:]

        layer, forward = steps(name="steps"), jnp.asarray(True)
        (out,) = loop_of_examples(
            loop, layer, frames, forward, axes=(0, None), out_axes=(0,)
        )
        return out


def test_weights_of_a_loop_are_exchanged_once():
    model, mesh = Loop(), mesh_lib.data_mesh()
    variables = model.init(jax.random.key(0), FRAMES)
    assert jax.tree.map(jnp.shape, variables["params"]) == {
        "steps": {"layer": {"kernel": (2, 2), "bias": (2,)}}
    }

    def loss(variables, frames):
        return jnp.sum(jnp.square(jnp.asarray(model.apply(variables, frames))))

    step = jax.jit(jax.value_and_grad(loss))
    want = step(variables, FRAMES)
    x = jax.device_put(FRAMES, mesh_lib.by_example(mesh))
    variables = jax.device_put(variables, mesh_lib.replicated(mesh))
    program = step.lower(variables, x).compile()
    found = collectives(program.as_text() or "", mesh.size)
    assert {x.kind for x in found} == {"all-reduce"}
    assert sum(x.bytes * x.times for x in found) == 4 * (4 + 2 + 1)
    for a, b in zip(
        jax.tree.leaves(program(variables, x)), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
