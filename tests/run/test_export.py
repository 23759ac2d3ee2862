"""Exported models: the same numbers elsewhere, with and without this package."""

import dataclasses
import json
import pathlib
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import earthformer_jax as ef
from earthformer_jax import data
from earthformer_jax.forecast import archive
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.run import parts
from earthformer_jax.run.config import completed
from earthformer_jax.run.forecasting import exporting
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError
from earthformer_jax.training.state import abstract_variables
from tests.data import cube_files

EXAMPLE = pathlib.Path(__file__).parents[2] / "docs" / "run_exported.py"
# Attention, convolutions, and loops with a state; those of every other model are
# exported for any batch in tests/models.
QUICK, SLOW = ("persistence", "conv_lstm"), ("earthformer", "unet", "predrnn")
# Runs the example for each file in a process that has nothing of this package.
ALONE = """
import importlib.abc, runpy, sys

REFUSED = (
    "earthformer_jax absl cf_xarray cftime chex einops flax grain h5py matplotlib "
    "ml_collections netCDF4 optax orbax pandas pint sklearn tqdm xarray zarr"
).split()

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"{name} is refused", name=name)

sys.meta_path.insert(0, Refuse())
try:
    import earthformer_jax
    sys.exit("the package can be imported")
except ModuleNotFoundError:
    pass
for path in sys.argv[2:]:
    sys.argv[1:] = [path]
    runpy.run_path(EXAMPLE)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Days with land and gaps, of which P is forecast from T and P."""
    folder = tmp_path_factory.mktemp("export")
    axis = np.arange(16.0)
    fields = cube_files.dataset(900, latitude=axis, longitude=axis)
    fields["P"][:, :2, 3:] = np.nan
    fields["T"][::7, 5, 5] = np.nan
    cube_files.write(fields, folder / "days.nc")
    return folder


@pytest.fixture(scope="module")
def make(folder):
    """A model of a name with weights that no training has made."""
    changes = {"data.path": str(folder / "days.nc"), "data.targets": ("P",)}
    changes |= {"data.anomalies": True, "data.calendar": True}
    config = ef.load_config("custom:test", changes)
    find_state = data.load(config.data).data.state
    assert find_state is not None
    state = find_state()

    def make(name, **options):
        config = completed(ef.load_config(f"custom:test,{name}", changes | options))
        shapes = state.input_shape, state.target_shape
        model = parts.make_model(config, *shapes)
        rng = np.random.default_rng(0)
        variables = jax.tree.map(
            lambda x: jnp.asarray(rng.uniform(0.05, 0.2, x.shape), x.dtype),
            abstract_variables(model, state.input_shape),
        )
        return TrainedModel(
            model=model, variables=variables, config=config, state=state,
            open_dataset=lambda: parts.load_data(config, state), step=7, complete=True,
        )  # fmt: skip

    return make


@pytest.fixture(scope="module")
def exported(folder, make):
    """A file without the program, which takes no compilation."""
    return exporting.export(make("unet"), folder / "lasting.efx", program=False)


def run_alone(paths):
    """The example's differences, relative to the range of each forecast."""
    code = ALONE.replace("EXAMPLE", repr(str(EXAMPLE)))
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, "", *map(str, paths)],
        capture_output=True, text=True, check=False, cwd=paths[0].parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [float(line.split("differs by ")[1].split()[0]) for line in lines]


def check_alone(folder, make, names):
    paths = []
    for name in names:
        path = folder / f"{name}.efx"
        paths.append(exporting.export(make(name), path, overwrite=True))
        test = archive.read(path).self_test
        assert test is not None
        forecast = test["forecast"]
        assert np.isnan(forecast).mean() == np.isnan(forecast[0, 0]).mean() > 0.01
        assert np.nanstd(forecast) > 0.1  # or the comparison would say nothing
    differences = run_alone(paths)
    assert len(differences) == len(names)
    assert max(differences) < 1e-6


def test_others_get_the_same_numbers(folder, make):
    check_alone(folder, make, QUICK)


@pytest.mark.slow
def test_others_get_the_same_numbers_from_larger_models(folder, make):
    check_alone(folder, make, SLOW)


def test_members_of_a_model_that_draws(folder, make):
    """The program draws what this package draws, in blocks from any number on."""
    noise = {"model.noise": 3, "model.members": 2}
    model = make("conv_lstm", **noise)
    found = archive.read(exporting.export(model, folder / "noise.efx"))
    assert found.program is not None and found.members is not None
    assert found.self_test is not None
    test = dict(found.self_test)
    weights = archive.flatten(found.variables)
    given = [test[name] for name in ("inputs", "minutes")]
    call = jax.export.deserialize(bytearray(found.program)).call
    span = np.nanmax(test["forecast"]) - np.nanmin(test["forecast"])
    np.testing.assert_allclose(
        call(weights, *given), test["forecast"], atol=1e-5 * span, rtol=0
    )
    call = jax.export.deserialize(bytearray(found.members)).call
    want = np.asarray(model.apply(*given, members=4))
    np.testing.assert_array_equal(want[:2], test["members"])
    assert float(np.nanmin(np.ptp(want, axis=0))) > 1e-5 * span
    for first in (0, 2):
        made = call(weights, *given, np.int32(first))
        np.testing.assert_allclose(
            made, want[first : first + 2], atol=1e-5 * span, rtol=0
        )
    assert found.metadata["members"]["shape"][:2] == [2, "batch"]


def test_the_lasting_form_is_the_model(exported, make, folder):
    """Loaded, it is what was exported: variables, config, state, forecasts of files."""
    before, after = make("unet"), ef.load(exported)
    jax.tree.map(np.testing.assert_array_equal, after.variables, before.variables)
    assert after.config.to_json_best_effort() == before.config.to_json_best_effort()
    assert (after.step, after.complete) == (7, True)
    assert after.state is not None
    assert not after.state.differences(before.state)
    assert after.data.description == before.data.description
    for path in (folder / "again.efx", folder / "new" / "again.efx"):
        after.export(path, program=False)
        again = archive.read(path)
        assert again.config == archive.read(exported).config
        assert again.program is None


def test_it_forecasts_files(folder, make):
    """As the model that was exported, and as arrays in physical units."""
    model = make("persistence")
    path = exporting.export(model, folder / "kept.efx", program=False)
    want = model.forecast(folder / "days.nc")
    got = ef.load(str(path)).forecast(folder / "days.nc")
    np.testing.assert_array_equal(got["P"].values, want["P"].values)
    fields = xr.open_dataset(folder / "days.nc").isel(time=slice(-4, None))
    minutes = fields["time"].values.astype("datetime64[m]").astype(int)
    inputs = cube_files.stacked(fields, ("P", "T"))
    array = model.apply(inputs[None], minutes[None])[0, ..., 0]
    np.testing.assert_allclose(array, want["P"].values, atol=1e-5)
    for name in ("source", "config_hash", "data_fingerprint"):
        assert got.attrs[name] == want.attrs[name]


def test_a_file_of_the_first_format_is_still_read():
    """Made by `tests/golden/make_exported_v1.py`."""
    path = pathlib.Path(__file__).parents[1] / "golden" / "exported_v1.efx"
    found, model = archive.read(path), ef.load(path)
    assert (found.metadata["version"], found.metadata["card"]) == (1, "# A test")
    test = found.self_test
    assert test is not None
    got, want = model.apply(test["inputs"], test["minutes"]), test["forecast"]
    np.testing.assert_allclose(got, want, atol=1e-6 * np.nanmax(want))
    assert np.isnan(want[:, :, 0, 0]).all()
    assert np.nanstd(want) > 0.1


def test_a_file_does_not_need_the_device_it_was_made_on():
    """cuDNN, which only GPUs have, computes what JAX's own attention computes."""
    shape = (2, 8, 8, 1)
    model = Earthformer(shape, shape, attn_implementation="cudnn")
    config = {"model": {"name": "earthformer", "attn_implementation": "cudnn"}}
    portable = exporting._portable(model, config)
    assert config["model"]["attn_implementation"] == "xla"
    assert portable == Earthformer(shape, shape, attn_implementation="xla")
    assert exporting._portable(portable, config) is portable


def test_numbers_of_low_precision(folder, make):
    """Kept as float32, and given to the model as they were."""
    model = make("unet")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.variables)
    options = {"precision.params": "bfloat16"}
    model = dataclasses.replace(make("unet", **options), variables=half)
    path = exporting.export(model, folder / "half.efx", program=False)
    found = ef.load(path).variables
    jax.tree.map(np.testing.assert_array_equal, found, half)


def test_what_a_file_says_about_itself(exported, make):
    with zipfile.ZipFile(exported) as file:
        about = json.loads(file.read("metadata.json"))
    assert about["version"] == archive.VERSION
    assert about["jax"] == jax.__version__
    assert about["inputs"] == {
        "shape": ["batch", 4, 16, 16, 2],
        "channels": ["P", "T"],
        "units": ["mm/day", "K"],
    }
    assert about["forecast"] == {
        "shape": ["batch", 2, 16, 16, 1],
        "channels": ["P"],
        "units": ["mm/day"],
    }
    assert about["minutes"]["shape"] == ["batch", 6]
    assert about["training_period"] == ["2001-01-01", "2002-09-22"]
    assert len(about["config_hash"]) == 64
    assert "card" not in about


def test_the_card_stays_with_the_model(make, tmp_path):
    first = make("unet").export(tmp_path / "a.efx", program=False, card="# Rain")
    second = ef.load(first).export(tmp_path / "b.efx", program=False)
    third = ef.load(second).export(tmp_path / "c.efx", program=False, card="")
    assert [ef.load(x).card for x in (first, second, third)] == ["# Rain"] * 2 + [""]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("days.nc", {}, r"days.nc: an exported model is a file that ends in \.efx"),
        ("lasting.efx", {}, "lasting.efx exists; choose another --output"),
        ("new.efx", {"state": None}, "holds no data.nc"),
    ],
)
def test_what_is_not_written(exported, folder, make, name, changes, message):
    before = exported.read_bytes()
    model = dataclasses.replace(make("unet"), **changes)
    with pytest.raises(ConfigError, match=message):
        exporting.export(model, folder / name, program=False)
    assert exported.read_bytes() == before
    assert not (folder / "new.efx").exists()


def test_what_cannot_be_loaded(exported, tmp_path):
    with pytest.raises(ConfigError, match="none.efx does not exist"):
        ef.load(tmp_path / "none.efx")
    found = archive.read(exported)
    changed = json.loads(json.dumps(found.config))
    changed["model"]["features"] = [3]
    other = tmp_path / "other.efx"
    archive.write(other, dataclasses.replace(found, config=changed))
    message = r"of another model:\n  batch_stats/.*/mean: \(4,\), expected \(3,\)\n"
    with pytest.raises(ConfigError, match=message) as error:
        ef.load(other)
    assert str(error.value).endswith("and 24 more")
