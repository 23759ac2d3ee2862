"""Convolutions of clips against XLA's own, with TensorFlow's padding."""

import jax
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops import clip_convolution


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def reference(x, kernel):
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC")
    )


@pytest.mark.parametrize(
    ("length", "size"),
    [(2, (2, 5, 5)), (3, (3, 3, 3)), (2, (1, 1, 1)), (4, (4, 2, 3)), (1, (2, 3, 3))],
)
def test_the_same_as_a_convolution_in_three_dimensions(length, size):
    x, kernel = draw(2, length, 4, 5, 3), draw(*size, 3, 2, seed=1)
    have, pull = jax.vjp(clip_convolution.convolve, x, kernel)
    want, pull_reference = jax.vjp(reference, x, kernel)
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)
    cotangent = draw(*want.shape, seed=2)
    for a, b in zip(pull(cotangent), pull_reference(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_two_taps_are_the_frame_and_the_next_one():
    x = draw(1, 3, 1, 1, 1)
    kernel = np.array([2.0, 10.0], np.float32).reshape(2, 1, 1, 1, 1)
    have = clip_convolution.convolve(x, kernel).ravel()
    a, b, c = x.ravel()
    np.testing.assert_allclose(have, [2 * a + 10 * b, 2 * b + 10 * c, 2 * c], rtol=1e-6)
