"""The configs that come with the project can be run as they are."""

import pathlib
import runpy

import pytest

from earthformer_jax import models
from earthformer_jax.data.task import EmbedSeries
from earthformer_jax.models.earthformer.model import Earthformer
from earthformer_jax.run import config as config_lib
from earthformer_jax.run import config_files
from earthformer_jax.run.parts import build, check_model, example_shapes
from earthformer_jax.settings import ConfigError, flatten
from earthformer_jax.training.setup.dataset import check_dataset

FILES = sorted((pathlib.Path(__file__).parents[2] / "configs").glob("*.py"))
SPACES = {file: runpy.run_path(str(file)) for file in FILES}
VARIANTS = [(file, v) for file, space in SPACES.items() for v in space["VARIANTS"]]
# The targets of the first are its inputs; the second has the shapes of moving_mnist.
FORECASTS = [f for f in FILES if f.stem not in ("climate_embedding", "nbody_mnist")]
each_variant = pytest.mark.parametrize(
    ("file", "variant"), VARIANTS, ids=[f"{f.stem}-{v}" for f, v in VARIANTS]
)


def shallow(model):
    """The model with one block per level, as further ones keep the shapes of fields."""
    if not isinstance(model, Earthformer):
        return model
    depths = {x: (1,) * len(getattr(model, x)) for x in ("enc_depth", "dec_depth")}
    return model.clone(**depths)


@each_variant
def test_variant(file, variant):
    config = config_files.load(f"{file}:{variant}")
    settings = config_lib.check(config)
    dataset, model = build(config)
    check_dataset(settings, dataset)
    check_model(config, shallow(model), *example_shapes(config, dataset))
    simple = "climatology" if isinstance(dataset.task, EmbedSeries) else "persistence"
    assert simple in dataset.task.references
    channels = dataset.data.display.channels
    assert len(channels) == dataset.data.example()["targets"].shape[-1]


def repeated(config):
    """Fields of a config that have the value they would have without it."""
    fields = config_lib.defaults("", None)
    for section in config_lib.SECTIONS:
        name = config.get(section, {}).get("name")
        defaults = config_lib.defaults(section, name)
        fields |= {f"{section}.{field}": value for field, value in defaults.items()}
    names = ("data.name", "model.name")
    stated = {k: v for k, v in flatten(config).items() if k not in names}
    return [k for k, v in stated.items() if k in fields and fields[k] == v and v != {}]


@each_variant
def test_no_default_is_written_twice(file, variant):
    assert repeated(SPACES[file]["get_config"](variant)) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_variants_everyone_expects(file):
    space = SPACES[file]
    assert {"paper", "quick", "test"} <= set(space["VARIANTS"])
    assert space["get_config"]() == space["get_config"]("paper")
    with pytest.raises(ConfigError, match="the variant 'huge' is unknown; use one of"):
        config_files.load(f"{file}:huge")
    for variant in space["VARIANTS"]:
        assert f"\n    {variant} " in space["__doc__"]
    assert f"--config=configs/{file.name}" in space["__doc__"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in models.names() if n not in models.RESTORERS]
)
@pytest.mark.parametrize("file", FORECASTS, ids=lambda file: file.stem)
def test_every_model_on_every_data_set(file, name):
    """`--config=FILE:test,MODEL` gives a model of those data."""
    config = config_files.load(f"{file}:test,{name}")
    assert config.model.name == name
    dataset, model = build(config)
    check_model(config, model, *example_shapes(config, dataset))


def test_sizes_of_the_paper():
    config = config_files.load("enso:paper,unet")
    assert config.model.features == (32, 64, 128)
    config = config_files.load("sevir:paper,predrnn")
    assert config.model.downsampling == 8


def test_another_model_with_the_config_of_the_default_variant():
    assert config_files.load("enso:,unet") == config_files.load("enso:paper,unet")


def test_forecasters_embed_nothing():
    config = config_files.load("climate:test")
    config.data.out_len = 0
    with pytest.raises(ConfigError, match="no method 'embed'.*config.data.out_len=0"):
        build(config)


FULL = """
import ml_collections

def get_config():
    c = ml_collections.ConfigDict()
    c.seed = 3
    c.data = dict(name="custom", path="", variables="t2m,msl", in_len=4, out_len=2)
    c.model = dict(name="unet", features=(4, 8), center_features=8, norm_momentum=0.9)
    c.optim = dict(lr=1, weight_decay=0.0, warmup_fraction=0.1, warmup_min_ratio=0.0,
        min_lr_ratio=0.1, clip_norm=1.0, b1=0.9, b2=0.99, eps=1e-8, ema_decay=0.5)
    c.train = dict(batch_size=c.data.get_ref("in_len"), micro_batch=2, epochs=2.0)
    c.eval = dict(batch_size=8, checkpoint="last", clusters=4)
    return c.lock()
"""


def test_a_config_file_that_states_everything(tmp_path):
    """It keeps its values, and gets the fields that were added since."""
    path = tmp_path / "mine.py"
    path.write_text(FULL)
    config = config_files.load(str(path))
    given = flatten(runpy.run_path(str(path))["get_config"]())
    assert {name: flatten(config)[name] for name in given} == given
    assert config.data.calendar is False and config.train.log_every == 20
    config_lib.check(config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no function get_config"),
        ("def get_config():\n    return {}", "returns dict, not an .*ConfigDict"),
        ("def get_config():\n    pass", "returns NoneType, not an .*ConfigDict"),
        ("def get_config():\n    raise ValueError('no')", "line 2: ValueError: no"),
        ("def get_config():\n    raise RuntimeError", "line 2: RuntimeError$"),
        ("def get_config():\n    raise SystemExit(3)", "line 2: SystemExit: 3"),
        ("def get_config():\n    return {}['a']", "line 2: KeyError: 'a'"),
        ("def get_config(a, b):\n    pass", "missing 2 required positional"),
        ("def get_config(:", "mine.py, line 1: invalid syntax"),
        ("\n\nx = y", "mine.py, line 3: NameError: name 'y' is not defined"),
        ("import no_such_module", "line 1: ModuleNotFoundError: No module named"),
        ("a text → and more", "mine.py, line 1: invalid"),
        ("\0", "null bytes"),
    ],
)
def test_files_that_make_no_config(tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        config_files.load(str(tmp_path / "mine.py"))
    assert "\n" not in str(error.value)


def test_a_file_without_sections(tmp_path):
    text = "import ml_collections\nget_config = ml_collections.ConfigDict"
    (tmp_path / "mine.py").write_text(text)
    config = config_files.load(str(tmp_path / "mine.py"))
    with pytest.raises(ConfigError, match="config.data is missing"):
        config_lib.check(config)


def test_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="is a folder; the installed ones are"):
        config_files.load(str(tmp_path))
