"""A training that begins with weights: of a workdir, or official ones."""

import json

import jax
import numpy as np
import pytest

from earthformer_jax import models
from earthformer_jax.interop import official
from earthformer_jax.run import api
from earthformer_jax.run.run import Run
from earthformer_jax.run.start import read_weights
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import state
from earthformer_jax.training.checkpoint import Checkpoints
from earthformer_jax.training.loop import train
from tests.training import toy

SHAPE = (2, 16, 16, 1)
SMALL = dict(base_units=16, num_heads=2, enc_depth=(1, 1), dec_depth=(1, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A workdir in which a toy has been trained for five steps, with an average."""
    workdir = tmp_path_factory.mktemp("old")
    config = toy.config(train__steps=5, train__log_every=1)
    train(config, workdir, dataset=toy.dataset(), model=toy.ToyModel())
    return workdir


def like(model):
    return state.abstract_variables(model, toy.SHAPE)


def test_of_a_workdir(trained, tmp_path):
    """The new training begins where the old one ended, average and all."""
    model = toy.ToyModel()
    weights = read_weights(str(trained), model, like(model))
    folder = Checkpoints(trained / "checkpoints")
    averaged, _ = folder.restore_variables("last", like(model))
    assert jax.tree.leaves(weights)[0].tolist() != jax.tree.leaves(averaged)[0].tolist()
    config = toy.config(
        train__steps=1, train__log_every=1, optim__lr=1e-12, train__simulated_steps=0
    )
    same = (config, tmp_path, toy.dataset(), model)
    train(*same[:2], dataset=same[2], model=model, weights=weights)
    after, progress = Checkpoints(tmp_path / "checkpoints").restore_variables(
        "last", like(model), averaged=False
    )
    assert progress.step == 1
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, weights
    )
    kept, _ = Checkpoints(tmp_path / "checkpoints").restore_variables(
        "last", like(model)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), kept, weights
    )


def test_of_another_model(trained):
    other = toy.ToyModel(features=5)
    with pytest.raises(ConfigError, match="init_from=.* belongs to another model"):
        read_weights(str(trained), other, like(other))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "holds no checkpoint: train first"),
        ("absent", "expected a workdir; files of weights are read for an Earthformer"),
    ],
)
def test_no_weights(tmp_path, name, message):
    model = toy.ToyModel()
    with pytest.raises(ConfigError, match=message):
        read_weights(str(tmp_path / name), model, like(model))


class TestOfficialWeights:
    @pytest.fixture(scope="class")
    @staticmethod
    def model():
        return models.create_model("earthformer", SHAPE, SHAPE, **SMALL)

    @pytest.fixture(scope="class")
    @staticmethod
    def shapes(model):
        return state.abstract_variables(model, SHAPE)

    def test_a_file(self, model, shapes, tmp_path):
        rng = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda x: rng.normal(size=x.shape).astype(np.float32), shapes
        )
        weights = official.state_dict_from_params(variables, model)
        np.savez(tmp_path / "w.npz", **weights)
        read = read_weights(str(tmp_path / "w.npz"), model, shapes)
        jax.tree.map(np.testing.assert_array_equal, read, variables)
        del weights[min(weights)]
        np.savez(tmp_path / "part.npz", **weights)
        with pytest.raises(ConfigError, match=r"(?s)init_from=.*part.npz: .*missing"):
            read_weights(str(tmp_path / "part.npz"), model, shapes)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("absent.npz", None, "no weight file at"),
            ("w.npz", b"cut", "is not a readable .npz file"),
            ("w.txt", b"", "weights are read from .npz"),
        ],
    )
    def test_no_weights(self, model, shapes, tmp_path, name, content, message):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=f"config.train.init_from=.*{message}"):
            read_weights(str(tmp_path / name), model, shapes)


@pytest.mark.slow
def test_a_longer_training(tmp_path):
    """The way that the refusal names: the first loss is that of the old end."""
    changes = {"data.twin_years": 3, "optim.ema_decay": 0.9}
    config = api.load_config("custom:test,unet", changes)
    assert Run(config, tmp_path / "old").train()
    changes |= {"train.steps": 8, "train.init_from": str(tmp_path / "old")}
    longer = Run(api.load_config("custom:test,unet", changes), tmp_path / "new")
    assert longer.train()
    fresh, first = (
        json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("old", "new")
    )
    assert first["step"] == fresh["step"] == 1
    assert first["train/loss"] < fresh["train/loss"]
