"""Gradients of stencils whose examples lie on several devices."""

import jax
import numpy as np
import pytest

from earthformer_jax.ops.tuned.stencil import apply_stencil
from earthformer_jax.profiling.communication import collectives
from earthformer_jax.training import mesh as mesh_lib

RNG = np.random.default_rng(0)
FRAMES = RNG.normal(size=(8, 6, 10, 16)).astype(np.float32)
WEIGHTS = RNG.normal(size=(3, 16)).astype(np.float32)
OFFSETS = ((0, 0), (-1, 2), (1, -1))


@pytest.mark.parametrize("count", [8, 6])
def test_examples_stay_on_their_device(count):
    """The gradient of the weights, which is summed plane by plane, sends sums only.

    Six examples cannot be shared equally by four devices.
    """
    mesh = mesh_lib.data_mesh()
    assert mesh.size == 4

    def loss(weights, x):
        return (apply_stencil(x[:count], weights, OFFSETS, (6, 10)) ** 2).sum()

    arguments = (
        jax.device_put(WEIGHTS, mesh_lib.replicated(mesh)),
        jax.device_put(FRAMES, mesh_lib.by_example(mesh)),
    )
    gradient = jax.jit(jax.grad(loss)).lower(*arguments).compile()
    if count % mesh.size == 0:
        found = collectives(str(gradient.as_text()), mesh.size)
        assert found and {x.kind for x in found} == {"all-reduce"}
        assert max(x.bytes for x in found) < FRAMES[0].nbytes
    np.testing.assert_allclose(
        gradient(*arguments), jax.grad(loss)(WEIGHTS, FRAMES), rtol=1e-5, atol=1e-4
    )
