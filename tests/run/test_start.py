"""A training that begins with weights: of a workdir, or official ones."""

import json
import logging
import types
from typing import Any, cast

import jax
import numpy as np
import optax
import pytest

from earthformer_jax import models, pretrained
from earthformer_jax.data.state import DataState, Layout
from earthformer_jax.forecast import archive
from earthformer_jax.interop import official
from earthformer_jax.run import api
from earthformer_jax.run.run import Run
from earthformer_jax.run.start import first_weights, with_base
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


def test_of_a_workdir(trained, tmp_path, caplog):
    """The new training begins with the model that `load` reads, average and all."""
    caplog.set_level(logging.INFO)
    model = toy.ToyModel()
    weights = first_weights(str(trained), model, like(model))
    assert (
        f"{trained}, step 5" in caplog.text and "6 of 6 arrays are kept" in caplog.text
    )
    folder = Checkpoints(trained / "checkpoints")
    averaged, _ = folder.restore_variables("best", like(model))
    jax.tree.map(np.testing.assert_array_equal, weights, averaged)
    config = toy.config(
        train__steps=1, train__log_every=1, optim__lr=1e-12, train__simulated_steps=0
    )
    train(config, tmp_path, dataset=toy.dataset(), model=model, weights=weights)
    for average in (False, True):
        after, progress = Checkpoints(tmp_path / "checkpoints").restore_variables(
            "last", like(model), averaged=average
        )
        assert progress.step == 1
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, weights
        )


def test_a_part(trained, caplog):
    """What does not fit stays new, and the log says why."""
    caplog.set_level(logging.INFO)
    model = toy.ToyModel(features=5, has_unused=True)
    weights = first_weights(str(trained), model, like(model))
    assert set(weights["params"]) == {"last"}
    assert "1 of 7 arrays are kept, 6 new" in caplog.text
    assert "new: params/first/kernel ((48, 8) in the weights, (48, 5) here)" in (
        caplog.text
    )
    assert "new: params/global_vectors (absent from the weights)" in caplog.text
    levels = {r.levelname for r in caplog.records if "arrays are kept" in r.message}
    assert levels == {"WARNING"}


def test_an_exported_model(tmp_path, caplog):
    """Another grid and other names of the data are said, and a damaged file refused."""
    caplog.set_level(logging.INFO)
    model = toy.ToyModel()
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), like(model)
    )
    before, now = (
        DataState(
            name="custom",
            description="",
            layout=Layout(channels=(name,), units=("K",), size=(4, width)),
            input_shape=toy.SHAPE,
            target_shape=toy.SHAPE,
            examples={"train": 1},
        )
        for name, width in (("t", 4), ("sst", 5))
    )
    path = tmp_path / "model.efx"
    archive.write(path, archive.Archive(config={}, state=before, variables=variables))
    read = first_weights(str(path), model, like(model), now)
    jax.tree.map(np.testing.assert_array_equal, read, variables)
    assert "data: variables: t, now sst" in caplog.text
    assert "data: grid: 4 x 4 cells, now 4 x 5 cells" in caplog.text
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="init_from=.*is damaged or incomplete"):
        first_weights(str(path), model, like(model))


class TestNoise:
    """A probabilistic model and its network begin with each other's weights."""

    OPTIONS = dict(features=(4,), center_features=4)

    def model(self, **options):
        return models.create_model("unet", SHAPE, SHAPE, **self.OPTIONS, **options)

    def written(self, folder, model):
        """A file with random weights of a model, and these."""
        rng = np.random.default_rng(0)
        like = state.abstract_variables(model, SHAPE)
        variables = jax.tree.map(
            lambda x: rng.uniform(0.5, 1, x.shape).astype(np.float32), like
        )
        held = DataState(
            name="custom",
            description="",
            layout=Layout(channels=("t",), units=("K",), size=SHAPE[1:3]),
            input_shape=SHAPE,
            target_shape=SHAPE,
            examples={"train": 1},
        )
        path = folder / "model.efx"
        whole = archive.Archive(config={}, state=held, variables=variables)
        archive.write(path, whole)
        return str(path), variables

    @pytest.mark.parametrize("base", ["", "persistence"])
    def test_of_its_network(self, base, tmp_path, caplog):
        """Only the noise layers and the spread are new, and the forecast is equal."""
        caplog.set_level(logging.INFO)
        network, model = (
            self.model(base=base),
            self.model(base=base, noise=4, members=2),
        )
        path, variables = self.written(tmp_path, network)
        like = state.abstract_variables(model, SHAPE)
        weights = first_weights(path, model, like)
        kept = {kind: tree["network"] for kind, tree in weights.items()}
        jax.tree.map(np.testing.assert_array_equal, kept, dict(variables))
        assert "4 new" in caplog.text and "unused" not in caplog.text
        assert "new: params/noise/" in caplog.text
        assert "new: batch_stats/spread (absent from the weights)" in caplog.text
        fresh = state.create_state(
            jax.random.key(0), model=model, tx=optax.identity(), input_shape=SHAPE
        )
        begun = state.begin_with(fresh, weights).variables
        inputs = np.random.default_rng(1).normal(size=(2, *SHAPE)).astype(np.float32)
        found, wanted = (
            jax.jit(m.apply)(v, inputs)
            for m, v in ((model, begun), (network, variables))
        )
        np.testing.assert_allclose(found, wanted, rtol=1e-6)

    def test_of_another_one(self, tmp_path, caplog):
        """With noise layers and spread, or without them in a model without noise."""
        caplog.set_level(logging.INFO)
        model = self.model(noise=4)
        path, variables = self.written(tmp_path, model)
        weights = first_weights(path, model, state.abstract_variables(model, SHAPE))
        jax.tree.map(np.testing.assert_array_equal, dict(weights), dict(variables))
        network = self.model()
        weights = first_weights(path, network, state.abstract_variables(network, SHAPE))
        wanted = {kind: tree["network"] for kind, tree in variables.items()}
        jax.tree.map(np.testing.assert_array_equal, dict(weights), wanted)
        assert "4 others unused" in caplog.text

    def test_of_other_noise(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        path, _ = self.written(tmp_path, self.model(noise=4))
        model = self.model(noise=5)
        weights = first_weights(path, model, state.abstract_variables(model, SHAPE))
        assert "noise" not in weights["params"] and "spread" in weights["batch_stats"]
        assert "((4, 2, 8) in the weights, (5, 2, 8) here)" in caplog.text

    def test_a_base_inside(self):
        """Its constants belong to the network of a probabilistic model."""
        model = self.model(base="damped_persistence", noise=4)
        like = state.abstract_variables(model, SHAPE)
        base = like["batch_stats"]["network"]["base"]
        arrays = {name: np.full(x.shape, 0.5) for name, x in base.items()}
        data = types.SimpleNamespace(
            name="custom", bases={"damped_persistence": lambda: arrays}
        )
        weights = with_base(None, "damped_persistence", like, cast(Any, data))
        made = weights["batch_stats"]["network"]["base"]
        jax.tree.map(np.testing.assert_array_equal, made, arrays)


def test_a_model_of_the_package(caplog):
    """By name; its weights fit a model with other lengths and another grid."""
    caplog.set_level(logging.INFO)
    name = pretrained.names()[0]
    held = archive.read(pretrained.path(name))
    (t, h, w, c), (k, *_, out) = held.state.input_shape, held.state.target_shape
    options = {k: v for k, v in held.config["model"].items() if k != "name"}
    shapes = (t + 1, h, 2 * w, c), (k + 2, h, 2 * w, out)
    model = models.create_model(held.config["model"]["name"], *shapes, **options)
    shapes = state.abstract_variables(model, model.input_shape)
    weights = first_weights(name, model, shapes)
    count = len(jax.tree.leaves(shapes["params"]))  # without those of its base
    assert len(jax.tree.leaves(weights)) >= count - 1  # the gain is of other leads
    assert "adapted" in caplog.text


def test_a_part_and_new_arrays():
    """A state begins with its own arrays in place of those that are not given."""
    model = toy.ToyModel()
    fresh = state.create_state(
        jax.random.key(0),
        model=model,
        tx=optax.identity(),
        input_shape=toy.SHAPE,
        ema=True,
    )
    given = {"params": {"last": {"bias": np.full(48, 3.0, np.float32)}}}
    begun = state.begin_with(fresh, given)
    for params in (begun.params, begun.ema_params):
        assert (params["last"]["bias"] == 3).all()
        assert (params["last"]["kernel"] == fresh.params["last"]["kernel"]).all()
        assert jax.tree.structure(params) == jax.tree.structure(fresh.params)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "00000008 is incomplete or damaged"),
        ("absent", "does not exist; expected a workdir, an exported .* enso-sst"),
        ("absent.efx", "does not exist; expected a workdir"),
        ("w.npz", r"an exported model \(.efx\); other files .* for an Earthformer"),
        ("checkpoints", "expected the workdir, .*test_no_weights[^/]*$"),
        ("checkpoints/00000008", "expected the workdir, .*test_no_weights[^/]*$"),
    ],
)
def test_no_weights(tmp_path, name, message):
    model = toy.ToyModel()
    (tmp_path / "checkpoints" / "00000008").mkdir(parents=True)
    (tmp_path / "w.npz").touch()
    with pytest.raises(ConfigError, match=f"init_from=.*{message}"):
        first_weights(str(tmp_path / name), model, like(model))


def test_of_another_model(trained):
    model = models.create_model("unet", toy.SHAPE, toy.SHAPE, features=(8,))
    with pytest.raises(ConfigError, match="init_from=.*only 0 of .* arrays fit this"):
        first_weights(str(trained), model, like(model))


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
        read = first_weights(str(tmp_path / "w.npz"), model, shapes)
        jax.tree.map(np.testing.assert_array_equal, read, variables)
        others = {f"other.{name}": array for name, array in weights.items()}
        np.savez(tmp_path / "other.npz", **others)
        with pytest.raises(ConfigError, match=r"init_from=.*npz: only 0 of .* fit"):
            first_weights(str(tmp_path / "other.npz"), model, shapes)

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("absent.npz", None, "does not exist"),
            ("w.npz", b"cut", "is not a readable .npz file"),
            ("w.safetensors", b"cut", "is not a readable safetensors file"),
            ("w.txt", b"", "weights are read from .npz"),
        ],
    )
    def test_no_weights(self, model, shapes, tmp_path, name, content, message):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=f"config.train.init_from=.*{message}"):
            first_weights(str(tmp_path / name), model, shapes)


@pytest.mark.slow
def test_a_longer_training(tmp_path):
    """The way that the refusal names: the first loss is that of the old end."""
    changes = {"data.twin_years": 3, "optim.ema_decay": 0.9}
    config = api.load_config("custom:test,unet", changes)
    assert Run(config, tmp_path / "old").train()
    changes |= {"train.steps": 8, "train.init_from": str(tmp_path / "old")}
    longer = Run(api.load_config("custom:test,unet", changes), tmp_path / "new")
    assert longer.train()
    before, after = (
        [*map(json.loads, (tmp_path / name / "metrics.jsonl").read_text().splitlines())]
        for name in ("old", "new")
    )
    fresh, (began, first) = before[0], after[:2]
    assert first["step"] == fresh["step"] == 1
    assert first["train/loss"] < fresh["train/loss"]
    assert began["step"] == 0  # what it begins with is validated, and may stay the best
    end = [line for line in before if "validation/mse" in line][-1]
    assert began["validation/mse"] == pytest.approx(end["validation/mse"], rel=1e-5)
