"""The trained models that come with the package."""

import copy
import dataclasses
import importlib
import os
import pathlib

import jax
import numpy as np
import pytest
import xarray as xr

import earthformer_jax as ef
from earthformer_jax import data, pretrained
from earthformer_jax.forecast import archive
from earthformer_jax.run.forecasting import figures, making
from earthformer_jax.run.loading import shipped
from earthformer_jax.run.start import first_weights
from earthformer_jax.settings import ConfigError

ROOT = pathlib.Path(__file__).parents[1]
NAMES = pretrained.names()
GENERATED = ("nbody-mnist", "radar-twin")
PARTS = ("another config", "another card", "its forecast differs by")
SST = "KAPLAN_SST"  # environment variable with the path of the file


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "experiments")
        yield importlib.import_module("shipped_models")


@pytest.fixture(scope="module")
def trained():
    """The models, loaded and compiled once."""
    return {name: shipped.load(name) for name in NAMES}


def errors(model, examples, count):
    """Mean squared errors of a model and of persistence on a few examples."""
    chosen = np.linspace(0, len(examples) - 1, count).astype(int)
    inputs, targets = (
        np.stack([examples[int(i)][name] for i in chosen])
        for name in ("inputs", "targets")
    )
    last = inputs[:, -1:, ..., : targets.shape[-1]]
    return [np.mean((x - targets) ** 2) for x in (np.asarray(model(inputs)), last)]


def test_every_recipe_has_a_file_and_every_file_a_recipe(script):
    assert NAMES == sorted(script.RECIPES) == shipped.names()


def test_they_are_small():
    sizes = [pretrained.path(name).stat().st_size for name in NAMES]
    assert max(sizes) < 2e6 and sum(sizes) < 6e6


@pytest.mark.parametrize("name", NAMES)
def test_it_gives_the_stored_numbers(trained, name):
    stored = archive.read(pretrained.path(name)).self_test
    forecast = trained[name](stored["model_inputs"])
    np.testing.assert_allclose(forecast, stored["model_forecast"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_better_than_persistence_in_its_stored_scores(script, name):
    facts = archive.read(pretrained.path(name)).metadata["facts"]
    first = script.RECIPES[name].scores[0].heading
    gain, low, high = facts["ahead"][first]["persistence"]
    assert 0 < low <= gain <= high


@pytest.mark.parametrize("name", GENERATED)
def test_it_is_better_than_persistence_on_generated_examples(trained, script, name):
    model = trained[name]
    ours, persistence = errors(model, model.data.test, script.TESTED)
    assert ours < 0.9 * persistence


def test_it_is_better_than_persistence_on_the_observations(trained):
    path = os.environ.get(SST)
    if not path:
        pytest.skip(f"{SST} is not set: the observations are not part of the package")
    model = trained["enso-sst"]
    fields = model.config.data.to_dict() | {"path": path, "simulated": False}
    examples = data.load(fields, None, model.state).data.test
    ours, persistence = errors(model, examples, len(examples))
    assert ours < 0.9 * persistence


@pytest.mark.parametrize("name", NAMES)
def test_the_config_is_that_of_the_recipe(script, name):
    """And no longer if a field of either differs."""
    held, recipe = archive.read(pretrained.path(name)), script.RECIPES[name]
    assert script.follows(recipe, held)
    other = copy.deepcopy(dict(held.config))
    other["optim"]["lr"] *= 2
    metadata = {**held.metadata, "config_hash": script.hash_of(other)}
    assert not script.follows(recipe, dataclasses.replace(held, config=other))
    changed = dataclasses.replace(held, config=other, metadata=metadata)
    assert not script.follows(recipe, changed)


def test_validation_alone_chooses(script):
    recipe = script.RECIPES["enso-sst"]
    first, second = recipe.settings
    assert script.chosen(recipe, {first: 0.2, second: 0.3}) == second
    assert script.chosen(recipe, {first: 0.3, second: 0.2}) == first


def test_the_page_shows_the_cards(script):
    assert script.PAGE.read_text() == script.page()


def test_the_check_names_what_differs(script, tmp_path, monkeypatch):
    name = "enso-sst"
    held = archive.read(pretrained.path(name))
    config = {**held.config, "seed": held.config["seed"] + 1}
    weights = jax.tree.map(lambda x: 1.01 * x, held.variables)
    metadata = {**held.metadata, "card": held.metadata["card"].replace("El Niño", "")}
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path)
    assert script.problems(name, script.RECIPES[name]) == [
        f"{pretrained.path(name)} does not exist"
    ]
    changed = dataclasses.replace(
        held, config=config, variables=weights, metadata=metadata
    )
    archive.write(pretrained.path(name), changed)
    found = script.problems(name, script.RECIPES[name])
    assert [part in line for part, line in zip(PARTS, found, strict=True)] == [True] * 3


def test_no_file_knows_where_it_was_made():
    for name in NAMES:
        held = archive.read(pretrained.path(name))
        texts = [str(held.config), str(held.metadata), held.state.description]
        assert not [text for text in texts if "/tmp" in text or "/work" in text]


def test_a_forecast_of_months_that_were_never_seen(trained, tmp_path):
    """From 12 months of anomalies to a file, maps and the index."""
    latitude, longitude = np.arange(-27.5, 28, 5), np.arange(182.5, 288, 5)
    warm = np.exp(-((latitude[:, None] / 10) ** 2)) * np.ones(22)
    months = np.datetime64("2023-01") + np.arange(12)
    values = np.linspace(0.2, 2, 12)[:, None, None] * warm
    sst = xr.Dataset(
        {"ssta": (("time", "lat", "lon"), values.astype("f4"), {"units": "degC"})},
        {"time": months.astype("M8[ns]"), "lat": latitude, "lon": longitude},
    )
    sst.to_netcdf(tmp_path / "today.nc")
    wanted = making.request(str(tmp_path / "today.nc"))
    drawn = []
    path = making.write(
        trained["enso-sst"],
        wanted,
        tmp_path / "next.nc",
        tmp_path,
        written=lambda *made: drawn.extend(figures.draw(*made)),
    )
    with xr.open_dataset(path) as made:
        assert str(made["time"].values[0])[:7] == "2024-01" and len(made["time"]) == 14
        index = made["nino34"].values
    # A strong El Niño at its peak in December decays in the following year.
    assert 1 < index[0] < 2.5 and index[9] < 0.5 * index[0]
    assert {x.name for x in drawn} >= {"next_ssta.png", "next_nino34.png"}
    assert {*drawn} == {*tmp_path.glob("*.png")}


def test_a_name_is_all_that_is_needed():
    assert ef.load("nbody-mnist").input_shape == (10, 32, 32, 1)


def test_without_the_data_of_its_training_it_needs_an_input(
    trained, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="kaplan.*is not here; name a file .* --inpu"):
        trained["enso-sst"].forecast()


def test_a_training_can_begin_with_its_weights(trained):
    model = trained["enso-sst"]
    found = first_weights("enso-sst", model.model, model.variables)
    kept = model.variables["params"]  # what it corrects is learned from the new data
    jax.tree.map(np.testing.assert_array_equal, found, {"params": kept})


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nbody-mnist").mkdir()
    with pytest.raises(ConfigError, match="nbody-mnist holds no config.json"):
        ef.load("nbody-mnist")


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(ConfigError, match="enso-st does not exist.*`enso-sst`"):
        ef.load("enso-st")
    with pytest.raises(ConfigError, match="package: enso-sst, nbody-mnist, radar-twin"):
        shipped.load("zzz")
