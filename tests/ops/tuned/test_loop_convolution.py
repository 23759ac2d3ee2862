"""Derivatives of convolutions inside loops, as matrix products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops import convolution
from earthformer_jax.ops.tuned.loop_convolution import convolve_in_loop


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(("size", "wrap"), [((2, 4), False), ((3, 3), True)])
def test_derivatives_are_those_of_a_convolution(size, wrap):
    x, kernel = draw(2, 5, 6, 3), draw(*size, 3, 4, seed=1)
    padding = convolution.plane_padding((5, 6), size, "same")

    def derivatives(convolve):
        def f(x, kernel):
            return convolve(x, kernel, padding, wrap=wrap)

        @jax.jit
        def all_of_them(args, tangents):
            y, forward = jax.jvp(f, args, tangents)
            _, x_only = jax.jvp(lambda x: f(x, kernel), args[:1], tangents[:1])
            _, kernel_only = jax.jvp(lambda k: f(x, k), args[1:], tangents[1:])
            return y, forward, x_only, kernel_only, *jax.vjp(f, *args)[1](y)

        return all_of_them((x, kernel), (draw(*x.shape, seed=2), draw(*kernel.shape)))

    want = derivatives(convolution.convolve)
    have = derivatives(convolve_in_loop)
    for h, w in zip(have, want, strict=True):
        np.testing.assert_allclose(h, w, rtol=1e-4, atol=1e-4)


def test_no_convolution_is_differentiated_in_a_loop():
    """On a CPU, the gradient's loop holds matrix products only."""
    x, kernel = draw(1, 4, 4, 2), draw(3, 3, 2, 2)
    padding = ((1, 1), (1, 1))

    def f(x, kernel):
        def step(x, _):
            return jnp.tanh(convolve_in_loop(x, kernel, padding)), None

        return jnp.sum(lax.scan(step, x, length=3)[0])

    jaxpr = jax.make_jaxpr(jax.grad(f, argnums=(0, 1)))(x, kernel).jaxpr
    scans = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    backward = [e for e in scans if e.params["reverse"]]
    assert len(backward) == 1
    assert "conv_general_dilated" not in str(backward[0].params["jaxpr"])
    assert "dot_general" in str(backward[0].params["jaxpr"])


def test_no_windows_are_kept_for_the_backward_pass():
    """Of each step its input is kept, and not that many times over."""
    x, kernel = draw(1, 8, 8, 4), draw(5, 5, 4, 4)
    steps = 6

    def f(x, kernel):
        def step(x, _):
            return jnp.sin(convolve_in_loop(x, kernel, ((2, 2), (2, 2)))), None

        return lax.scan(step, x, length=steps)[0]

    _, backward = jax.eval_shape(lambda *a: jax.vjp(f, *a), x, kernel)
    kept = sum(a.size for a in jax.tree.leaves(backward))
    # The input, and what the derivative of the sine needs.
    assert kept <= 2 * steps * x.size + kernel.size + 10
