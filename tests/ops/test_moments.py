"""Moments: inverse, finite differences, Taylor's theorem, the published numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import moments
from tests import golden_files


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("shape", [(7, 7), (3, 5), (2, 5, 3), (4, 4), (2, 3, 1, 1)])
def test_kernels_come_back(shape):
    with jax.enable_x64(True):
        kernels = draw(*shape).astype(jnp.float64)
        back = moments.moments_to_kernel(moments.kernel_to_moments(kernels))
        np.testing.assert_allclose(back, kernels, atol=1e-10)


@pytest.mark.parametrize(
    ("order", "stencil"),
    [
        ((0, 0), [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
        ((0, 1), [[0, 0, 0], [-0.5, 0, 0.5], [0, 0, 0]]),
        ((2, 0), [[0, 1, 0], [0, -2, 0], [0, 1, 0]]),
        ((1, 1), [[0.25, 0, -0.25], [0, 0, 0], [-0.25, 0, 0.25]]),
    ],
)
def test_central_differences_have_one_moment(order, stencil):
    one = np.zeros((3, 3))
    one[order] = 1
    got = moments.kernel_to_moments(jnp.asarray(stencil, jnp.float32))
    np.testing.assert_allclose(got, one, atol=1e-6)
    np.testing.assert_allclose(moments.moments_to_kernel(jnp.asarray(one)), stencil)


def test_a_kernel_is_the_sum_of_derivatives_that_its_moments_say():
    """On y^3 x^2 / 12 at (y, x) = (2, 3), whose derivatives are known."""
    kernel = np.asarray(draw(5, 5), np.float64)
    y, x = 2 + np.arange(-2, 3)[:, None], 3 + np.arange(-2, 3)
    of_y = np.array([y_ / 6 for y_ in (8, 12, 12, 6, 0)])  # y^3 / 6, derived
    of_x = np.array([x_ / 2 for x_ in (9, 6, 2, 0, 0)])  # x^2 / 2
    want = np.sum(kernel * y**3 * x**2 / 12)
    got = of_y @ np.asarray(moments.kernel_to_moments(jnp.asarray(kernel))) @ of_x
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_the_loss():
    ideal = moments.moments_to_kernel(jnp.eye(9).reshape(9, 3, 3))
    kernel = jnp.broadcast_to(jnp.moveaxis(ideal, 0, -1)[:, :, None], (3, 3, 4, 9))
    assert moments.moment_loss(kernel) < 1e-12
    # Without any filters, one of nine moments is wrong by 1, for each input channel.
    zeros = jnp.zeros_like(kernel)
    np.testing.assert_allclose(moments.moment_loss(zeros), 4 / 9, rtol=1e-6)


def test_the_published_code(record_property):
    data = golden_files.load("baselines/phydnet_moments")
    kernels = jnp.asarray(data["input/kernels"])

    def loss(kernels):
        return moments.moment_loss(jnp.moveaxis(kernels, 0, -1)[:, :, None])

    with jax.enable_x64(True):  # the stored moments are rounded, which costs 6e-5
        exact = moments.kernel_to_moments(jnp.asarray(kernels, jnp.float64))
        back = np.asarray(moments.moments_to_kernel(exact))
    pairs = [
        (moments.kernel_to_moments(kernels), data["output/moments"]),
        (back, data["output/kernels_back"]),
        (moments.moment_matrix(7), data["output/M7"]),
        (loss(kernels), data["output/loss"]),
    ]
    for size in ("5x5", "5x3"):
        got = moments.kernel_to_moments(jnp.asarray(data[f"input/kernels_{size}"]))
        pairs.append((got, data[f"output/moments_{size}"]))
    error = max(np.abs(got - want).max() / np.abs(want).max() for got, want in pairs)
    record_property("golden PhyDNet moments error", float(error))
    assert error < 1e-5
    want = data["grad/input/kernels"]
    error = np.abs(jax.grad(loss)(kernels) - want).max() / np.abs(want).max()
    record_property("golden PhyDNet moments gradient error", float(error))
    assert error < 1e-4


def test_refusals():
    with pytest.raises(ValueError, match="3x3 kernel has 9 moments .* got 8"):
        moments.moment_loss(jnp.zeros((3, 3, 2, 8)))
    with pytest.raises(ValueError, match="side of 1 or more; got 0"):
        moments.moment_matrix(0)
