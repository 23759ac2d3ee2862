"""Gradients in bfloat16 have the size they should have, for every parameter."""

import pytest

from earthformer_jax import models
from tests.models import gradient_norms


def test_every_model_that_learns_is_in_the_table():
    assert {*gradient_norms.MODELS, "persistence"} == {*models.names()}
    shape = (gradient_norms.FRAMES, gradient_norms.SIDE, gradient_norms.SIDE, 1)
    for name, options in gradient_norms.MODELS.items():
        models.create_model(name, shape, shape, dtype="bfloat16", **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, exact", [("conv_lstm", False), ("predrnn", False), ("unet", True)]
)
def test_every_gradient(name, exact):
    leaves = gradient_norms.compare(name, number=2, exact=exact)
    assert len(leaves) > 10
    for leaf in leaves:
        assert abs(leaf.ratio - 1) < gradient_norms.TOLERANCE, leaf
