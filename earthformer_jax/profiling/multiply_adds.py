"""What a function costs, counted in its jaxpr, without compiling or running it.

A multiply-add is one product that is added to a sum. Only matrix products and
convolutions are counted, as other counters do; element-wise arithmetic,
normalisations, softmax and pooling are not, nor are depthwise stencils (`ops.stencil`),
which are element-wise to JAX. Padding zeros count like any other value.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from earthformer_jax.ops.tuned.native import library


def multiply_adds(function: Callable, *args) -> int:
    """Multiply-adds of one call.

    Args:
        function: of arrays, traceable by JAX.
        *args: arrays or `jax.ShapeDtypeStruct`, or trees of them.

    Returns:
        The number. The body of a loop counts once per iteration (`scan`, `fori_loop`
        with known bounds), or once if the number of iterations is unknown
        (`while_loop`); of the branches of a `cond` the most expensive one counts.
    """
    with library.without():  # JAX cannot look into functions in C++
        return _count(jax.make_jaxpr(function)(*args).jaxpr)


def residual_bytes(function: Callable, params: Any, *args) -> int:
    """Bytes that a backward pass needs of the forward pass of the same function.

    These are the values that JAX passes from the forward to the backward pass of
    `jax.vjp` with respect to `params`, stacked over the steps of loops, and respecting
    `jax.checkpoint`. Arguments and constants are not included. A compiler may keep
    less, by recomputing cheap values and fusing element-wise ones, and needs more at
    times (one layer's inputs and outputs, the workspace of a convolution).

    Args:
        function: `(params, *args) -> (output, auxiliary)`.
        params: arrays or `jax.ShapeDtypeStruct`, or trees of them; differentiated.
        *args: the same, not differentiated.
    """

    def residuals(params, *args):
        _, pull, _ = jax.vjp(lambda p: function(p, *args), params, has_aux=True)
        return jax.tree.leaves(pull)

    jaxpr = jax.make_jaxpr(residuals)(params, *args).jaxpr
    given = {id(v) for v in (*jaxpr.invars, *jaxpr.constvars)}
    computed = {id(v): v.aval for eqn in jaxpr.eqns for v in eqn.outvars}
    kept = {id(v) for v in jaxpr.outvars} & set(computed) - given
    return sum(_bytes(computed[v]) for v in kept)


def _bytes(aval) -> int:
    size = math.prod(aval.shape)
    if jnp.issubdtype(aval.dtype, jax.dtypes.prng_key):
        return 8 * size
    return size * aval.dtype.itemsize


def _count(jaxpr) -> int:
    return sum(_count_equation(eqn) for eqn in jaxpr.eqns)


def _count_equation(eqn) -> int:
    name = eqn.primitive.name
    if name == "dot_general":
        return _dot_general(eqn)
    if name == "conv_general_dilated":
        return _convolution(eqn)
    inner = [_count(jaxpr) for jaxpr in jaxprs_in(eqn.params.values())]
    if name == "cond":
        return max(inner)
    return eqn.params["length"] * sum(inner) if name == "scan" else sum(inner)


def jaxprs_in(values) -> Iterator[Any]:
    """Jaxprs among the parameters of an equation: bodies of loops and calls."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from jaxprs_in(value)
        elif isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value


def _dot_general(eqn) -> int:
    """Every output is a sum over the contracted axes."""
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left, (out,) = eqn.invars[0].aval.shape, eqn.outvars
    return math.prod(out.aval.shape) * math.prod(left[axis] for axis in contracted)


def _convolution(eqn) -> int:
    """Every output is a sum over a window and the channels of its group."""
    p, numbers = eqn.params, eqn.params["dimension_numbers"]
    kernel, out = eqn.invars[1].aval.shape, eqn.outvars[0].aval.shape
    _, channels, *window = numbers.rhs_spec
    batch, features, *plane = numbers.out_spec
    products = out[batch] * out[features] * kernel[channels]
    axes = zip(
        plane,
        window,
        p["window_strides"],
        p["padding"],
        p["lhs_dilation"],
        p["rhs_dilation"],
        strict=True,
    )
    for o, k, stride, (low, _), spread, dilation in axes:
        products *= _pairs(out[o], kernel[k], stride, low, spread, dilation)
    return products


def _pairs(outputs, taps, stride, low, spread, dilation) -> int:
    """Pairs of output position and tap that do not meet a hole between the inputs.

    A transposed convolution spreads its inputs with zeros in between, which nobody
    multiplies.
    """
    if spread == 1:
        return outputs * taps
    return sum(
        (o * stride + k * dilation - low) % spread == 0
        for o in range(outputs)
        for k in range(taps)
    )
