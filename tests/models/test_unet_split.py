"""A UNet split among devices has the gradients of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.unet import UNet

DEVICES = 4
SHAPE = (2, 8, 8, 1)  # the centre has 4 rows, one for each device


@pytest.mark.slow
def test_gradients_of_many_features():
    """In float64, where wrong terms cannot be taken for rounding.

    With fewer rows than devices XLA's partitioner gives wrong gradients, but only with
    8 features or more.
    """
    with jax.enable_x64(True):
        model = UNet(
            SHAPE, SHAPE, (16,), 16, dtype=jnp.float64, param_dtype=jnp.float64
        )
        x, y = np.random.default_rng(0).normal(size=(2, 2, *SHAPE))
        variables = jax.jit(model.init)(jax.random.key(0), x)
        params, statistics = variables["params"], variables["batch_stats"]

        def loss(params, x, y):
            variables = {"params": params, "batch_stats": statistics}
            z, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
            return jnp.mean(jnp.square(z - y))

        step = jax.jit(jax.value_and_grad(loss))
        want = jax.device_get(step(params, x, y))
        mesh = jax.make_mesh(
            (DEVICES,), ("space",), axis_types=(jax.sharding.AxisType.Auto,)
        )
        params = jax.device_put(params, jax.NamedSharding(mesh, jax.P()))
        split = jax.NamedSharding(mesh, jax.P(None, None, "space"))
        have = jax.device_get(step(params, *jax.device_put((x, y), split)))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(want[1])) > 0.1
    for a, b in zip(jax.tree.leaves(have), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
