"""A function in bfloat16 or float16 with exact derivatives.

Every number that a function computes in the narrow type is computed in float32 here and
rounded to that type. Derivatives ignore the rounding and are in float32. Where the
gradient of the function itself has another size, its sums have lost something.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

# What these compute needs no rounding if what they are given does not.
_MOVES = {
    "broadcast_in_dim",
    "concatenate",
    "copy",
    "dynamic_slice",
    "gather",
    "max",
    "neg",
    "pad",
    "reduce_max",
    "reshape",
    "rev",
    "select_n",
    "slice",
    "split",
    "squeeze",
    "stop_gradient",
    "transpose",
}


def with_exact_gradient(function, dtype: str):
    """A function of the same arguments with the same result, but for rounding.

    Args:
        function: of trees of arrays, one of whose numbers are narrow; it has no loop
            of unknown length.
        dtype: "bfloat16" or "float16".
    """
    narrow = jnp.dtype(dtype)

    def called(*arguments):
        program, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        found = _evaluate(narrow, program, jax.tree.leaves(arguments))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return called


def rounded(x: jax.Array, narrow: Any) -> jax.Array:
    """float32 numbers, rounded to a narrow type; the derivative is 1."""
    near = lax.reduce_precision(x, jnp.finfo(narrow).nexp, jnp.finfo(narrow).nmant)
    return x + lax.stop_gradient(near - x)


def _evaluate(narrow, program: core.ClosedJaxpr, arguments) -> list:
    """The results of a program, with float32 in place of narrow numbers."""

    def widened(x):
        return jnp.float32(x) if getattr(x, "dtype", None) == narrow else x

    def read(x):
        return widened(x.val) if isinstance(x, core.Literal) else known[x]

    variables = [*program.jaxpr.constvars, *program.jaxpr.invars]
    values = [*map(widened, program.consts), *arguments]
    known = dict(zip(variables, values, strict=True))

    for equation in program.jaxpr.eqns:
        values = [read(x) for x in equation.invars]
        results = _apply(narrow, equation, values)
        for variable, result in zip(equation.outvars, results, strict=True):
            known[variable] = result
    return [read(x) for x in program.jaxpr.outvars]


def _apply(narrow, equation, values) -> list:
    """The results of one operation."""
    name, options = equation.primitive.name, dict(equation.params)
    if name == "scan":
        return _scan(narrow, options, values)
    if name == "cond":
        branches = [
            lambda *x, branch=branch: _evaluate(narrow, branch, x)
            for branch in options["branches"]
        ]
        return lax.switch(*values[:1], branches, *values[1:])
    for key in ("call_jaxpr", "fun_jaxpr", "jaxpr"):
        if key in options:
            inner = options[key]
            if not isinstance(inner, core.ClosedJaxpr):
                inner = core.ClosedJaxpr(inner, ())
            if name == "custom_jvp_call" and _is_relu(inner):
                return [jax.nn.relu(values[0])]
            return _evaluate(narrow, inner, values)
    for key in ("new_dtype", "preferred_element_type", "dtype"):
        if options.get(key) == narrow:
            options[key] = jnp.dtype("float32")
    results = equation.primitive.bind(*values, **options)
    results = results if equation.primitive.multiple_results else [results]
    return [
        rounded(x, narrow)
        if variable.aval.dtype == narrow and name not in _MOVES
        else x
        for variable, x in zip(equation.outvars, results, strict=True)
    ]


def _is_relu(program: core.ClosedJaxpr) -> bool:
    """Its derivative at 0 is 0; that of the maximum of two numbers is 1/2."""
    names = [x.primitive.name for x in program.jaxpr.eqns]
    while names in (["jit"], ["pjit"]):
        program = program.jaxpr.eqns[0].params["jaxpr"]
        names = [x.primitive.name for x in program.jaxpr.eqns]
    return names == ["max"]


def _scan(narrow, options, values) -> list:
    constants, carried = options["num_consts"], options["num_carry"]

    def step(carry, rows):
        inputs = [*values[:constants], *carry, *rows]
        results = _evaluate(narrow, options["jaxpr"], inputs)
        return results[:carried], results[carried:]

    last, rows = lax.scan(
        step,
        values[constants : constants + carried],
        values[constants + carried :],
        length=options["length"],
        reverse=options["reverse"],
    )
    return [*last, *rows]
