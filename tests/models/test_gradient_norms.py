"""Gradients in bfloat16 are as large as those in float32, for every parameter."""

import pytest

from tests.models import gradient_norms


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv_lstm", "predrnn"])
def test_every_gradient(name):
    leaves = gradient_norms.compare(name, number=2)
    assert len(leaves) > 10
    for leaf in leaves:
        assert abs(leaf.low - 1) < gradient_norms.TOLERANCE, leaf
