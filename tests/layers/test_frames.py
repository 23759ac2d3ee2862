"""Functions of single frames: the same for any order of axes, on one device or more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.frames import each_frame
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
