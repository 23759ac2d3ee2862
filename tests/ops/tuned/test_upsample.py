"""Up-sampling and convolving in one step, against the two in sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.ops import resample
from earthformer_jax.ops.tuned.upsample import upsample_convolve, windows


@pytest.mark.parametrize("plane", [(4, 5), (8, 10), (12, 10), (6, 5), (3, 10)])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 1), (2, 3)])
def test_equals_both_in_turn(plane, kernel):
    """Whole factors, others, and windows with even sides."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 5, 3))
    weights = jax.random.normal(jax.random.key(1), (*kernel, 3, 4))
    have = upsample_convolve(x, weights, plane)
    want = resample.upsample_convolve(x, weights, plane)
    np.testing.assert_allclose(have, want, atol=1e-5 * float(jnp.abs(want).max()))


def test_a_factor_of_two_halves_the_window():
    """Outputs 2a + 1 and 2a + 2 read points a and a + 1, and nothing else."""
    taps, padding, skipped = windows(2, 3)
    np.testing.assert_array_equal(taps[0], [[1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(taps[1], [[1, 0, 0], [0, 1, 1]])
    assert padding == (1, 1) and skipped == 1


@pytest.mark.parametrize("function", [upsample_convolve, resample.upsample_convolve])
@pytest.mark.parametrize(
    ("small", "channels", "plane", "message"),
    [
        ((4, 5), 3, (0, 10), r"plane=\(0, 10\): expected"),
        ((4, 5), 3, (8.0, 10), r"plane=\(8\.0, 10\): expected"),
        ((4, 0), 3, (8, 10), r"x\.shape\[1:3\]=\(4, 0\): expected"),
        ((4, 5), 2, (8, 10), r"kernel has shape \(3, 3, 2, 4\)"),
    ],
)
def test_other_arguments_are_refused(function, small, channels, plane, message):
    with pytest.raises(ValueError, match=message):
        function(jnp.ones((2, *small, 3)), jnp.ones((3, 3, channels, 4)), plane)
