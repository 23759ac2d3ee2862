"""The choice between a tuned function and the plain one it replaces.

It is made while a program is traced, never at import time: asking for the backend makes
JAX look for devices.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

from earthformer_jax.ops.derivatives import in_forward_mode
from earthformer_jax.ops.devices import split

F = TypeVar("F", bound=Callable[..., Any])
MEASURED = ("cpu",)  # backends on which the tuned functions were measured to be faster


def measured() -> bool:
    """Whether JAX's default backend is one that the functions here are tuned for."""
    return jax.default_backend() in MEASURED


def instead_of(
    plain: Callable[..., Any], *, whole_fields: bool = False
) -> Callable[[F], F]:
    """Decorator: calls the tuned function where it was measured, otherwise `plain`.

    The plain one is also used inside `ops.forward_mode()`. Both are attributes of the
    result, `plain` and `tuned`.

    Args:
        plain: the function to use elsewhere.
        whole_fields: the tuned function takes fields apart in a way that cannot be
            divided among devices: where fields are split, `plain` is used as well.
    """

    def decorate(tuned: F) -> F:
        @functools.wraps(tuned)
        def function(*args, **kwargs):
            suits = measured() and not in_forward_mode()
            if whole_fields and suits:
                suits = split.parts(*jax.tree.leaves((args, kwargs))) == 1
            return (tuned if suits else plain)(*args, **kwargs)

        vars(function).update(plain=plain, tuned=tuned)
        return cast(F, function)

    return decorate
