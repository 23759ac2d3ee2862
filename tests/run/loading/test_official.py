"""Official weights as a trained model: the outputs of the official code come out."""

import jax
import numpy as np
import pytest
import yaml

import earthformer_jax as ef
from earthformer_jax.data.enso import learned
from earthformer_jax.data.enso.icar import SST_MAX, SST_MIN
from earthformer_jax.interop import official as interop
from earthformer_jax.run.parts import example_shapes, load_data, make_model
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import state
from tests import golden_files

SMALL = {"data.in_len": 3, "data.out_len": 2, "data.twin_test": 4}
CUBOIDS = ("cuboid_size", "cuboid_strategy", "shift_size", "cuboid_hw", "shift_hw")


@pytest.fixture(scope="module")
def radar(tmp_path_factory):
    """A config, and random weights of its model in a file of the official layout."""
    config = ef.load_config("sevir:test", SMALL | {"model.forecast_change": False})
    shapes = example_shapes(config, load_data(config))
    model = make_model(config, *shapes)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32),
        state.abstract_variables(model, shapes[0]),
    )
    arrays: dict = interop.state_dict_from_params(variables, model)
    path = tmp_path_factory.mktemp("weights") / "radar.npz"
    np.savez(path, **arrays)
    return config, path, model, variables


def test_a_forecast_of_radar(radar):
    config, path, model, variables = radar
    trained = ef.load(path, config)
    jax.tree.map(np.testing.assert_array_equal, trained.variables, variables)
    assert trained.complete and trained.state.examples == dict.fromkeys(
        trained.state.examples, 0
    )
    forecast = trained.forecast()
    assert forecast["vil"].dims == ("time", "y", "x")
    assert "official weights radar.npz" in forecast.attrs["training_data"]
    assert "steps" not in forecast.attrs["source"]
    inputs = trained.data.test[3]["inputs"][None]
    codes = trained.data.normalization.decode(inputs)
    np.testing.assert_allclose(
        trained.apply(codes), 255 * np.asarray(trained(inputs)), rtol=1e-5, atol=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "data_set", "scale", "offset"),
    [
        ("e_model_sevir_like_48", "sevir", 255.0, 0.0),
        ("e_model_enso_like_full_shape", "enso", SST_MAX - SST_MIN, SST_MIN),
    ],
)
def test_outputs_of_the_official_code(tmp_path, name, data_set, scale, offset):
    """From a yaml file and weights, in physical units."""
    golden = golden_files.load(name)
    section = {k: v for k, v in golden["config"].items() if not k.endswith(CUBOIDS)}
    section.pop("dec_cross_n_temporal")
    content = {"model": section, "dataset": {"dataset_name": data_set}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    arrays = golden_files.group(golden, "param") | golden_files.group(golden, "buffer")
    np.savez(tmp_path / "a.npz", **arrays)
    trained = ef.load(tmp_path / "a.npz", str(tmp_path / "a.yaml"))
    found = trained.apply(golden["input/x"] * scale + offset)
    expected = golden["output/out"] * scale + offset
    error = np.abs(found - expected).max() / np.ptp(expected)
    assert error < 1e-5


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("radar.npz", None, "weights alone do not say .* such as sevir:released"),
        ("radar.npz", {"model.num_heads": 1}, "does not fit the model"),
        ("radar.npz", {"data.in_len": 4}, "wrong shape"),
        ("radar.npz", {"model.noise": 32}, "noise=32: expected 0, .*init_from"),
        ("radar.npz", {"model.name": "unet"}, "expected the config of an earthformer"),
        ("other.npz", {}, "other.npz: no weight file at"),
    ],
)
def test_wrong_weights(radar, name, changes, message):
    _, path, *_ = radar
    config = None
    if changes is not None:
        config = ef.load_config("sevir:test", SMALL | changes)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        ef.load(path.with_name(name), config)


@pytest.mark.parametrize(
    ("config", "changes"),
    [("custom:test", {}), ("enso:test", {}), ("enso:released", {"data.scale": 1.0})],
)
def test_data_whose_units_a_training_decides(radar, config, changes):
    with pytest.raises(ConfigError, match="no statistics of its training.*init_from"):
        ef.load(radar[1], ef.load_config(config, changes))


def test_a_config_that_is_not_needed(tmp_path):
    with pytest.raises(ConfigError, match="has a config of its own"):
        ef.load(tmp_path, "sevir:released")


def test_land_counts_as_in_the_reference(radar):
    """No cell of ICAR-ENSO is masked: the embedded data have another coast."""
    config = ef.load_config(
        "enso:released",
        {
            "model.base_units": 16,
            "model.num_heads": 2,
            "data.normalization": "official",
        },
    )
    shapes = example_shapes(config, load_data(config))
    model = make_model(config, *shapes)
    variables = jax.tree.map(
        lambda x: np.zeros(x.shape, np.float32),
        state.abstract_variables(model, shapes[0]),
    )
    path = radar[1].with_name("enso.npz")
    arrays: dict = interop.state_dict_from_params(variables, model)
    np.savez(path, **arrays)
    trained = ef.load(path, config)
    assert trained.state.fitted["ocean"].values.all()
    assert trained.state.fitted["scale"].attrs["land_counts"] == 1
    np.testing.assert_allclose(trained.state.fitted["offset"], SST_MIN)
    known = learned.unpack(trained.state)
    assert known.origin == learned.ICAR and known.fitted is None
