"""Up-sampling and convolving in one, against the two in turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops.convolution import convolve
from earthformer_jax.ops.resample import resize_nearest
from earthformer_jax.ops.upsample import upsample_convolve, windows


@pytest.mark.parametrize("factors", [(1, 1), (2, 2), (1, 2), (3, 2), (4, 1)])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (1, 1)])
def test_equals_both_in_turn(factors, kernel):
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    weights = jax.random.normal(jax.random.key(1), (*kernel, 3, 4))

    def in_turn(x, weights):
        large = resize_nearest(x[:, None], (1, 4 * factors[0], 5 * factors[1]))[:, 0]
        return convolve(large, weights, tuple((k // 2, k // 2) for k in kernel))

    def loss(function):
        return lambda *a: jnp.sum(jnp.sin(function(*a)))

    have = upsample_convolve(x, weights, factors)
    want = in_turn(x, weights)
    assert have.shape == want.shape
    np.testing.assert_allclose(have, want, atol=1e-5 * float(jnp.abs(want).max()))
    gradients = (
        jax.grad(loss(f), (0, 1))(x, weights)
        for f in (lambda *a: upsample_convolve(*a, factors), in_turn)
    )
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_a_factor_of_two_halves_the_window():
    """Outputs 2a + 1 and 2a + 2 read points a and a + 1, and nothing else."""
    taps, padding, skipped = windows(2, 3)
    np.testing.assert_array_equal(taps[0], [[1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(taps[1], [[1, 0, 0], [0, 1, 1]])
    assert padding == (1, 1) and skipped == 1
