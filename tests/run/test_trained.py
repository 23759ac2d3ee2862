"""A trained model as a function."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.run.trained import TrainedModel
from tests.training import toy


@pytest.fixture(scope="module")
def trained():
    model = toy.ToyModel(dropout=0.5)
    variables = model.init(jax.random.key(0), jnp.zeros((1, *toy.SHAPE)))
    return TrainedModel(
        model=model,
        variables=variables,
        config=toy.config(),
        state=None,
        open_dataset=toy.dataset,
        step=3,
        complete=True,
    )


def inputs(batch, dtype=np.float32):
    return np.random.default_rng(0).normal(size=(batch, *toy.SHAPE)).astype(dtype)


def test_it_is_the_model_without_dropout(trained):
    want = trained.model.apply(trained.variables, inputs(2), train=False)
    np.testing.assert_allclose(trained(inputs(2)), want, rtol=1e-5, atol=1e-6)


def test_shapes(trained):
    assert trained.input_shape == trained.target_shape == toy.SHAPE
    example = trained.data.test[0]["inputs"]
    assert trained([example, example]).shape == (2, *toy.SHAPE)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, int])
def test_numbers_of_any_type_give_float32(trained, dtype):
    assert trained(inputs(1, dtype)).dtype == np.float32


@pytest.mark.parametrize(
    "shape", [toy.SHAPE, (0, *toy.SHAPE), (1, 1, 2, *toy.SHAPE[2:]), (2, 3, 4, 4, 2)]
)
def test_wrong_shapes_are_refused(trained, shape):
    with pytest.raises(ValueError) as error:
        trained(np.zeros(shape))
    assert f"inputs have the shape {shape}" in str(error.value)
    assert "expected (batch, 3, 4, 4, 1): (batch, time, height" in str(error.value)


def test_it_is_compiled_once_for_each_size_of_the_batch(trained):
    traced = []

    class Noted(toy.ToyModel):
        def __call__(self, inputs, *, train=False):
            traced.append(len(inputs))
            return super().__call__(inputs, train=train)

    noted = dataclasses.replace(trained, model=Noted())
    for batch in (5, 5, 2, 5, 2):
        noted(inputs(batch))
    assert traced == [5, 2]


def test_it_composes(trained):
    x = inputs(2)
    slopes = jax.jit(jax.grad(lambda x: trained(x).sum()))(x)
    assert slopes.shape == x.shape and np.abs(slopes).max() > 0
    several = jax.vmap(trained)(np.stack([x, x + 1]))
    np.testing.assert_allclose(several[1], trained(x + 1), rtol=1e-5, atol=1e-6)


def test_it_cannot_be_changed(trained):
    with pytest.raises(AttributeError):
        trained.step = 4
