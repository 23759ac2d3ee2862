"""The configs that come with the project can be run as they are."""

import functools
import importlib.util
import pathlib

import ml_collections
import pytest

from earthformer_jax import models
from earthformer_jax.data.task import EmbedSeries
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import recipes
from earthformer_jax.run.run import build
from earthformer_jax.training import loop

FILES = sorted((pathlib.Path(__file__).parents[2] / "configs").glob("*.py"))


@functools.cache
def module(file):
    spec = importlib.util.spec_from_file_location(f"{file.stem}_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VARIANTS = [(file, variant) for file in FILES for variant in module(file).VARIANTS]


@pytest.mark.parametrize(
    ("file", "variant"), VARIANTS, ids=[f"{f.stem}-{v}" for f, v in VARIANTS]
)
def test_variant(file, variant):
    config = module(file).get_config(variant)
    config_lib.check(config)
    dataset, model = build(config)
    config_lib.check_dataset(config, dataset)
    loop.check_model(config, model, dataset.data.example())
    simple = "climatology" if isinstance(dataset.task, EmbedSeries) else "persistence"
    assert simple in dataset.task.references
    assert (
        len(dataset.data.display.channels)
        == dataset.data.example()["targets"].shape[-1]
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_variants_everyone_expects(file):
    assert {"paper", "quick", "test"} <= set(module(file).VARIANTS)
    assert module(file).get_config() == module(file).get_config("paper")
    with pytest.raises(ValueError, match=f"configs/{file.name}:huge is unknown"):
        module(file).get_config("huge")


def test_the_recipe_is_complete():
    config = recipes.training()
    config.data, config.model = dict(name="x"), dict(name="y")
    config_lib.check(config)


@pytest.mark.parametrize("name", [n for n in models.names() if n != "conv_autoencoder"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_model_on_every_data_set(file, name):
    """`--config=FILE:test,MODEL` gives a model of those data."""
    if file.stem == "climate_embedding":
        pytest.skip("its targets are its inputs")
    config = module(file).get_config(f"test,{name}")
    assert config.model.name == name
    dataset, model = build(config)
    loop.check_model(config, model, dataset.data.example())


@pytest.mark.parametrize("name", models.names())
def test_options_of_models_are_those_of_their_classes(name):
    options = recipes.model_options(name, "paper", "enso")
    assert {*options, "param_dtype"} - {"name"} <= {*models.fields(name), "param_dtype"}
    config = ml_collections.ConfigDict(dict(model=options))
    assert config_lib.to_json(config)


def test_unknown_models_are_refused():
    with pytest.raises(ValueError, match="unknown model 'gru'; the models are"):
        module(FILES[0]).get_config("quick,gru")


def test_forecasters_embed_nothing():
    config = module(FILES[0].with_name("climate.py")).get_config("test")
    config.data.out_len = 0
    with pytest.raises(
        config_lib.ConfigError, match="Earthformer has no method 'embed'"
    ):
        build(config)


def test_sizes_of_the_paper():
    config = module(FILES[0].with_name("enso.py")).get_config("paper,unet")
    assert config.model.features == (32, 64, 128)
    config = module(FILES[0].with_name("sevir.py")).get_config("paper,predrnn")
    assert config.model.downsampling == 8
