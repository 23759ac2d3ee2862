"""The front door: what `import earthformer_jax as ef` offers."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import earthformer_jax as ef
from earthformer_jax import data, models, reports
from earthformer_jax.training import loop
from tests.training import toy

NAMES = {
    "CheckpointError",
    "ConfigError",
    "TrainedModel",
    "create_model",
    "evaluate",
    "load",
    "load_config",
    "load_data",
    "model_names",
    "train",
}


class TestNames:
    def test_the_list_is_the_one_that_was_chosen(self):
        assert set(ef.__all__) == NAMES
        assert NAMES <= set(dir(ef))

    @pytest.mark.parametrize("name", sorted(NAMES))
    def test_each_is_there_and_explained(self, name):
        value = getattr(ef, name)
        assert value.__doc__ and value.__doc__.strip()
        assert value.__module__.startswith("earthformer_jax.")

    def test_type_checkers_see_the_same_names(self):
        source = pathlib.Path(ef.__file__).read_text()
        block = source.partition("if TYPE_CHECKING:\n")[2].partition("\n__version__")[0]
        seen = {
            name.split(" as ")[-1].strip()
            for line in block.splitlines()
            if line.strip()
            for name in line.partition(" import ")[2].split(",")
        }
        assert seen == NAMES
        assert pathlib.Path(ef.__file__).with_name("py.typed").exists()

    def test_unknown_names(self):
        with pytest.raises(AttributeError, match="no attribute 'lod'; did you mean lo"):
            _ = ef.lod
        with pytest.raises(AttributeError, match="no attribute 'forecast_everything'$"):
            _ = ef.forecast_everything

    def test_importing_it_imports_no_jax(self):
        program = (
            "import sys, earthformer_jax as ef; ef.__version__; dir(ef); "
            "print(*sorted({'jax', 'flax', 'numpy', 'absl'} & set(sys.modules)))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=pathlib.Path(ef.__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == []

    def test_models(self):
        assert "earthformer" in ef.model_names()
        model = ef.create_model("persistence", (2, 3, 4, 1), (3, 3, 4, 1))
        frames = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4, 1)
        np.testing.assert_array_equal(model.apply({}, frames)[0, 2], frames[0, 1])


class TestLoadConfig:
    @pytest.fixture(autouse=True)
    def empty_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        "name", ["enso:test", "enso.py:test", "configs/enso.py:test"]
    )
    def test_installed(self, name):
        config = ef.load_config(name)
        assert config.data.name == "enso" and config.train.steps == 6
        assert config.is_locked

    def test_the_default_variant(self):
        assert ef.load_config("enso").train.steps == 0

    def test_a_file_of_ones_own(self, tmp_path):
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub/mine.py").write_text(
            "from tests.training import toy\n"
            "def get_config():\n    return toy.config(seed=7)\n"
        )
        assert ef.load_config("sub/mine.py").seed == 7
        assert ef.load_config(str(tmp_path / "sub/mine.py")).seed == 7

    def test_the_current_folder_comes_first(self, tmp_path):
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs/enso.py").write_text(
            "from tests.training import toy\n"
            "def get_config(variant='x'):\n    return toy.config(seed=len(variant))\n"
        )
        for name in ("enso", "configs/enso.py"):
            assert ef.load_config(name).seed == 1
            assert ef.load_config(f"{name}:four").seed == 4

    def test_changes(self, tmp_path):
        changes = {"train.steps": 4, "train": {"log_every": 2}}
        config = ef.load_config(
            "enso:test", changes, seed=3, data={"path": tmp_path}, optim={"lr": 1}
        )
        assert (config.train.steps, config.train.log_every, config.seed) == (4, 2, 3)
        assert config.data.path == str(tmp_path)
        assert isinstance(config.optim.lr, float)

    @pytest.mark.parametrize("name", ["enso:test,unet", "enso:test"])
    def test_another_model_brings_its_options(self, name):
        config = ef.load_config(name, {"model.name": "unet"})
        assert config.model.name == "unet" and "norm_momentum" in config.model

    WRONG = {
        "no file": (
            ["ensoo"],
            "the config file ensoo does not exist; the installed ones are "
            "configs/climate.py, .*configs/enso.py, .*configs/sevir.py",
        ),
        "another folder": (["there/enso.py"], "there/enso.py does not exist"),
        "not Python": (["enso.json"], "enso.json does not exist"),
        "variant": (["enso:huge"], "the variant 'huge' is unknown; use one of paper"),
        "model": (["enso:test,gru"], "unknown model 'gru'"),
        "field": (
            ["enso:test", {"trian.steps": 4}],
            "enso:test has no field trian.steps; did you mean .train.steps",
        ),
        "nested": (
            ["enso:test", {"train": {"stepz": 4}}],
            "no field train.stepz; did you mean .train.steps",
        ),
        "type": (["enso:test", {"train.steps": "four"}], "train.steps='four'"),
        "no function": (["empty.py"], "empty.py has no function get_config"),
    }

    @pytest.mark.parametrize("case", WRONG)
    def test_wrong(self, tmp_path, case):
        (tmp_path / "empty.py").write_text("")
        arguments, message = self.WRONG[case]
        with pytest.raises(ef.ConfigError, match=message):
            ef.load_config(*arguments)


@pytest.fixture
def toy_parts(monkeypatch):
    """The package knows a toy's data, model and report."""

    def report(task, data, model, workdir, settings, about):
        return {"forecasts": {"model": {"mse": 0.5}}}

    monkeypatch.setattr(data, "load", lambda config, seed: toy.dataset())
    monkeypatch.setattr(models, "create_model", lambda *_, **__: toy.ToyModel())
    monkeypatch.setattr(reports, "report", report)
    monkeypatch.setattr(reports, "check", lambda task, model: None)


class TestWorkdirs:
    def test_training_that_was_interrupted_says_so(
        self, toy_parts, tmp_path, monkeypatch
    ):
        config = toy.config(train__micro_batch=8, train__steps=14)
        stop = loop.StopRequest
        with monkeypatch.context() as patch:
            patch.setattr(stop, "asked", lambda self, step: step == 5)
            trained = ef.train(config, tmp_path)
        assert (trained.step, trained.complete) == (5, False)
        trained = ef.train(config, tmp_path)
        assert trained.complete and ef.load(tmp_path).complete
        assert trained.step == ef.load(tmp_path).step in (7, 14)

    def test_the_best_checkpoint_is_read_and_scored(self, toy_parts, tmp_path):
        config = toy.config(train__micro_batch=8, train__steps=14)
        trained = ef.train(config, str(tmp_path / "run"))
        inputs = np.random.default_rng(0).normal(size=(2, *toy.SHAPE))
        want = trained.model.apply(trained.variables, inputs.astype(np.float32))
        np.testing.assert_allclose(trained(inputs), want, rtol=1e-5, atol=1e-6)
        again = ef.load(tmp_path / "run")
        np.testing.assert_array_equal(again(inputs), trained(inputs))
        assert ef.evaluate(tmp_path / "run") == {"forecasts": {"model": {"mse": 0.5}}}

    def test_missing_parts(self, toy_parts, tmp_path):
        for function in (ef.load, ef.evaluate):
            with pytest.raises(ef.ConfigError, match="absent does not exist"):
                function(tmp_path / "absent")
            with pytest.raises(ef.ConfigError, match="holds no config.json: nothing"):
                function(tmp_path)
        ef.train(toy.config(train__micro_batch=8, train__steps=5), tmp_path / "run")
        (tmp_path / "run/checkpoints").rename(tmp_path / "elsewhere")
        for function in (ef.load, ef.evaluate):
            with pytest.raises(ef.CheckpointError, match="no checkpoint: train first"):
                function(tmp_path / "run")


PROGRAM = """
import earthformer_jax as ef

config = ef.load_config("enso:test", {"train.steps": 3, "model.name": MODEL})
dataset = ef.load_data(config)
ef.train(config, "run")

trained = ef.load("run")
batch = trained.config.eval.batch_size
inputs = [dataset.data.test[i]["inputs"] for i in range(batch)]
forecast = trained(inputs)
print(forecast.shape, forecast.dtype, trained.step, trained.complete)
"""


@pytest.mark.parametrize(
    ("model", "step"),
    [("persistence", 0), pytest.param("unet", 3, marks=pytest.mark.slow)],
)
def test_a_notebook(tmp_path, monkeypatch, capsys, model, step):
    """From a config to a forecast with public names only."""
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAM, "notebook", "exec"), {"MODEL": model})
    printed = capsys.readouterr().out
    assert printed.endswith(f"(16, 14, 24, 48, 1) float32 {step} True\n")
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert (saved["train"]["steps"], saved["model"]["name"]) == (3, model)
