"""Functions called inside loops, whose convolutions are brought into one layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops.tuned.repeated import call_in_loop
from earthformer_jax.profiling.multiply_adds import jaxprs_in

FAST = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def layouts(jaxpr):
    """Layouts of all convolutions of a jaxpr, and of the jaxprs inside."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            yield tuple(eqn.params["dimension_numbers"])
        for inner in jaxprs_in(eqn.params.values()):
            yield from layouts(inner)


def convolve(x, kernel, **options):
    return lax.conv_general_dilated(
        x,
        kernel,
        options.pop("strides", (1, 1)),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **options,
    )


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (2 * x, None), lambda _, dy: (3 * dy,))


def network(kernels, x):
    """Convolutions in everything that JAX has for calling a function."""
    x = convolve(x, kernels["strided"], strides=(2, 1))
    x = jax.checkpoint(lambda x: jnp.tanh(convolve(x, kernels["same"])))(x)
    x = lax.cond(x.sum() > 0, lambda x: convolve(x, kernels["same"]), jnp.sin, x)
    x, _ = lax.scan(lambda x, k: (convolve(x, k), None), x, kernels["many"])
    x = jax.jit(jax.nn.relu)(convolve(x, kernels["spread"], rhs_dilation=(2, 2)))
    return jnp.sum(doubled(lax.conv_transpose(x, kernels["larger"], (2, 2), "SAME")))


KERNELS = dict(
    strided=draw(3, 3, 2, 4),
    same=draw(3, 3, 4, 4, seed=1) / 6,
    many=draw(2, 3, 3, 4, 4, seed=2) / 6,
    spread=draw(3, 3, 4, 3, seed=3),
    larger=draw(2, 2, 3, 2, seed=4),
)


def test_values_and_layouts_of_gradients():
    x = draw(2, 8, 6, 2, seed=5)
    gradient = jax.value_and_grad(network, argnums=(0, 1))
    tuned = functools.partial(call_in_loop.tuned, gradient)
    want, have = jax.jit(lambda *a: (gradient(*a), tuned(*a)))(KERNELS, x)
    assert jax.tree.structure(have) == jax.tree.structure(want)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), have, want
    )
    assert set(layouts(jax.make_jaxpr(tuned)(KERNELS, x).jaxpr)) == {FAST}
    assert len(set(layouts(jax.make_jaxpr(gradient)(KERNELS, x).jaxpr))) > 2


@pytest.mark.parametrize("groups", ["feature_group_count", "batch_group_count"])
def test_groups(groups):
    x, kernel = draw(2, 5, 6, 4), draw(3, 3, 2 if groups[0] == "f" else 4, 4, seed=1)
    f = functools.partial(convolve, **{groups: 2})
    have = jax.jit(functools.partial(call_in_loop.tuned, f))(x, kernel)
    np.testing.assert_allclose(have, f(x, kernel), rtol=1e-4, atol=1e-5)


def test_inside_shard_map():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    x, kernel = draw(8, 3, 4, 4), KERNELS["same"]

    def loss(kernel, x):
        return jnp.sum(jax.checkpoint(convolve)(x, kernel) ** 2)

    def shares(kernel, x):
        kernel = jax.lax.pcast(kernel, "data", to="varying")
        value = call_in_loop.tuned(jax.value_and_grad(loss), kernel, x)
        return jax.lax.psum(value, "data")

    mapped = jax.shard_map(
        shares, mesh=mesh, in_specs=(jax.P(), jax.P("data")), out_specs=jax.P()
    )
    value, gradient = jax.jit(mapped)(kernel, x)
    want, gradient_wanted = jax.jit(jax.value_and_grad(loss))(kernel, x)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(gradient, gradient_wanted, rtol=1e-3, atol=1e-4)


def test_names_of_layers_are_kept():
    def named(x):
        with jax.named_scope("layer"):
            return convolve(x, KERNELS["same"])

    x = draw(1, 4, 4, 4)
    program = jax.jit(functools.partial(call_in_loop.tuned, named)).lower(x)
    assert "layer/conv_general_dilated" in program.as_text(debug_info=True)


def test_captured_arrays_and_no_arrays():
    @jax.jit
    def program(x):
        return call_in_loop.tuned(lambda _, y: (x + y, None), {}, 2.0)

    value, nothing = program(jnp.float32(1))
    assert value == 3 and nothing is None
