"""Which derivatives a program needs: reverse mode alone, or forward mode as well."""

import contextlib

import jax

_forward_mode = jax.make_user_context(default_value=False)


def forward_mode() -> contextlib.AbstractContextManager[None]:
    """A context in which models can be differentiated in forward mode.

    Some functions of `ops.tuned` define their own gradients, which JAX can only use in
    reverse mode: `jax.jvp`, `jax.linearize` and `jax.hessian` of them raise
    TypeError. Inside this context the plain functions of `ops` are used instead:

        with forward_mode():
            forecast, change = jax.jvp(model_of_inputs, (inputs,), (direction,))

    The context is part of the cache key of `jax.jit`: a function that was compiled
    outside is traced again inside. It applies to the current thread.
    """
    return _forward_mode(True)


def in_forward_mode() -> bool:
    """Whether the code being traced may be differentiated in forward mode."""
    return _forward_mode.value
