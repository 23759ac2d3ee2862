"""Resampling of fields that are split: no device gathers one between two levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.layers.resample import PatchMerging, Upsample
from earthformer_jax.ops.devices import split
from earthformer_jax.profiling.communication import collectives

DEVICES = 4
# Four devices can share 12 rows, or 8 or 16 columns, but not 6 rows.
LAYERS = {
    "up": (Upsample(4, (12, 16)), (6, 8), jax.P(None, None, None, "space")),
    "down": (PatchMerging(4), (12, 16), jax.P(None, None, "space")),
}


@pytest.mark.parametrize("name", LAYERS)
def test_fields_are_not_gathered(name):
    """Neither in a layer nor in its gradient, which are those of one device."""
    layer, plane, laid_out = LAYERS[name]
    x = np.random.default_rng(0).normal(size=(1, 3, *plane, 4)).astype(np.float32)
    params = jax.jit(layer.init)(jax.random.key(0), x)

    def loss(params, x):
        y = layer.apply(params, split.split_field(jnp.tanh(x)))
        return jnp.mean(jnp.square(split.split_field(jnp.asarray(y)) - 1))

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    want = step(params, x)
    mesh = jax.make_mesh(
        (DEVICES,), ("space",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    arguments = (
        jax.device_put(params, jax.NamedSharding(mesh, jax.P())),
        jax.device_put(x, jax.NamedSharding(mesh, laid_out)),
    )
    program = step.lower(*arguments).compile()
    have = program(*arguments)
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    found = collectives(program.as_text() or "", DEVICES)
    assert found and not any(one.kind == "all-gather" for one in found)
