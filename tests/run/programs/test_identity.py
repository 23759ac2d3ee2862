"""Descriptions of what programs depend on."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.models.bases import create_base
from earthformer_jax.models.ensemble import Ensemble
from earthformer_jax.models.hybrid import Hybrid
from earthformer_jax.models.persistence import Persistence
from earthformer_jax.run.programs import identity
from tests.training import toy

SHAPE = (4, 16, 16, 2)


def made(name="unet", **options):
    return models.create_model(name, input_shape=SHAPE, target_shape=SHAPE, **options)


def test_every_model_has_one_of_its_own():
    described = [identity.of_model(made(name)) for name in models.names()]
    assert len(set(described)) == len(models.names())


def test_equal_models_are_described_alike():
    assert identity.of_model(made()) == identity.of_model(made())


def test_whatever_differs_is_told():
    base = create_base("persistence", SHAPE, SHAPE)
    found = [
        identity.of_model(model)
        for model in (
            made(),
            made(dtype="bfloat16"),
            made(noise=4),
            made(noise=4, noise_seed=1),
            Persistence(SHAPE, SHAPE),
            Persistence(SHAPE, (3, 16, 16, 2)),
            Ensemble(SHAPE, SHAPE, made(), 2),
            Ensemble(SHAPE, SHAPE, made(), 3),
            Ensemble(SHAPE, SHAPE, made(noise=4), 3),
            Hybrid(SHAPE, SHAPE, made(), base),
        )
    ]
    assert len(set(found)) == len(found)


def test_constants_count_with_every_value():
    # NumPy shows large arrays without what is in their middle.
    arrays = [np.zeros(10_000), np.zeros(10_000), np.zeros(10_000, np.float32)]
    arrays[1][5_000] = 1e-9
    options = [
        Persistence(SHAPE, SHAPE, dtype=x) for x in (*arrays, {"a": 1}, [1, "1"])
    ]
    assert len({identity.of_model(x) for x in options}) == 5


class Outside(nn.Module):
    factor: float = 1.0


@pytest.mark.parametrize(
    "model",
    [
        toy.ToyModel(),
        Outside(),
        Ensemble(SHAPE, SHAPE, Outside(), 2),
        Persistence(SHAPE, SHAPE, dtype=lambda: None),
        Persistence(SHAPE, SHAPE, dtype=functools.partial(print)),
        Persistence(SHAPE, SHAPE, dtype=test_equal_models_are_described_alike),
        Persistence(SHAPE, SHAPE, dtype=np.array([object()])),
        Persistence(SHAPE, SHAPE).bind({}),
    ],
)
def test_what_cannot_be_told_with_certainty_is_unknown(model):
    with pytest.raises(identity.UnknownError):
        identity.of_model(model)


def test_arrays_are_described_by_shape_and_type():
    x = np.ones((2, 3), np.float32)
    assert identity.of_arrays({"a": x}) == identity.of_arrays({"a": 2 * x})
    others = [{"a": x[:1]}, {"a": x.astype("f2")}, {"b": x}, [x], {"a": 1}, {"a": 1.0}]
    assert len({identity.of_arrays(t) for t in [*others, {"a": x}]}) == 7
    scalars = [1, np.int32(1), jnp.asarray(1), jnp.asarray(1, jnp.int32)]
    assert len({identity.of_arrays(s) for s in scalars}) >= 2  # some are weakly typed


def test_surroundings(monkeypatch):
    before = identity.of_surroundings()
    assert before == identity.of_surroundings()
    assert jax.__version__ in before and "cpu" in before
    with jax.default_matmul_precision("highest"):
        assert identity.of_surroundings() != before
    monkeypatch.setenv("XLA_FLAGS", "--other")
    assert identity.of_surroundings() != before
