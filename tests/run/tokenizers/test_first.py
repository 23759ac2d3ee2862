"""The VQ-VAE that is trained before the model of its codes, or taken from elsewhere."""

import dataclasses

import jax
import ml_collections
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.data.state import DataState, Layout
from earthformer_jax.run import config_files
from earthformer_jax.run.config import explicit
from earthformer_jax.run.tokenizers import first
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import workdir as workdir_lib
from earthformer_jax.training.checkpoint import Checkpoints, Progress

SHAPE = (7, 32, 32, 1)
STATE = DataState(
    name="moving_mnist",
    description="made",
    layout=Layout(channels=("brightness",), units=("",), size=(32, 32)),
    input_shape=(4, *SHAPE[1:]),
    target_shape=(3, *SHAPE[1:]),
    examples=dict(train=32, validation=8, test=8),
    minutes=dict(train=(0, 100), validation=(101, 200), test=(201, 300)),
)


def config(**options):
    made = config_files.load("moving_mnist:test,earthformer_ar")
    with made.unlocked():
        made.model.update(options)
    return made


@pytest.fixture(scope="module")
def like():
    options = first.config_of(config()).model.to_dict()
    model = models.create_model(options.pop("name"), SHAPE, SHAPE, **options)
    inputs = jax.ShapeDtypeStruct((1, *SHAPE), np.float32)
    return dict(jax.eval_shape(model.init, jax.random.key(0), inputs))


def written(workdir, like, saved, state=STATE):
    """A workdir of a VQ-VAE whose arrays are all 2."""
    workdir.mkdir()
    workdir_lib.write_config(saved, workdir)
    state.write(workdir)
    arrays = jax.tree.map(lambda x: jax.numpy.full(x.shape, 2, x.dtype), like)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        step = {"step": jax.numpy.asarray(1)}
        checkpoints.save({**step, **arrays}, Progress(step=1, best_step=1))
    return workdir


def test_the_config_of_the_vq_vae():
    whole = config(tokenizer_steps=30)
    own = first.config_of(whole)
    assert own.model.name == "vq_vae" and own.model.codebook_size == 16
    assert own.model.code_width == 4 and own.model.factor == whole.model.factor
    assert own.data == whole.data and own.train.steps == 30
    assert own.train.batch_size == whole.train.batch_size
    assert own.train.loss == "" and explicit(own).train.monitor == "mse"


def test_which_models_need_one():
    assert first.is_trained(config())
    assert not first.is_trained(config(tokenizer="runs/vq"))
    assert not first.is_needed(config_files.load("moving_mnist:test"))
    both = config(tokenizer="runs/vq")
    both.train.init_from = "runs/other"
    with pytest.raises(ConfigError, match="leave one of the two empty"):
        first.is_trained(both)


def test_its_variables_become_constants(tmp_path, like):
    where = written(tmp_path / "vq", like, first.config_of(config()))
    given = config(tokenizer=str(where))
    whole = {"params": {}, "batch_stats": {first.FOLDER: like}}
    weights = first.add(None, tmp_path, whole, given, STATE)
    made = weights["batch_stats"][first.FOLDER]
    assert jax.tree.structure(made) == jax.tree.structure(like)
    assert all((x == 2).all() for x in jax.tree.leaves(made))


@pytest.mark.parametrize(
    "saved, state, message",
    [
        (dict(codebook_size=8), {}, r"set config\.model\.codebook_size=8"),
        (
            dict(features=16),
            {},
            r"=16 there, 8 here; set config\.model\.tokenizer_options\.features=16",
        ),
        ({}, dict(minutes=dict(train=(0, 250))), "months of the test period"),
        (
            {},
            dict(layout=dataclasses.replace(STATE.layout, size=(16, 16))),
            "data: grid: 16 x 16 cells, now 32 x 32",
        ),
    ],
)
def test_one_that_does_not_fit(tmp_path, like, saved, state, message):
    own = ml_collections.ConfigDict(first.config_of(config()).to_dict())
    own.model.update(saved)
    where = written(tmp_path / "vq", like, own, dataclasses.replace(STATE, **state))
    with pytest.raises(ConfigError, match=message):
        first.constants(where, like, config(tokenizer=str(where)), STATE)


def test_places_without_a_vq_vae(tmp_path, like):
    with pytest.raises(ConfigError, match="is not a folder; expected the workdir of"):
        first.constants(tmp_path / "none", like, config(), STATE)
    workdir_lib.write_config(config_files.load("moving_mnist:test,unet"), tmp_path)
    with pytest.raises(ConfigError, match="holds a model 'unet'; expected one of 'vq_"):
        first.constants(tmp_path, like, config(), STATE)


def test_weights_bring_their_own(tmp_path, like):
    whole = {"params": {}, "batch_stats": {first.FOLDER: like}}
    given = config()
    given.train.init_from = "runs/other"
    with pytest.raises(ConfigError, match="are absent or of another size"):
        first.add({"params": {}}, tmp_path, whole, given, STATE)
    weights = {"params": {}, "batch_stats": {first.FOLDER: like}}
    assert first.add(weights, tmp_path, whole, given, STATE) is weights
