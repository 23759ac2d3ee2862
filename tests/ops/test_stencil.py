"""Stencils against grouped convolutions, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops import convolution, stencil

PLANE = (7, 8)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def by_convolutions(x, kernels, dilations, padding, strides, wrap):
    """The sum over branches of a grouped convolution."""
    total = 0
    channels = x.shape[-1]
    for kernel, rate in zip(kernels, dilations, strict=True):
        more = [(rate - 1) * (k // 2) for k in kernel.shape[:2]]
        pads = tuple(
            (low + m, high + m) for (low, high), m in zip(padding, more, strict=True)
        )
        total += lax.conv_general_dilated(
            convolution.pad(x, pads, wrap),
            kernel[:, :, None],
            strides,
            "VALID",
            rhs_dilation=(rate, rate),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
        )
    return total


def by_stencil(x, kernels, dilations, padding, strides, wrap):
    size = kernels.shape[1:3]
    plane = convolution.output_plane(x.shape[1:3], size, padding, strides)
    weights, offsets = stencil.dilated_taps(kernels, dilations, padding)
    return stencil.apply_stencil(x, weights, offsets, plane, strides, wrap)


@pytest.mark.parametrize(
    ("dilations", "size", "padding", "strides", "wrap"),
    [
        ((1, 2, 4), (3, 3), "same", (1, 1), False),
        ((1, 2, 4), (3, 3), "same", (3, 2), True),
        ((2,), (5, 1), "same", (1, 1), True),
        ((2,), (5, 1), "valid", (2, 2), False),
    ],
)
def test_values_and_gradients(dilations, size, padding, strides, wrap):
    x, kernels = draw(2, *PLANE, 3), draw(len(dilations), *size, 3, seed=1)
    pads = convolution.plane_padding(PLANE, size, padding, strides)
    options = (dilations, pads, strides, wrap)

    @functools.partial(jax.jit, static_argnums=0)
    def run(function, x, kernels):
        y, pull = jax.vjp(lambda x, k: function(x, k, *options), x, kernels)
        return y, *pull(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    want, have = (run(f, x, kernels) for f in (by_convolutions, by_stencil))
    for h, w in zip(have, want, strict=True):
        np.testing.assert_allclose(h, w, rtol=1e-4, atol=1e-5)


def test_centres_are_one_tap():
    weights, offsets = stencil.dilated_taps(
        jnp.ones((3, 3, 3, 2)), (1, 2, 4), ((1, 1), (1, 1))
    )
    assert len(offsets) == len(set(offsets)) == 25
    np.testing.assert_array_equal(weights[offsets.index((0, 0))], [3, 3])
    np.testing.assert_array_equal(weights[offsets.index((-4, 2 - 2))], [1, 1])


def test_low_precision_is_summed_in_float32():
    x = jnp.full((1, 1, 1000, 1), 1.0, jnp.bfloat16)
    weights, offsets = jnp.full((1000, 1), 2**-9), tuple((0, i) for i in range(1000))
    y = stencil.apply_stencil(x, weights, offsets, (1, 1))
    assert y.dtype == jnp.bfloat16
    assert float(y[0, 0, 0, 0]) == pytest.approx(1000 / 512, rel=2**-8)


def test_under_vmap_and_jit():
    x, kernels = draw(3, 2, *PLANE, 3), draw(2, 3, 3, 3, seed=1)
    options = ((1, 2), ((1, 1), (1, 1)), (1, 1), False)

    def gradient(x):
        return jax.grad(lambda x: jnp.sum(by_stencil(x, kernels, *options) ** 2))(x)

    together = jax.jit(jax.vmap(gradient))(x)
    for one, whole in zip(x, together, strict=True):
        np.testing.assert_allclose(gradient(one), whole, rtol=1e-5, atol=1e-5)
