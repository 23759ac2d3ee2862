"""What the documentation shows works."""

import ast
import functools
import importlib
import importlib.util
import pathlib
import re
import shlex
import sys
import types

import jax
import numpy as np
import pytest
from absl import flags

from earthformer_jax import data, main, models, reports
from earthformer_jax.run import command_line, config_files
from earthformer_jax.run import config as config_lib
from earthformer_jax.run.api import load_config
from earthformer_jax.run.parts import build, check_model, example_shapes
from earthformer_jax.settings import ConfigError, flatten
from earthformer_jax.training.setup.dataset import check_dataset
from tests import test_imports

ROOT = pathlib.Path(__file__).parents[1]
FILES = [
    "README.md",
    "CONTRIBUTING.md",
    "datasets/README.md",
    "experiments/README.md",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/**/*.md")),
]
EXAMPLES = ("configs/NAME.py", "configs/drift.py", "configs/enso.py:test,trend")
FLAGS_OF_MAIN = [
    flag.name for flag in flags.FLAGS.flags_by_module_dict()[main.__name__]
]


def blocks(file, language="python"):
    """The blocks of a language in a document."""
    text = (ROOT / file).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(file, space, **replacements):
    """Runs the Python blocks of a document one after the other."""
    for code in blocks(file):
        for old, new in replacements.items():
            code = code.replace(old, new)
        exec(compile(code, file, "exec"), space)
    return space


def commands(file):
    """Arguments of every command in a document, and of every config it names."""
    lines = "".join(blocks(file, "bash")).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines]
    text = (ROOT / file).read_text()
    inline = re.findall(r"`[^`\n]*?(--config=[^`\n]*)`", text)
    mentioned = re.findall(r"`(configs/\w+\.py(?::[\w,]+)?)`", text)
    found += [*map(shlex.split, inline), *([f"--config={x}"] for x in mentioned)]
    for words in found:
        arguments = [word for word in words if word.startswith("--")]
        names = [a.partition("=")[2] for a in arguments if a.startswith("--config=")]
        if names and names[0].startswith("configs/") and names[0] not in EXAMPLES:
            yield arguments


COMMANDS = sorted({(f, *arguments) for f in FILES for arguments in commands(f)})


def parse(arguments):
    """The config of a command, as the command itself reads it."""
    arguments = ["main", *(a for a in arguments if a.startswith("--config"))]
    flag_values = flags.FlagValues()
    command_line.define_config(flag_values, arguments)
    command_line.parse_flags(arguments, flag_values)
    return flag_values.config


@functools.cache
def known_fields():
    """Every field of a config, of every data set and model."""
    known = {f"model.{o}" for name in models.names() for o in models.fields(name)}
    for file in config_files.names():
        known |= set(flatten(load_config(file)))
    return known


class TestCommands:
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_configs_and_fields_exist(self, command, monkeypatch):
        monkeypatch.chdir(ROOT)
        config_lib.check(parse(command[1:]))

    def test_there_are_many(self):
        assert len(COMMANDS) > 30
        assert {f for f, *_ in COMMANDS} >= {"README.md", "docs/own_data.md"}

    def test_what_does_not_exist_is_noticed(self, monkeypatch):
        monkeypatch.chdir(ROOT)
        for wrong in ("enso.py:quik", "enzo.py", "enso.py:quick,unett"):
            with pytest.raises(ConfigError):
                parse([f"--config=configs/{wrong}"])
        with pytest.raises(ConfigError, match="lrr"):
            parse(["--config=configs/enso.py", "--config.optim.lrr=1"])

    @pytest.mark.parametrize("file", FILES)
    def test_flags_exist(self, file):
        for line in "".join(blocks(file, "bash")).replace("\\\n", " ").splitlines():
            if "earthformer_jax.main" in line:
                used = re.findall(
                    r"\s--(\w+)", line.partition("earthformer_jax.main")[2]
                )
                assert set(used) <= set(FLAGS_OF_MAIN), line

    @pytest.mark.parametrize("file", sorted({*FILES} - {"docs/errors.md"}))
    def test_fields_in_the_text_exist(self, file):
        text = (ROOT / file).read_text()
        used = set(re.findall(r"`(?:--)?config\.((?:\w+\.)+\w+)", text))
        assert used - {"model.slope"} <= known_fields()  # slope: the example's


class TestCode:
    @pytest.mark.parametrize("file", FILES)
    def test_names_exist(self, file):
        """Every name that a block imports from the package, or takes from a module."""
        for code in blocks(file):
            if code.startswith(" "):
                continue  # a line of a table
            modules = {}
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Import):
                    for alias in node.names:
                        if alias.name.startswith("earthformer_jax"):
                            modules[alias.asname] = importlib.import_module(alias.name)
                elif isinstance(node, ast.ImportFrom):
                    if (node.module or "").startswith("earthformer_jax"):
                        for alias in node.names:
                            there = _imported(node.module, alias.name)
                            modules[alias.asname or alias.name] = there
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    module = modules.get(node.value.id)
                    if isinstance(module, types.ModuleType):
                        assert hasattr(module, node.attr), f"{module}: {node.attr}"

    @pytest.mark.slow
    def test_recipes(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        space = run("docs/recipes.md", Namespace(tmp_path))
        assert space["x"].shape == (2, 10, 16, 16, 32)
        assert np.isfinite(space["loss"])
        assert space["change"].shape == (2, 5, 16, 16, 1)
        assert len(space["forecast"].devices()) == jax.device_count()
        assert space["vectors"].shape == (2, 4, 8)

    @pytest.mark.slow
    def test_recurrent_layers(self):
        space = {}
        exec(blocks("docs/recurrent.md")[0], space)
        assert space["y"].shape == space["h"].shape == (2, 32, 32, 64)

    @pytest.mark.slow
    def test_first_forecast(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        small = {"enso:quick": "climate:test,persistence"}
        space = run("docs/first_forecast.md", {}, **small)
        assert space["forecast"].shape == (1, *space["trained"].target_shape)
        assert {"model", "climatology"} <= set(space["scores"]["forecasts"])


class Namespace(dict):
    """Names of blocks; writes the file of weights when its model is known."""

    def __init__(self, folder):
        super().__init__()
        self._file = folder / "earthformer.npz"

    def __setitem__(self, name, value):
        super().__setitem__(name, value)
        if name == "official_model":
            inputs = np.ones((1, *value.input_shape), np.float32)
            like = jax.eval_shape(value.init, jax.random.key(1), inputs)
            variables = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), like)
            state_dict = self["official"].state_dict_from_params(variables, value)
            np.savez(self._file, **state_dict)


def _imported(module, name):
    """What `from module import name` gives; raises ImportError if there is none."""
    module = importlib.import_module(module)
    if hasattr(module, name):
        return getattr(module, name)
    return importlib.import_module(f"{module.__name__}.{name}")


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The files that CONTRIBUTING.md adds, where it says."""
    trend, line_of_model, _, drift, line_of_data, config, _, bias = blocks(
        "CONTRIBUTING.md"
    )
    for folder, name, code in (
        ("models", "trend", trend),
        ("data", "drift", drift),
        ("metrics", "bias", bias),
    ):
        package = importlib.import_module(f"earthformer_jax.{folder}")
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(code)
        monkeypatch.setattr(
            package, "__path__", [*package.__path__, str(tmp_path / folder)]
        )
    (tmp_path / "drift.py").write_text(config)
    line = eval("{" + line_of_model + "}", {"__name__": models.__name__})
    monkeypatch.setitem(models._MODELS, "trend", line["trend"])
    monkeypatch.setitem(data.MODULES, "drift", eval("{" + line_of_data + "}")["drift"])
    yield tmp_path
    for name in ("models.trend", "data.drift", "metrics.bias"):
        sys.modules.pop(f"earthformer_jax.{name}", None)


def run_test_file(docstring):
    """Runs the tests of the file in CONTRIBUTING.md that begins with a docstring."""
    (code,) = (x for x in blocks("CONTRIBUTING.md") if x.startswith(docstring))
    space = {}
    exec(compile(code, "CONTRIBUTING.md", "exec"), space)
    tests = [f for name, f in space.items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


class TestAddingAModel:
    def test_its_test_passes(self, added):
        run_test_file('"""The trend."""')

    def test_configs_know_it_and_its_options(self, added):
        config = load_config("climate:test,trend")
        assert config.model.slope == 0.5
        dataset, model = build(config)
        check_model(config, model, *example_shapes(config, dataset))

    def test_wrong_options_are_refused(self, added):
        with pytest.raises(ValueError, match="did you mean slope"):
            models.create_model("trend", (2, 3, 4, 1), (3, 3, 4, 1), slop=1.0)


class TestAddingADataSet:
    def test_its_config_trains(self, added):
        config = load_config(str(added / "drift.py"))
        settings = config_lib.check(config)
        dataset, model = build(config)
        check_dataset(settings, dataset)
        check_model(config, model, *example_shapes(config, dataset))

    def test_its_test_passes(self, added):
        run_test_file('"""Drifting spots."""')

    def test_its_forecasts_are_reported(self, added, tmp_path):
        dataset = data.load({"name": "drift", "test": 2}, seed=0)
        model = reports.ModelFunctions(dataset.task.references["persistence"])
        scores = reports.score(
            dataset.task, dataset.data, model, tmp_path, reports.Settings(2, 2)
        )
        assert len(scores["forecasts"]["model"]["mse_by_lead"]) == 2
        assert (tmp_path / "figures" / "skill.png").exists()

    def test_spots_drift_east(self, added):
        example = data.load({"name": "drift"}, seed=0).data.train[0]
        frames = np.concatenate([example["inputs"], example["targets"]])[..., 0]
        columns = np.exp(2j * np.pi * np.arange(16) / 16)
        east = np.angle((frames.sum(1) * columns).sum(-1))
        assert np.all(np.diff(np.unwrap(east)) > 0)

    def test_wrong_settings_are_refused(self, added):
        with pytest.raises(ValueError, match="did you mean .*size"):
            data.load({"name": "drift", "sise": 3}, seed=0)


class TestAddingAMetric:
    def test_batches_add_up_without_padding(self, added):
        metric = importlib.import_module("earthformer_jax.metrics.bias").Bias()
        x, y = np.random.default_rng(0).normal(size=(2, 4, 2, 3, 3, 1)).astype("f")
        observed = np.ones(x.shape, bool)
        observed[1, 0] = False
        y[1, 0] = 1e6
        whole = dict(targets=y, observed=observed, valid=np.array([1, 1, 1, 0], bool))
        scores = metric.compute(metric.update(metric.init(), x, whole))
        error = (x - y)[:3][observed[:3]]
        np.testing.assert_allclose(scores["bias"], error.mean(), rtol=1e-4)
        np.testing.assert_allclose(scores["mse"], (error**2).mean(), rtol=1e-5)
        halves = [
            metric.update(
                metric.init(), x[half], {k: v[half] for k, v in whole.items()}
            )
            for half in (slice(0, 2), slice(2, 4))
        ]
        merged = metric.compute(metric.merge(*halves))
        np.testing.assert_allclose(merged["bias"], scores["bias"], rtol=1e-5)

    def test_nothing_to_score(self, added):
        metric = importlib.import_module("earthformer_jax.metrics.bias").Bias()
        assert np.isnan(metric.compute(metric.init())["bias"])


def test_modules_are_where_the_changelog_says():
    text = (ROOT / "CHANGELOG.md").read_text()
    moved = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(moved) > 50
    for old, new in moved:
        assert importlib.util.find_spec(f"earthformer_jax.{new}"), new
        parent, _, name = old.rpartition(".")
        parent = f"earthformer_jax.{parent}".rstrip(".")
        if old not in {now for _, now in moved} and importlib.util.find_spec(parent):
            spec = importlib.util.find_spec(f"{parent}.{name}")
            assert spec is None or spec.submodule_search_locations, old


def test_floors_are_those_of_the_table_of_imports():
    (drawn,) = blocks("docs/architecture.md", "text")
    floors = [set(line.split()[1:]) for line in drawn.splitlines()]
    entry_points = {"__main__"}
    want = [
        {*rooms} - entry_points for rooms in test_imports.floors(test_imports.ROOMS)
    ]
    assert floors[::-1] == want


def _phrases(text, length=3):
    """Sequences of plain words in a text; names, numbers and marks part them."""
    plain = [w if w.isalpha() and w.islower() else "|" for w in text.split()]
    spans = [plain[i : i + length] for i in range(len(plain) - length + 1)]
    return {" ".join(span) for span in spans if "|" not in span}


def test_messages_are_those_of_the_package():
    strings = [
        node.value
        for file in ROOT.glob("earthformer_jax/**/*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    said = " ".join(" ".join(text.split()) for text in strings)
    messages = re.findall(r"`([^`]+)`", (ROOT / "docs/errors.md").read_text())
    with_words = [m for m in messages if len(_phrases(m)) > 1]
    assert len(with_words) > 50
    for message in with_words:
        phrases = _phrases(message)
        known = [phrase for phrase in phrases if phrase in said]
        assert 2 * len(known) >= len(phrases), message
