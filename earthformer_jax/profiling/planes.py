"""The planes on which a function compares neighbours, read from its jaxpr."""

from collections.abc import Callable, Iterator
from typing import Any

import jax

from earthformer_jax.profiling.multiply_adds import jaxprs_in


def convolved_planes(function: Callable, *args) -> set[tuple[int, int]]:
    """Sizes (h, w) of all planes that a function convolves with more than one tap.

    Args:
        function: of arrays, traceable by JAX.
        *args: arrays or `jax.ShapeDtypeStruct`, or trees of them.
    """
    return set(_planes(jax.make_jaxpr(function)(*args).jaxpr))


def _planes(jaxpr: Any) -> Iterator[tuple[int, int]]:
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "conv_general_dilated":
            numbers = eqn.params["dimension_numbers"]
            taps = [eqn.invars[1].aval.shape[i] for i in numbers.rhs_spec[-2:]]
            if max(taps) > 1:
                height, width = (
                    eqn.invars[0].aval.shape[i] for i in numbers.lhs_spec[-2:]
                )
                yield height, width
        for inner in jaxprs_in(eqn.params.values()):
            yield from _planes(inner)
