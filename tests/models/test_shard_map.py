"""Every model in `jax.shard_map` with `check_vma=True`, which is checked in tracing."""

import jax
import jax.numpy as jnp
import pytest

from earthformer_jax import models
from earthformer_jax.models.contract import uses_targets
from tests.models.test_forward_mode import SMALLEST

MESH = jax.sharding.AbstractMesh(
    (2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
)


def traced_gradient(name, **more):
    """Traces the gradient of a loss with the batch split, the parameters not."""
    shape, options = SMALLEST[name]
    model = models.create_model(name, shape, shape, **options | more)
    inputs = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), inputs))
    params = variables.pop("params", {})

    def gradient(params, rest, inputs, targets, key):
        own = jax.random.fold_in(key, jax.lax.axis_index("data"))
        taught = dict(targets=targets, step=0) if uses_targets(model) else {}

        def loss(params):
            forecast, _ = model.apply(
                {"params": params, **rest},
                inputs,
                train=True,
                rngs=dict(dropout=own, sampling=key),
                mutable=["batch_stats", "losses"],
                **taught,
            )
            return jax.lax.pmean(jnp.mean(jnp.square(forecast - targets)), "data")

        return jax.value_and_grad(loss)(params)

    split, same = jax.P("data"), jax.P()
    sharded = jax.shard_map(
        gradient,
        mesh=MESH,
        in_specs=(same, same, split, split, same),
        out_specs=(same, same),
        check_vma=True,
    )
    key = jax.eval_shape(lambda: jax.random.key(0))
    return params, jax.eval_shape(sharded, params, variables, inputs, inputs, key)


@pytest.mark.parametrize("name", models.names())
def test_gradient(name):
    """The gradient of replicated parameters is replicated: `out_specs` hold."""
    params, (loss, gradient) = traced_gradient(name)
    assert loss.shape == ()
    assert jax.tree.map(jnp.shape, gradient) == jax.tree.map(jnp.shape, params)


def test_loop_over_blocks():
    """The state of the loop is the field, which varies, and the global vectors."""
    _, (loss, _) = traced_gradient(
        "earthformer", enc_depth=(2,), dec_depth=(2,), scan_blocks=True
    )
    assert loss.shape == ()
