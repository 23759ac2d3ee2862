"""The choice between a tuned function and the plain one that it stands in for.

It is made while a program is traced, never at import: asking for the backend makes JAX
look for devices.
"""

import functools
from collections.abc import Callable

import jax

from earthformer_jax.ops.derivatives import in_forward_mode

MEASURED = ("cpu",)  # backends on which the tuned functions were measured to be faster


def measured() -> bool:
    """Whether JAX's default backend is one that the functions here are tuned for."""
    return jax.default_backend() in MEASURED


def instead_of(plain: Callable) -> Callable[[Callable], Callable]:
    """Decorator: the tuned function where it was measured, else `plain`.

    The plain one is also used inside `ops.forward_mode()`. Both are attributes of the
    result, `plain` and `tuned`.
    """

    def decorate(tuned):
        @functools.wraps(tuned, updated=())
        def function(*args, **kwargs):
            chosen = tuned if measured() and not in_forward_mode() else plain
            return chosen(*args, **kwargs)

        function.plain, function.tuned = plain, tuned
        return function

    return decorate
