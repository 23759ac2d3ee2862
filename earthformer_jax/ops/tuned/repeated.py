"""A function called inside a loop, with convolutions as fast as outside.

Gain: the gradients of three convolutions, added up over four micro-batches, take 87
instead of 1,194 ms (one CPU core); models are compared in docs/memory.md.

Only outside loops does XLA's CPU compiler bring convolutions into the layout for which
it has a fast routine, examples first and channels last. Gradients of convolutions have
other layouts: inside a loop each of their products is computed by itself. Here the
operands are transposed explicitly, as the compiler does outside.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from earthformer_jax.ops.tuned.choice import instead_of


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


@instead_of(_call)
def call_in_loop(function: Callable[..., Any], *arguments: Any) -> Any:
    """The function of the arguments, for a call inside a loop.

    What is computed here is not to be differentiated again: gradients are taken inside
    the function.

    Args:
        function: traceable by JAX.
        *arguments: trees of arrays.
    """
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    found = jaxpr_as_fun(_rewritten(jaxpr))(*jax.tree.leaves(arguments))
    return jax.tree.unflatten(jax.tree.structure(shapes), found)


def _rewritten(value: Any) -> Any:
    """A jaxpr, or jaxprs among parameters of an equation, with fast convolutions."""
    if isinstance(value, Jaxpr):  # in newer versions of JAX closed ones are as well
        return value.replace(eqns=[new for eqn in value.eqns for new in _fast(eqn)])
    if isinstance(value, ClosedJaxpr):
        return value.replace(jaxpr=_rewritten(value.jaxpr))
    if isinstance(value, tuple):  # the branches of a condition
        return tuple(map(_rewritten, value)) if _has_jaxprs(value) else value
    return value


def _has_jaxprs(values: Any) -> bool:
    return any(isinstance(v, ClosedJaxpr | Jaxpr) for v in values)


def _fast(eqn: JaxprEqn) -> list[JaxprEqn]:
    """The equations to compute instead of this one."""
    if eqn.primitive.name == "shard_map":
        return [eqn]  # its layers have loops of their own
    if eqn.primitive.name != "conv_general_dilated":
        return [eqn.replace(params={k: _rewritten(v) for k, v in eqn.params.items()})]
    if eqn.params["batch_group_count"] > 1:
        return [eqn]

    def convolve(x, kernel):
        return _convolve(x, kernel, **eqn.params)

    inner = jax.make_jaxpr(convolve)(*(v.aval for v in eqn.invars)).jaxpr
    names = dict(zip(inner.invars, eqn.invars, strict=True))
    names |= zip(inner.outvars, eqn.outvars, strict=True)
    return [
        new.replace(
            invars=[names.get(v, v) for v in new.invars],
            outvars=[names.get(v, v) for v in new.outvars],
            source_info=eqn.source_info,
            ctx=eqn.ctx,
        )
        for new in inner.eqns
    ]


def _convolve(x, kernel, *, dimension_numbers, **params):
    """`lax.conv_general_dilated`, from operands that are transposed first."""
    numbers = dimension_numbers
    batch, features, *plane = numbers.lhs_spec
    x = x.transpose(batch, *plane, features)
    outputs, inputs, *window = numbers.rhs_spec
    kernel = kernel.transpose(*window, inputs, outputs)
    layout = lax.ConvDimensionNumbers(
        lhs_spec=(0, len(plane) + 1, *range(1, len(plane) + 1)),
        rhs_spec=(len(plane) + 1, len(plane), *range(len(plane))),
        out_spec=(0, len(plane) + 1, *range(1, len(plane) + 1)),
    )
    y = lax.conv_general_dilated(x, kernel, dimension_numbers=layout, **params)
    batch, features, *plane = numbers.out_spec
    return y.transpose(np.argsort((batch, *plane, features)))
