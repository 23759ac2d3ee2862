"""Padding, wrapping in longitude, and convolutions inside loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from earthformer_jax.ops import convolution, resample
from earthformer_jax.ops.tuned import (
    frame_convolution,
    loop_convolution,
    strided,
    upsample,
)
from earthformer_jax.ops.tuned.loop_convolution import convolve_in_loop


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


@pytest.mark.parametrize("convolve", [convolution.convolve, convolve_in_loop])
def test_on_a_circle_the_origin_does_not_matter(convolve):
    x, kernel = draw(2, 5, 6, 3), draw(3, 5, 3, 4, seed=1)
    padding = convolution.plane_padding((5, 6), (3, 5), "same")
    y = convolve(x, kernel, padding, wrap=True)
    turned = convolve(jnp.roll(x, 2, axis=2), kernel, padding, wrap=True)
    np.testing.assert_allclose(turned, jnp.roll(y, 2, axis=2), atol=1e-5)
    three = jnp.concatenate([x, x, x], axis=2)  # the same, with neighbours in sight
    flat = convolve(three, kernel, padding)[:, :, 6:12]
    np.testing.assert_allclose(y, flat, atol=1e-5)


@pytest.mark.parametrize(
    "convolve", [convolution.convolve_clips, loop_convolution.convolve_clips]
)
def test_two_taps_are_the_frame_and_the_next_one(convolve):
    x = draw(1, 3, 1, 1, 1)
    kernel = jnp.array([2.0, 10.0]).reshape(2, 1, 1, 1, 1)
    a, b, c = x.ravel()
    want = [2 * a + 10 * b, 2 * b + 10 * c, 2 * c]
    np.testing.assert_allclose(convolve(x, kernel).ravel(), want, rtol=1e-6)


@pytest.mark.parametrize(
    "length, size", [(3, (3, 3, 3)), (2, (1, 1, 1)), (4, (4, 2, 3))]
)
def test_clips_as_planes(length, size):
    x, kernel = draw(2, length, 4, 5, 3), draw(*size, 3, 2, seed=1)
    have = loop_convolution.convolve_clips(x, kernel)
    want = convolution.convolve_clips(x, kernel)
    np.testing.assert_allclose(have, want, atol=1e-4)


RESIZES = [(1, 1), (3, 1), (3, 2), (5, 3), (1, 2)]


@pytest.mark.parametrize("module", [convolution, strided])
@pytest.mark.parametrize(("side", "stride"), RESIZES)
def test_shrink_by_its_definition(module, side, stride):
    x, kernel = draw(1, 2 * stride, 2 * stride, 2), draw(side, side, 2, 3, seed=1)
    padded = np.pad(x[0], ((side, side), (side, side), (0, 0)))
    want = np.zeros((2, 2, 3), np.float32)
    for i, j, u, v in np.ndindex(2, 2, side, side):
        row = stride * i + u - side // 2 + side
        column = stride * j + v - side // 2 + side
        want[i, j] += padded[row, column] @ np.asarray(kernel[u, v])
    np.testing.assert_allclose(module.shrink(x, kernel, stride)[0], want, atol=1e-5)


@pytest.mark.parametrize("module", [convolution, strided])
@pytest.mark.parametrize(("side", "stride"), RESIZES)
def test_enlarge_is_the_adjoint_of_shrink(module, side, stride):
    """<y, shrink x> = <enlarge y, x>, with the kernel's channels swapped."""
    x, y = draw(1, 3 * stride, 2 * stride, 2), draw(1, 3, 2, 4, seed=1)
    kernel = draw(side, side, 2, 4, seed=2)
    _, pull = jax.vjp(lambda x: convolution.shrink(x, kernel, stride), x)
    have = module.enlarge(y, kernel.swapaxes(2, 3), stride)
    np.testing.assert_allclose(have, pull(y)[0], atol=1e-5)


@pytest.mark.parametrize("module", [convolution, strided])
def test_refusals_of_resizing(module):
    with pytest.raises(ValueError, match=r"odd, equal sides; got \(4, 4\)"):
        module.enlarge(draw(1, 4, 4, 1), draw(4, 4, 1, 1))
    with pytest.raises(ValueError, match=r"stride 2 must divide the plane \(4, 5\)"):
        module.shrink(draw(1, 4, 5, 1), draw(3, 3, 1, 1), 2)


def test_refusals():
    with pytest.raises(ValueError, match="padding must be one of"):
        convolution.plane_padding((4, 4), (3, 3), "reflect")
    with pytest.raises(ValueError, match=r"spans \(5, 3\) does not fit .* \(4, 4\)"):
        convolution.output_plane((4, 4), (3, 3), ((0, 0), (0, 0)), dilation=(2, 1))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, k, b: convolution.convolve(x, k, ((1, 1), (1, 1)), b),
        lambda x, k, b: frame_convolution.convolve(x, k, ((1, 1), (1, 1)), b),
        lambda x, k, b: convolution.convolve_frames(x[None], k, b),
        lambda x, k, b: frame_convolution.convolve_frames(x[None], k, b),
        lambda x, k, b: resample.upsample_convolve(x, k, (8, 8), b),
        lambda x, k, b: upsample.upsample_convolve(x, k, (8, 8), b),
    ],
)
@pytest.mark.parametrize("channels", [2, 16])
def test_a_bias_of_another_size(function, channels):
    """It would be added to the wrong axis, or to all channels."""
    x, kernel = draw(1, 4, 4, 2), draw(3, 3, 2, channels)
    assert function(x, kernel, jnp.zeros(channels)).shape[-1] == channels
    for shape in ((1,), (4, channels)):
        with pytest.raises(ValueError, match="bias has shape"):
            function(x, kernel, jnp.zeros(shape))
