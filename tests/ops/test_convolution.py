"""Padding, circles of longitude, and convolutions that go into loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops import convolution


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 3), (5, 4)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (4, 1)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_same_padding_is_that_of_xla(kernel, strides, dilation):
    plane = (7, 10)
    padding = convolution.plane_padding(plane, kernel, "same", strides, dilation)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    assert list(padding) == lax.padtype_to_pads(plane, spans, strides, "SAME")
    size = convolution.output_plane(plane, kernel, padding, strides, dilation)
    assert size == tuple(-(-n // s) for n, s in zip(plane, strides, strict=True))


def test_valid_adds_nothing():
    padding = convolution.plane_padding((7, 10), (3, 3), "valid", (2, 2))
    assert padding == ((0, 0), (0, 0))
    assert convolution.output_plane((7, 10), (3, 3), padding, (2, 2)) == (3, 4)


@pytest.mark.parametrize(
    "convolve", [convolution.convolve, convolution.convolve_in_loop]
)
def test_on_a_circle_the_origin_does_not_matter(convolve):
    x, kernel = draw(2, 5, 6, 3), draw(3, 5, 3, 4, seed=1)
    padding = convolution.plane_padding((5, 6), (3, 5), "same")
    y = convolve(x, kernel, padding, wrap=True)
    turned = convolve(jnp.roll(x, 2, axis=2), kernel, padding, wrap=True)
    np.testing.assert_allclose(turned, jnp.roll(y, 2, axis=2), atol=1e-5)
    three = jnp.concatenate([x, x, x], axis=2)  # the same, with neighbours in sight
    flat = convolve(three, kernel, padding)[:, :, 6:12]
    np.testing.assert_allclose(y, flat, atol=1e-5)


def test_pointwise_is_a_matrix_product():
    x, kernel = draw(2, 3, 4, 5), draw(5, 2, seed=1)
    np.testing.assert_allclose(convolution.pointwise(x, kernel), x @ kernel, atol=1e-5)


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (2, 4), (1, 5)])
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
    have = derivatives(convolution.convolve_in_loop)
    for h, w in zip(have, want, strict=True):
        np.testing.assert_allclose(h, w, rtol=1e-4, atol=1e-4)


def test_no_convolution_is_differentiated_in_a_loop():
    """On a CPU, the gradient's loop holds matrix products only."""
    x, kernel = draw(1, 4, 4, 2), draw(3, 3, 2, 2)
    padding = ((1, 1), (1, 1))

    def f(x, kernel):
        def step(x, _):
            return jnp.tanh(convolution.convolve_in_loop(x, kernel, padding)), None

        return jnp.sum(lax.scan(step, x, length=3)[0])

    jaxpr = jax.make_jaxpr(jax.grad(f, argnums=(0, 1)))(x, kernel).jaxpr
    scans = [e for e in jaxpr.eqns if e.primitive.name == "scan"]
    backward = [e for e in scans if e.params["reverse"]]
    assert len(backward) == 1
    assert "conv_general_dilated" not in str(backward[0].params["jaxpr"])
    assert "dot_general" in str(backward[0].params["jaxpr"])


def test_refusals():
    with pytest.raises(ValueError, match="padding must be one of"):
        convolution.plane_padding((4, 4), (3, 3), "reflect")
    with pytest.raises(ValueError, match=r"spans \(5, 3\) does not fit .* \(4, 4\)"):
        convolution.output_plane((4, 4), (3, 3), ((0, 0), (0, 0)), dilation=(2, 1))
