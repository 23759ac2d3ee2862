"""Folded convolutions against strided and transposed ones, and as adjoints."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops import strided

CASES = [(1, 1), (3, 1), (3, 2), (5, 2), (5, 3), (7, 2), (1, 2)]
LAYOUT = ("NHWC", "HWIO", "NHWC")


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(("side", "stride"), CASES)
def test_shrink_is_a_strided_convolution(side, stride):
    x, kernel = draw(2, 4 * stride, 3 * stride, 3), draw(side, side, 3, 5, seed=1)
    want = lax.conv_general_dilated(
        x, kernel, (stride, stride), [(side // 2,) * 2] * 2, dimension_numbers=LAYOUT
    )[:, :4, :3]
    np.testing.assert_allclose(strided.shrink(x, kernel, stride), want, atol=1e-5)


@pytest.mark.parametrize(("side", "stride"), CASES)
def test_enlarge_is_a_transposed_convolution(side, stride):
    """With padding side // 2 and output_padding stride - 1, in PyTorch's words."""
    x, kernel = draw(2, 4, 3, 3), draw(side, side, 3, 5, seed=1)
    pad = side - 1 - side // 2
    want = lax.conv_general_dilated(
        x,
        jnp.flip(kernel, (0, 1)),
        (1, 1),
        [(pad, pad + stride - 1)] * 2,
        lhs_dilation=(stride, stride),
        dimension_numbers=LAYOUT,
    )
    np.testing.assert_allclose(strided.enlarge(x, kernel, stride), want, atol=1e-5)


@pytest.mark.parametrize(("side", "stride"), CASES)
def test_adjoint(side, stride):
    """<y, shrink x> = <enlarge y, x>, with the kernel's channels swapped."""
    x, y = draw(1, 3 * stride, 2 * stride, 2), draw(1, 3, 2, 4, seed=1)
    kernel = draw(side, side, 2, 4, seed=2)
    back = strided.enlarge(y, kernel.swapaxes(2, 3), stride)
    np.testing.assert_allclose(
        jnp.vdot(y, strided.shrink(x, kernel, stride)), jnp.vdot(back, x), rtol=1e-4
    )


@pytest.mark.parametrize("function", [strided.shrink, strided.enlarge])
def test_derivatives_inside_a_loop(function):
    x, kernel = draw(2, 4, 6, 3), draw(3, 3, 3, 2, seed=1)

    def loss(x, kernel, in_loop):
        return jnp.sum(jnp.sin(function(x, kernel, 2, in_loop=in_loop)))

    grads = [
        jax.jit(jax.grad(functools.partial(loss, in_loop=in_loop), (0, 1)))(x, kernel)
        for in_loop in (False, True)
    ]
    chex.assert_trees_all_close(*grads, rtol=1e-4, atol=1e-5)


def test_refusals():
    with pytest.raises(ValueError, match=r"odd, equal sides; got \(4, 4\)"):
        strided.enlarge(draw(1, 4, 4, 1), draw(4, 4, 1, 1))
    with pytest.raises(ValueError, match=r"stride 2 must divide the plane \(4, 5\)"):
        strided.shrink(draw(1, 4, 5, 1), draw(3, 3, 1, 1), 2)
