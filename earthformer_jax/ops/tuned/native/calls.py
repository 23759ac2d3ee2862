"""Calling functions in C++ from programs of JAX."""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.ops.devices import split
from earthformer_jax.ops.devices.shared import shared_by_examples
from earthformer_jax.ops.devices.varying import vary_like
from earthformer_jax.ops.tuned.native import library

LANES = 16  # numbers in a vector: rows of weights consist of whole ones


def run(
    function: str,
    options: Mapping[str, int | float],
    arrays: Sequence[jax.Array],
    results: Any,
) -> Any:
    """A call of a function.

    Args:
        function: one of `library.FUNCTIONS`.
        options: integers and floating-point numbers, as the function names them.
        arrays: in its order.
        results: their types, of `like`, one or several.
    """
    typed = {
        name: np.int64(x) if isinstance(x, int) else np.float32(x)
        for name, x in (*options.items(), ("threads", threads()))
    }
    # Under vmap, one call follows the other.
    call = jax.ffi.ffi_call(library.target(function), results, vmap_method="sequential")
    return call(*arrays, **typed)


def threads() -> int:
    """Cores for each device; a program with a device per core runs a thread on each."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, cores // jax.local_device_count())


def suit(x: jax.Array, *others: jax.Array | None) -> bool:
    """Whether functions in C++ take these arrays, and there are any functions.

    Args:
        x: with examples first, which devices share equally, or not at all.
        *others: any arrays, or None.
    """
    arrays = x, *(array for array in others if array is not None)
    return (
        all(getattr(array, "dtype", None) == jnp.float32 for array in arrays)
        and sizes_are_known(*arrays)
        and x.size > 0
        and split.parts(x) == 1
        and len(x) % split.shares(x) == 0
        and library.available()
    )


def given(x: jax.Array | None, dtype: Any = jnp.float32) -> jax.Array:
    """The array; in place of None one without elements, as functions in C++ expect."""
    return jnp.zeros(0, dtype) if x is None else x


def sizes_are_known(*arrays: jax.Array) -> bool:
    """Whether no size is a variable, as in programs that are exported for any batch."""
    return all(isinstance(size, int) for x in arrays for size in x.shape)


def by_examples(
    function: Callable[..., jax.Array], call: Any, x: jax.Array, *weights: Any
) -> jax.Array:
    """A function of `differentiable`, on each device of its own examples.

    Args:
        function: of `(call, (x, *weights), ())`.
        call: what is known before, hashable.
        x: `[examples, ...]`.
        *weights: arrays that all examples share, or None.
    """

    def own(weights, x):
        return (function(call, vary_like((x, *weights)), ()),)

    return shared_by_examples(own, axes=(0,), out_axes=(0,))(weights, x)[0]


def like(x: jax.Array, shape: Sequence[int]) -> Any:
    """The type of a result that varies over the same devices as `x`."""
    return jax.typeof(x).update(shape=tuple(shape))


def differentiable(
    value: Callable[..., jax.Array],
    gradients: Callable[..., Any],
    in_jax: Callable[..., jax.Array],
) -> Callable[..., jax.Array]:
    """A function of arrays whose value and gradients are computed in C++.

    Args:
        value: of `(call, arrays, rest)`: what is known before, hashable; a tree of
            arrays that have gradients; and a tree of integers. Only `arrays` and `rest`
            are kept for the gradient.
        gradients: of `(call, arrays, rest, dvalue)`, a tree like `arrays`.
        in_jax: as `value`, in operations of JAX, which second derivatives are made of.
    """

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def first(call, arrays, rest):
        return value(call, arrays, rest)

    @functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
    def second(call, arrays, rest, dvalue):
        return gradients(call, arrays, rest, dvalue)

    def keep(call, *given):
        return first(call, *given), given

    def gradient(call, given, dvalue):
        return second(call, *given, dvalue), None

    def keep_for_second(call, *given):
        return second(call, *given), given

    def gradient_of_second(call, given, changes):
        arrays, rest, dvalue = given

        def plain(arrays, dvalue):
            return jax.vjp(lambda x: in_jax(call, x, rest), arrays)[1](dvalue)[0]

        darrays, ddvalue = jax.vjp(plain, arrays, dvalue)[1](changes)
        return darrays, None, ddvalue

    first.defvjp(keep, gradient)
    second.defvjp(keep_for_second, gradient_of_second)
    return first  # pyright: ignore (custom_vjp keeps the type)
