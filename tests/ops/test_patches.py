"""Patch reshaping: its inverse, its order by hand and upstream, errors."""

import numpy as np
import pytest

from earthformer_jax.ops.patches import reshape_patch, reshape_patch_back
from tests import golden_files


@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_the_inverse(patch, lead):
    x = np.random.default_rng(0).normal(size=(*lead, 8, 12, 3))
    y = reshape_patch(x, patch)
    assert y.shape == (*lead, 8 // patch, 12 // patch, patch**2 * 3)
    np.testing.assert_array_equal(reshape_patch_back(y, patch), x)


def test_the_order_of_the_channels():
    """Row in the patch, column in the patch, channel."""
    x = np.arange(4 * 6 * 2).reshape(4, 6, 2)
    y = reshape_patch(x, 2)
    np.testing.assert_array_equal(
        y[1, 2], np.concatenate([x[2, 4], x[2, 5], x[3, 4], x[3, 5]])
    )


def test_the_pytorch_code():
    data = golden_files.load("baselines/predrnn_reshape_patch")
    y = reshape_patch(data["input/img"], data["config"]["patch_size"])
    np.testing.assert_array_equal(y, data["output/patched"])


def test_refusals():
    with pytest.raises(ValueError, match="8x6 cannot be .* patches of 4x4; pad"):
        reshape_patch(np.zeros((8, 6, 1)), 4)
    with pytest.raises(ValueError, match="patch=0: expected"):
        reshape_patch(np.zeros((8, 6, 1)), 0)
    with pytest.raises(ValueError, match="6 channels cannot be patches of 2x2"):
        reshape_patch_back(np.zeros((8, 6, 6)), 2)
