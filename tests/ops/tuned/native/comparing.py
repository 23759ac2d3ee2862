"""Values and gradients of functions, on one device and on two."""

import chex
import jax
import jax.numpy as jnp
import pytest

from earthformer_jax.ops.tuned.native import library

NEEDS_COMPILER = pytest.mark.skipif(
    not library.available(), reason="needs a C++ compiler (c++, g++ or clang++)"
)


def value_and_gradients(function, *arrays):
    """The value of a function of arrays or trees of them, and all its gradients."""

    def run(*arrays):
        y, pull = jax.vjp(function, *arrays)
        return y, pull(jnp.cos(y))

    return jax.jit(run)(*arrays)


def check_on_two_devices(how, function, shared, *examples):
    """The same with the examples on two devices.

    Args:
        how: "divided by the compiler" or "shard_map".
        function: of what all examples share, and of arrays with an axis for them.
        shared: tree of arrays.
        *examples: trees of arrays `[b, ...]`.
    """
    wanted = value_and_gradients(function, shared, *examples)
    mesh = jax.sharding.Mesh(jax.devices()[:2], "data")
    spec, everywhere = jax.P("data"), jax.P()
    if how == "shard_map":
        specs = everywhere, *[spec] * len(examples)
        function = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=spec)
    else:
        shared = jax.device_put(shared, jax.NamedSharding(mesh, everywhere))
        examples = jax.device_put(examples, jax.NamedSharding(mesh, spec))
    found = value_and_gradients(function, shared, *examples)
    assert not found[0].sharding.is_fully_replicated
    chex.assert_trees_all_close(jax.device_get(found), wanted, rtol=1e-5, atol=2e-5)


WAYS = ("divided by the compiler", "shard_map")
