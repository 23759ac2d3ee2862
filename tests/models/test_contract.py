"""What is known about a model before it runs."""

import pytest

from earthformer_jax import models
from earthformer_jax.models import contract
from tests.training import toy

SHAPE = (2, 8, 8, 1)


def test_embedders():
    embedders = {
        name: isinstance(models.create_model(name, SHAPE, SHAPE), contract.Embedder)
        for name in ("persistence", "unet", "conv_autoencoder")
    }
    assert embedders == dict(persistence=False, unet=False, conv_autoencoder=True)


def test_models_that_are_given_the_targets():
    assert contract.uses_targets(models.create_model("predrnn", SHAPE, SHAPE))
    assert not contract.uses_targets(models.create_model("unet", SHAPE, SHAPE))
    pupil = toy.PupilModel()
    assert contract.uses_targets(pupil)
    object.__setattr__(pupil, "uses_targets", False)
    assert not contract.uses_targets(pupil)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0, float("nan"), "half"])
def test_dropout_is_a_rate(rate):
    with pytest.raises(ValueError, match="attn_drop=.*: expected a number"):
        models.create_model("earthformer", SHAPE, SHAPE, attn_drop=rate)


def test_no_attention_heads():
    with pytest.raises(ValueError, match="num_heads=0: expected"):
        models.create_model("earthformer", SHAPE, SHAPE, num_heads=0)
