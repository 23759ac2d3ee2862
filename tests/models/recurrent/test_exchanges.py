"""Every device runs the loops of recurrent networks for the examples that it has.

Otherwise the compiler exchanges what each round of a loop adds to the gradients.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
from jax.extend import core

from earthformer_jax import models
from earthformer_jax.models.contract import uses_targets
from earthformer_jax.training import mesh as mesh_lib
from tests.models.test_forward_mode import SMALLEST


def programs(value) -> Iterator[core.Jaxpr]:
    """The programs inside a parameter of an operation."""
    if isinstance(value, core.ClosedJaxpr):
        yield value.jaxpr
    elif isinstance(value, core.Jaxpr):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from programs(one)


def loops(program: core.Jaxpr, inside=()) -> Iterator[tuple[str, ...]]:
    """For every loop over time the names of the operations that it is inside of."""
    for one in program.eqns:
        if one.primitive.name == "scan":
            yield inside
        for value in one.params.values():
            for inner in programs(value):
                yield from loops(inner, (*inside, one.primitive.name))


@pytest.mark.parametrize(
    "name", ["conv_lstm", "fa_conv_lstm", "predrnn", "e3d_lstm", "phydnet"]
)
def test_loops_are_run_by_each_device(name):
    shape, options = SMALLEST[name]
    model = models.create_model(name, shape, shape, **options)
    mesh = mesh_lib.data_mesh()
    assert mesh.size == 4
    inputs = jax.ShapeDtypeStruct(
        (4, *shape), jnp.float32, sharding=mesh_lib.by_example(mesh)
    )
    variables = jax.eval_shape(model.init, jax.random.key(0), inputs)

    def forecast(variables, inputs, targets):
        taught = dict(targets=targets, step=0) if uses_targets(model) else {}
        return model.apply(
            variables,
            inputs,
            train=True,
            rngs=dict(sampling=jax.random.key(0)),
            mutable=["losses"],
            **taught,
        )

    traced = jax.jit(forecast).trace(variables, inputs, inputs)
    found = list(loops(traced.jaxpr.jaxpr))
    assert found and all("shard_map" in inside for inside in found)
