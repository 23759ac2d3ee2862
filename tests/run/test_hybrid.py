"""Hybrid models from the config to the exported file."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import earthformer_jax as ef
from earthformer_jax import models
from earthformer_jax.data.source import Batch
from earthformer_jax.forecast import archive
from earthformer_jax.models.hybrid import Hybrid, network_of
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import parts, start
from earthformer_jax.run.run import Run
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import state as state_lib
from tests.data import cube_files
from tests.training import toy

BASE = "damped_persistence"
SHAPES = (3, 16, 16, 2), (2, 16, 16, 1)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A small U-Net on damped persistence, of days with land and gaps."""
    axis = np.arange(16.0)
    fields = cube_files.dataset(800, latitude=axis, longitude=axis)
    fields["P"][:, :2, 3:] = np.nan
    fields["T"][::7, 5, 5] = np.nan
    path = cube_files.write(fields, tmp_path_factory.mktemp("data") / "days.nc")
    changes = {"data.path": path, "data.anomalies": True, "data.targets": ("P",)}
    changes |= {"model.base": BASE, "train.validate_every": 4}
    return ef.load_config("custom:test,unet", changes)


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A finished training."""
    workdir = tmp_path_factory.mktemp("run") / "w"
    run = Run(config, workdir)
    assert run.train()
    return run


def changed(config, **fields):
    config = config.copy_and_resolve_references()
    for field, value in fields.items():
        section, _, name = field.partition("__")
        config[section][name] = value
    return config


def as_batch(example) -> Batch:
    return {name: np.asarray(value)[None] for name, value in example.items()}


class TestTraining:
    def test_the_arrays_of_the_base_stay(self, run):
        """Through steps, averages and a checkpoint, on four devices: bit by bit."""
        arrays = run.dataset.data.bases[BASE]()
        held = run.load().variables["batch_stats"]["base"]
        assert held["factors"].any() and set(held) == set(arrays)
        jax.tree.map(np.testing.assert_array_equal, dict(held), dict(arrays))
        assert run.load().variables["params"]["gain"].any()

    def test_without_a_gain_it_is_the_reference(self, run):
        """To the last bits on the NumPy reference, with land and gaps in the input."""
        trained, batch = run.load(), as_batch(run.dataset.data.test[0])
        params = dict(trained.variables["params"])
        params["gain"] = jnp.zeros_like(params["gain"])
        variables = {**trained.variables, "params": params}
        without = dataclasses.replace(trained, variables=variables)
        reference = run.dataset.task.references[BASE](batch)
        forecast = without(batch["inputs"])
        np.testing.assert_allclose(forecast, reference, rtol=1e-6, atol=1e-7)
        assert np.abs(forecast - trained(batch["inputs"])).max() > 0

    def test_going_on_keeps_the_arrays(self, run, monkeypatch):
        again = Run(run.config, run.workdir)
        monkeypatch.setattr(start, "with_base", None)  # not called
        assert again.train()

    def test_another_base_is_another_model(self, run):
        other = changed(run.config, model__base="persistence")
        with pytest.raises(ConfigError, match='model.base: "damped_persistence", now'):
            Run(other, run.workdir).load()


class TestUse:
    def test_an_exported_file(self, run, tmp_path):
        trained = run.load()
        path = trained.export(tmp_path / "hybrid.efx", program=False)
        assert archive.read(path).metadata["model"] == f"unet + {BASE}"
        inputs = as_batch(run.dataset.data.test[3])["inputs"]
        np.testing.assert_array_equal(ef.load(path)(inputs), trained(inputs))

    def test_a_forecast_of_a_file(self, run):
        made = run.load().forecast(start="2003-02-20")
        assert made.attrs["source"].startswith(f"unet + {BASE} of earthformer_jax")
        assert np.isfinite(made["P"].values[..., 2:, :]).all()

    def test_maps_belong_to_their_grid(self, run):
        with pytest.raises(ConfigError, match=r"\['base'\]\['\w+'\] would have"):
            run.load().resized((16, 20))

    def test_bases_without_arrays_fit_every_grid(self, config):
        config = changed(config, model__base="persistence")
        resized = untrained(config).resized((16, 20))
        inputs = np.random.default_rng(0).normal(size=(1, 4, 16, 20, 2))
        inputs = inputs.astype(np.float32)
        wanted = np.repeat(inputs[:, -1:, ..., :1], 2, axis=1)
        forecast = resized.model.apply(resized.variables, inputs)
        np.testing.assert_array_equal(forecast, wanted)

    def test_layers_and_costs(self, config):
        text = parts.summarize(config)
        assert f"unet + {BASE} on custom" in text


def untrained(config):
    """A model as it is before a training."""
    _, model = parts.build(config)
    variables = state_lib.abstract_variables(model, (4, 16, 16, 2))
    return TrainedModel(
        model=model,
        variables=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables),
        config=config,
        state=None,
        open_dataset=lambda: parts.load_data(config),
        step=0,
        complete=True,
    )


class TestRefusals:
    """Each with a message, and nothing written."""

    @pytest.mark.parametrize(
        "changes, message",
        [
            (
                dict(data__anomalies=False),
                f"config.model.base={BASE} needs config.data.anomalies=True",
            ),
            (
                dict(model__base="lim"),
                "config.model.base=lim needs config.data.calendar=True",
            ),
            (
                dict(model__base="lim", data__calendar=True),
                "config.model.base=lim: data 'custom' have no such forecast; expected "
                f"one of persistence, advection, s_prog, {BASE}",
            ),
            (
                dict(model__base="damped"),
                "config.model.base='damped': expected an empty text or one of "
                "persistence, ",
            ),
            (
                dict(data__out_len=0, data__targets=()),
                f"config.model.base={BASE} is for forecasts; with ",
            ),
        ],
    )
    def test_what_the_data_do_not_have(self, config, tmp_path, changes, message):
        with pytest.raises(ConfigError) as error:
            Run(changed(config, **changes), tmp_path / "new").train()
        assert str(error.value).startswith(message)
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize(
        "arrays, message",
        [
            ({}, r"center absent, expected \(1,\); factors absent"),
            (dict(factors=np.zeros((2, 16, 16, 2))), r"factors \(2, 16, 16, 2\), exp"),
            (dict(more=np.zeros(3)), r"more \(3,\), expected none"),
            (dict(center=np.full(1, np.nan)), "center has values that are not finite"),
        ],
    )
    def test_arrays_that_do_not_fit(self, arrays, message):
        model = hybrid()
        given = {"factors": np.zeros(SHAPES[1]), "center": np.zeros(1)} | arrays
        data = dataclasses.replace(
            toy.dataset().data, bases={BASE: lambda: given if arrays else {}}
        )
        with pytest.raises(ConfigError, match=f"base={BASE}: the arrays .*{message}"):
            start.with_base(None, BASE, like(model), data)

    def test_a_base_that_cannot_be_learned(self):
        def learn():
            raise ValueError("12 months are too few")

        data = dataclasses.replace(toy.dataset().data, bases={BASE: learn})
        with pytest.raises(ConfigError, match=f"base={BASE}: 12 months are too few"):
            start.with_base(None, BASE, like(hybrid()), data)

    def test_official_weights_are_of_a_network_alone(self):
        config = ef.load_config("sevir:released", {"model.base": "advection"})
        with pytest.raises(ConfigError, match="base=advection: expected none, since"):
            ef.load("weights.npz", config)


def hybrid(name="unet", **options):
    if name == "unet":
        options |= dict(features=(4,), center_features=8)
    return models.create_model(name, *SHAPES, base=BASE, **options)


def like(model):
    return state_lib.abstract_variables(model, SHAPES[0])


def weights_of(model):
    """An exported file's arrays: 1, 2, ... of the variables in their order."""
    leaves, tree = jax.tree.flatten(like(model))
    filled = [np.full(x.shape, i + 1, x.dtype) for i, x in enumerate(leaves)]
    return jax.tree.unflatten(tree, filled)


class TestFirstWeights:
    """`train.init_from` with a hybrid."""

    def taken(self, monkeypatch, variables, model):
        source = start._Source("there", archive.flatten(variables))
        monkeypatch.setattr(start, "_read", lambda where, model: source)
        return start.first_weights("there", model, like(model))

    def test_of_a_network_alone(self, monkeypatch):
        """Its arrays, batch norms too; the gain is new, that is 0."""
        model = hybrid()
        alone = weights_of(network_of(model))
        found = self.taken(monkeypatch, alone, model)
        jax.tree.map(
            np.testing.assert_array_equal, found["params"], {"network": alone["params"]}
        )
        assert set(found["batch_stats"]) == {"network"}

    def test_of_a_hybrid(self, monkeypatch):
        """Network and gain; the base is learned from the new data."""
        model = hybrid()
        before = weights_of(model)
        found = self.taken(monkeypatch, before, model)
        jax.tree.map(np.testing.assert_array_equal, found["params"], before["params"])
        assert set(found["batch_stats"]) == {"network"}
        data = dataclasses.replace(
            toy.dataset().data,
            bases={
                BASE: lambda: {"factors": np.ones(SHAPES[1]), "center": np.zeros(1)}
            },
        )
        merged = start.with_base(found, BASE, like(model), data)
        assert merged["batch_stats"]["base"]["factors"].dtype == np.float32
        shapes, wanted = (jax.tree.map(np.shape, x) for x in (merged, like(model)))
        assert shapes == wanted

    def test_of_a_hybrid_for_a_network_alone(self, monkeypatch):
        """Departures are no forecast."""
        model = hybrid()
        with pytest.raises(ConfigError, match="init_from=there: .*choose a base"):
            self.taken(monkeypatch, weights_of(model), network_of(model))

    def test_of_a_hybrid_with_other_leads(self, monkeypatch, caplog):
        """Tables of an Earthformer are adapted, and the gain begins at 0."""
        caplog.set_level("INFO")
        small = dict(base_units=16, num_heads=2, enc_depth=(1, 1), dec_depth=(1, 1))
        options = dict(**small, base="persistence")
        before = models.create_model("earthformer", *SHAPES, **options)
        longer = (3, *SHAPES[1][1:])
        model = models.create_model("earthformer", SHAPES[0], longer, **options)
        found = self.taken(monkeypatch, weights_of(before), model)
        assert isinstance(model, Hybrid) and set(found["params"]) == {"network"}
        assert "new: params/gain ((2, 1, 1, 1) in the weights, (3, 1, 1, 1) here)" in (
            caplog.text
        )
        assert "adapted" in caplog.text


def test_fields_are_listed_for_every_model():
    for name in models.names():
        config = ef.load_config(f"enso:quick,{name}")
        lines = config_lib.list_fields(config).splitlines()
        assert any(x.startswith("--config.model.base=  simple fore") for x in lines)
