"""Batches that the devices cannot share equally give what one device gives."""

import functools

import jax
import numpy as np
import pytest

from earthformer_jax.training import evaluation
from earthformer_jax.training import mesh as mesh_lib
from earthformer_jax.training.devices import padding
from tests.training import toy
from tests.training.devices.steps import assert_close, batch_of, program_of

MODELS = {
    "dropout": toy.ToyModel(dropout=0.5),
    "batch_norm": toy.ToyModel(dropout=0.5, batch_norm=True),
    "sown": toy.ToyModel(sown_loss=3.0),
    "targets": toy.PupilModel(),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_step_is_that_of_one_device(name):
    model = MODELS[name]
    mesh = mesh_lib.data_mesh()
    assert padding.shares(mesh) == 4
    batch = batch_of(12)
    take = functools.partial(program_of, model, batch_size=12, micro_batch=6)
    alone, scalars = take(mesh_lib.data_mesh(jax.devices()[:1]))(batch)
    found, scalars_of_four = take(mesh)(batch)
    assert_close(found.params, alone.params)
    assert_close(found.batch_stats, alone.batch_stats)
    assert_close(scalars_of_four, scalars)


def test_copies_of_the_last_example():
    mesh = mesh_lib.data_mesh()
    batch = {"inputs": np.arange(10.0).reshape(5, 2), "valid": np.ones(5, bool)}
    found = padding.padded(mesh, batch)
    np.testing.assert_array_equal(found["inputs"][4:], batch["inputs"][[4] * 4])
    assert found["valid"].shape == (8,)
    assert len(padding.padded(mesh, batch, parts=3)["inputs"]) == 12
    assert padding.unpadding(mesh, 8) is None
    unpad = jax.jit(padding.unpadding(mesh, 5))
    assert_close(unpad(mesh_lib.put_batch(mesh, found)), batch)


def test_scores_and_forecasts():
    model, metric = toy.ToyModel(), toy.ToyMetric()
    variables = model.init(jax.random.key(0), batch_of(1)["inputs"])
    batch = batch_of(5) | {"valid": np.arange(5) < 4}
    scores, forecasts = [], []
    for devices in jax.devices()[:1], jax.devices():
        mesh = mesh_lib.data_mesh(devices)
        score = evaluation.make_scorer(model, metric, mesh)
        scores.append(score(variables, [batch]))
        forecast = evaluation.make_forecaster(model, variables, mesh)
        forecasts.append(forecast({"inputs": batch["inputs"]}))
    assert forecasts[1].shape == batch["inputs"].shape
    assert_close(scores[1], scores[0])
    assert_close(forecasts[1], forecasts[0])
