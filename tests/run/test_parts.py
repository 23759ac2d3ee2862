"""Whether the devices can share the levels of a model."""

import jax
import pytest

from earthformer_jax import models
from earthformer_jax.run.parts import check_levels
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.settings import ParallelSettings
from earthformer_jax.training.state import abstract_variables


def check(parts, shape):
    """A UNet with levels of 1, 1/2 and 1/4 of the field."""
    sizes = dict(features=(4, 4), center_features=4)
    model = models.create_model("unet", shape, shape, **sizes)
    variables = abstract_variables(model, shape)
    check_levels(ParallelSettings(space=parts), model, variables, shape)


@pytest.mark.parametrize(
    ("parts", "shape"), [(1, (2, 4, 4, 1)), (4, (2, 16, 8, 1)), (4, (2, 18, 16, 1))]
)
def test_levels_that_can_be_shared(parts, shape):
    check(parts, shape)


@pytest.mark.parametrize(
    ("parts", "shape", "message"),
    [
        (8, (2, 16, 32, 1), "4 x 8 cells, whose rows 8 devices .* at most 4"),
        (8, (2, 36, 16, 1), "9 x 4 cells, whose columns 8 devices .* at most 4"),
        (4, (2, 4, 4, 1), "1 x 1 cells, whose rows 4 devices .* at most 1"),
    ],
)
def test_levels_that_cannot(parts, shape, message):
    with pytest.raises(ConfigError, match=f"space={parts}: the model has .*{message}"):
        check(parts, shape)


def test_nothing_is_traced_where_fields_are_whole(monkeypatch):
    monkeypatch.setattr(jax, "make_jaxpr", None)
    check(1, (2, 4, 4, 1))
