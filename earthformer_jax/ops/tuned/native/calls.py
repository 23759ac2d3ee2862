"""Calling functions in C++ from programs of JAX."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from earthformer_jax.ops.tuned.native import library


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


def sizes_are_known(*arrays: jax.Array) -> bool:
    """Whether no size is a variable, as in programs that are exported for any batch."""
    return all(isinstance(size, int) for x in arrays for size in x.shape)


def like(x: jax.Array, shape: Sequence[int]) -> Any:
    """The type of a result that varies over the same devices as `x`."""
    return jax.typeof(x).update(shape=tuple(shape))
