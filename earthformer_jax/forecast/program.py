"""A forecaster as a StableHLO program: one function that needs only JAX.

`jax.export` writes what `forecast.physical` computes, conversion of units included, in
a form that later versions of JAX run on CPU, GPU and TPU. Weights are arguments, so
that they need not be stored twice, and the number of examples is open.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.export
import jax.numpy as jnp

from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.forecast.physical import drawn, physical

PLATFORMS = ("cpu", "cuda", "tpu")
# JAX runs what it exported for this long after the release that exported it.
# https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees
MONTHS = 6


def export(
    apply: Callable[..., Any],
    elsewhere: Callable[..., Any],
    encoding: Encoding,
    weights: Mapping[str, Any],
    shape: tuple[int, int, int, int],
    steps: int,
    *,
    draws: bool = False,
    members: bool = False,
) -> bytes:
    """A program `(weights, inputs[, minutes]) -> forecast`, as `forecast.physical`.

    Args:
        apply: from weights and inputs in model units to forecasts, for CPUs.
        elsewhere: the same for other devices.
        encoding: how physical values become model units.
        weights: arrays by name; only their shapes and types matter.
        shape: (t, h, w, c) of the inputs in physical units.
        steps: number of forecast frames; with an encoding that needs `minutes`, these
            are int32 `[b, t + steps]`.
        draws: whether a further argument of both are values from which follows what is
            drawn (`forecast.physical.drawn`).
        members: whether both, which draw, have one more argument, the number of the
            first of the members that they give. It is also the last one of the program,
            a scalar of int32.

    Returns:
        what `jax.export.deserialize` reads. Of it, `call(weights, inputs, minutes)`
        runs the program.
    """

    def choose(*arguments: Any) -> jax.Array:
        return jax.lax.platform_dependent(*arguments, cpu=apply, default=elsewhere)

    def of_members(given: Any, inputs: jax.Array, seen: jax.Array) -> jax.Array:
        return choose(given[0], inputs, seen, given[1])

    def numbered(weights: Any, *arguments: Any) -> jax.Array:
        *fields, first = arguments
        return drawn(of_members, encoding)((weights, first), *fields)

    (b,) = jax.export.symbolic_shape("b")
    given = [jax.ShapeDtypeStruct((b, *shape), jnp.float32)]
    if encoding.needs_minutes:
        given.append(jax.ShapeDtypeStruct((b, shape[0] + steps), jnp.int32))
    if members:
        function = numbered
        given.append(jax.ShapeDtypeStruct((), jnp.int32))
    else:
        function = (drawn if draws else physical)(choose, encoding)
    like = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()}
    export_for = jax.export.export(jax.jit(function), platforms=PLATFORMS)
    return bytes(export_for(like, *given).serialize())
