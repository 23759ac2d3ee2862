"""The command line: what it does with right and wrong input."""

import dataclasses
import functools
import json
import logging
import os
import subprocess
import sys
import textwrap
from unittest import mock

import jax
import pytest
from absl import flags
from absl.testing import flagsaver

from earthformer_jax import data, main, models, reports
from earthformer_jax.data.task import EmbedSeries, ForecastFrames
from earthformer_jax.profiling import summary
from earthformer_jax.training import loop
from tests.training import toy

CONFIG = """
    from tests.training import toy

    def get_config(variant=""):
        if variant not in ("", "short"):
            raise ValueError(f"variant {variant!r} is unknown; use 'short' or nothing")
        return toy.config(train__micro_batch=8, train__steps=6)
"""


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """A config file of the toy model; the package knows toy data, model and report."""

    def load(config, seed):
        if config.name != "toy":
            raise ValueError(f"config.data.name={config.name!r} is unknown")
        return toy.dataset()

    def create_model(name, *, input_shape, target_shape, **options):
        assert input_shape == target_shape == toy.SHAPE
        return toy.ToyModel(**options)

    def score(task, data, model, workdir, settings):
        examples = [data.test[i] for i in range(settings.batch_size)]
        inputs = jax.numpy.stack([example["inputs"] for example in examples])
        total = float(model.forecast({"inputs": inputs}).sum())
        (workdir / "scores.json").write_text(json.dumps(total))

    monkeypatch.setattr(data, "load", load)
    monkeypatch.setattr(models, "create_model", create_model)
    scored = functools.singledispatch(reports.score.dispatch(object))
    for kind, report in {**reports.score.registry, ForecastFrames: score}.items():
        scored.register(kind, report)
    monkeypatch.setattr(reports, "score", scored)
    # Without the page, which needs more than a number.
    monkeypatch.setattr(reports, "report", lambda *x, about: reports.score(*x))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "experiment.py"
    path.write_text(textwrap.dedent(CONFIG))
    yield path
    package_logger = logging.getLogger("earthformer_jax")
    package_logger.handlers.clear()
    package_logger.propagate = True


def call(*arguments):
    """Runs the command line in this process; returns the exit status."""
    argv = ["main", *map(str, arguments)]
    with flagsaver.flagsaver(), mock.patch.object(sys, "argv", argv):
        flags.FLAGS.unparse_flags()
        try:
            return main.main(main._parse_flags(argv))
        except SystemExit as exit:
            return exit.code
        finally:
            flags.FLAGS.mark_as_parsed()


class TestTrainAndEvaluate:
    @pytest.mark.parametrize("mode", ["train", "evaluate"])
    def test_models_without_parameters_are_scored_at_once(
        self, config_file, tmp_path, monkeypatch, mode
    ):
        monkeypatch.setattr(models, "create_model", lambda *a, **k: toy.StillModel())
        assert call(f"--config={config_file}", f"--workdir={tmp_path}/run") == 0
        assert call(f"--workdir={tmp_path}/run", f"--mode={mode}") == 0
        assert (tmp_path / "run" / "scores.json").exists()
        assert not (tmp_path / "run" / "checkpoints").exists()

    def test_a_plan_writes_nothing_but_its_file(
        self, config_file, tmp_path, monkeypatch, capsys
    ):
        plan = ("--mode=plan", f"--config={config_file}", f"--workdir={tmp_path}/w")
        assert call(*plan, f"--output={tmp_path}/plan.json") == 0
        assert "expected peak" in capsys.readouterr().out
        found = json.loads((tmp_path / "plan.json").read_text())
        assert found["fits"] and found["peak"] > 0
        assert call(*plan, "--plan_devices=8xH10") == 2
        error = capsys.readouterr().err
        assert "--plan_devices=8xH10: 'H10' is unknown; did you mean H100?" in error
        assert not (tmp_path / "w").exists()

    def test_traces_and_trackers_are_checked_first(
        self, config_file, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setitem(sys.modules, "wandb", None)
        train = (f"--config={config_file}", f"--workdir={tmp_path}/w")
        assert call(*train, "--profile=7") == 2
        assert call(*train, "--config.train.trackers=wandb") == 2
        assert call(*train, "--mode=evaluate", "--profile=1:2") == 2
        error = capsys.readouterr().err
        assert "--profile=7: expected the first and the last step" in error
        assert "the package 'wandb' is not installed" in error
        assert "--profile needs --mode=train" in error
        assert not (tmp_path / "w").exists()

    def test_writes_a_workdir(self, config_file, tmp_path, capsys):
        assert call(f"--config={config_file}", f"--workdir={tmp_path / 'w'}") == 0
        names = {path.name for path in (tmp_path / "w").iterdir()}
        assert {"config.json", "checkpoints", "metrics.jsonl", "scores.json"} <= names
        printed = capsys.readouterr().err
        assert "data: toy examples, 48 / 10 / 4" in printed
        assert "orbax" not in printed.lower()

    def test_a_model_that_cannot_do_the_task_is_not_trained(
        self, config_file, tmp_path, monkeypatch, capsys
    ):
        task = EmbedSeries(metric=toy.ToyMetric(), series=toy.ToySource(3))
        dataset = dataclasses.replace(toy.dataset(), task=task)
        monkeypatch.setattr(data, "load", lambda config, seed: dataset)
        assert call(f"--config={config_file}", f"--workdir={tmp_path}/run") == 2
        error = capsys.readouterr().err
        assert "error: model 'toy': ToyModel has no method 'embed'" in error
        assert not (tmp_path / "run").exists()

    def test_what_ends_a_training_is_one_line(
        self, config_file, tmp_path, monkeypatch, capsys
    ):
        class Stumbling(toy.ToySource):
            def __getitem__(self, index):
                if index >= 40:
                    raise OSError(5, "Input/output error", "/data/file.nc")
                return super().__getitem__(index)

        dataset = toy.dataset(train=Stumbling(48, seed=1))
        monkeypatch.setattr(data, "load", lambda *_: dataset)
        assert call(f"--config={config_file}", f"--workdir={tmp_path}/run") == 2
        (line,) = [x for x in capsys.readouterr().err.splitlines() if "error" in x]
        assert line.startswith("error: the data cannot be read: [Errno 5] Input/output")
        assert line.endswith("and the same command continues")

    def test_scores_that_cannot_be_written(
        self, config_file, tmp_path, monkeypatch, capsys
    ):
        def full(*_):
            raise OSError(28, "No space left on device", "scores.json")

        full.dispatch = reports.score.dispatch
        monkeypatch.setattr(models, "create_model", lambda *a, **k: toy.StillModel())
        monkeypatch.setattr(reports, "score", full)
        assert call(f"--config={config_file}", f"--workdir={tmp_path}/run") == 2
        assert "error: [Errno 28] No space left on device: 'scores" in (
            capsys.readouterr().err
        )

    def test_a_workdir_that_cannot_be_written_is_known_before_the_data_are_read(
        self, config_file, tmp_path, monkeypatch, capsys
    ):
        monkeypatch.setattr(data, "load", lambda *_: pytest.fail("read"))
        assert call(f"--config={config_file}", f"--workdir={config_file}/run") == 2
        assert "run cannot be written: Not a directory" in capsys.readouterr().err

    def test_the_home_folder(self, config_file, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr(models, "create_model", lambda *a, **k: toy.StillModel())
        assert call(f"--config={config_file}", "--workdir=~/run") == 0
        assert (tmp_path / "home" / "run" / "scores.json").exists()

    def test_again_only_scores(self, config_file, tmp_path):
        arguments = f"--config={config_file}", f"--workdir={tmp_path / 'w'}"
        assert call(*arguments) == 0
        metrics = (tmp_path / "w/metrics.jsonl").read_bytes()
        scores = (tmp_path / "w/scores.json").read_bytes()
        (tmp_path / "w/scores.json").unlink()
        for again in (
            arguments,
            (*arguments, "--mode=evaluate"),
            (f"--workdir={tmp_path / 'w'}", "--mode=evaluate"),
            (f"--workdir={tmp_path / 'w'}",),
        ):
            assert call(*again) == 0
            assert (tmp_path / "w/scores.json").read_bytes() == scores
        assert (tmp_path / "w/metrics.jsonl").read_bytes() == metrics

    def test_default_workdir_is_named_after_config_and_variant(
        self, config_file, tmp_path
    ):
        assert call(f"--config={config_file}:short", "--config.train.steps=7") == 0
        saved = json.loads((tmp_path / "runs/experiment-short/config.json").read_text())
        assert saved["train"]["steps"] == 7

    def test_asked_to_stop(self, config_file, monkeypatch):
        monkeypatch.setattr(loop, "train", lambda *_, **__: False)
        assert call(f"--config={config_file}") == 143


def test_fields_are_listed(config_file, tmp_path, capsys):
    arguments = f"--config={config_file}", "--mode=fields", "--config.optim.lr=0.25"
    assert call(*arguments) == 0
    printed = capsys.readouterr().out
    assert "--config.optim.lr=0.25  learning rate after the warm-up\n" in printed
    assert "--config.model.features=8\n" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.py"]


class TestSummary:
    def test_prints_layers_and_costs_and_writes_nothing(
        self, config_file, tmp_path, capsys
    ):
        assert call(f"--config={config_file}", "--mode=summary") == 0
        printed = capsys.readouterr().out
        assert printed.startswith("toy on toy: 3x4x4x1 to 3x4x4x1\n")
        assert "| first " in printed and "multiply-adds " in printed
        assert [path.name for path in tmp_path.iterdir()] == ["experiment.py"]

    def test_options_on_the_command_line(self, config_file, capsys):
        assert call(f"--config={config_file}", "--mode=summary") == 0
        more = "--config.model.features=16"
        assert call(f"--config={config_file}", "--mode=summary", more) == 0
        assert "1x8 " in (printed := capsys.readouterr().out) and "1x16 " in printed

    def test_of_a_workdir(self, config_file, tmp_path, capsys):
        workdir = f"--workdir={tmp_path / 'w'}"
        assert call(f"--config={config_file}", workdir) == 0
        before = sorted(tmp_path.rglob("*"))
        assert call(workdir, "--mode=summary") == 0
        assert "toy on toy" in capsys.readouterr().out
        assert sorted(tmp_path.rglob("*")) == before

    def test_of_all_models(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(summary, "zoo", lambda: "the zoo")
        assert call("--mode=summary", "--all") == 0
        assert capsys.readouterr().out == "the zoo\n"
        assert not any(tmp_path.iterdir())


WRONG = {
    "no config": ([], "--config is missing"),
    "no such file": (["--config=absent.py"], "file absent.py does not exist"),
    "no such file, written in two words": (
        ["--config", "absent.py"],
        "file absent.py does not exist",
    ),
    "unknown variant": (["--config={file}:huge"], "variant 'huge' is unknown"),
    "unknown field": (
        ["--config={file}", "--config.optim.lrr=1"],
        "config.optim.lrr is unknown; did you mean config.optim.lr?",
    ),
    "unknown section": (
        ["--config={file}", "--config.optimizer.lr=1"],
        "config.optimizer.lr is unknown; did you mean config.optim.lr?",
    ),
    "wrong type": (
        ["--config={file}", "--config.train.steps=1.5"],
        "--config.train.steps=1.5: expected a whole number",
    ),
    "not a number": (
        ["--config={file}", "--config.optim.lr=fast"],
        "expected a number",
    ),
    "impossible value": (
        ["--config={file}", "--config.optim.lr=-1"],
        "config.optim.lr=-1.0: expected a number greater than 0",
    ),
    "micro batch": (
        ["--config={file}", "--config.train.micro_batch=3"],
        "config.train.micro_batch=3 does not divide config.train.batch_size=8",
    ),
    "unknown monitor": (
        ["--config={file}", "--config.train.monitor=skill"],
        "config.train.monitor='skill' is not a score of 'toy'; expected one of mse",
    ),
    "unknown data": (
        ["--config={file}", "--config.data.name=moon"],
        "config.data.name='moon' is unknown",
    ),
    "impossible model": (
        ["--config={file}", "--config.model.features=-1"],
        "model 'toy': ",
    ),
    "unknown flag": (["--config={file}", "--wokdir=w"], "flag 'wokdir'"),
    "unknown mode": (["--config={file}", "--mode=test"], "--mode=test"),
    "summary of nothing": (["--mode=summary"], "--config is missing"),
    "summary of a wrong config": (
        ["--config={file}", "--mode=summary", "--config.optim.lr=-1"],
        "config.optim.lr=-1.0: expected a number greater than 0",
    ),
    "all without summary": (
        ["--config={file}", "--all"],
        "--all needs --mode=summary",
    ),
    "all and a config": (
        ["--config={file}", "--mode=summary", "--all"],
        "--all uses the sizes of the paper; leave out --config",
    ),
    "stray argument": (["--config={file}", "fast"], "unexpected arguments: fast"),
    "a part of a job without the job": (
        ["--config={file}", "--process_id=1"],
        "--process_id needs --distributed",
    ),
    "processes started here that are told of others": (
        ["--config={file}", "--launch=2", "--distributed"],
        "--launch starts all processes here; leave out --distributed",
    ),
    "a forecast by several processes": (
        ["--config={file}", "--mode=forecast", "--input=a.nc", "--launch=2"],
        "--mode=forecast uses one process; leave out --launch",
    ),
    "a job that nothing tells of": (
        ["--config={file}", "--distributed"],
        "--distributed: this process was not started by any of SLURM (srun)",
    ),
    "evaluate before training": (
        ["--config={file}", "--mode=evaluate"],
        "the workdir runs/experiment does not exist",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input(config_file, tmp_path, capsys, case):
    arguments, message = WRONG[case]
    before = sorted(tmp_path.rglob("*.json"))
    assert call(*(a.format(file=config_file) for a in arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert len(error) < 500
    assert not (tmp_path / "runs").exists()
    assert sorted(tmp_path.rglob("*.json")) == before


def test_wrong_workdirs(config_file, tmp_path, capsys):
    """A workdir of another config, of another model, and with damaged checkpoints."""
    workdir = tmp_path / "w"
    arguments = [f"--config={config_file}", f"--workdir={workdir}"]
    assert call(*arguments) == 0
    capsys.readouterr()

    assert call(*arguments, "--config.optim.lr=0.5") == 2
    error = capsys.readouterr().err
    assert "was started with another config:\n  optim.lr: 0.01, now 0.5" in error

    assert call(*arguments, "--mode=evaluate", "--config.model.features=9") == 2
    error = capsys.readouterr().err
    assert "holds another model:\n  model.features: 8, now 9" in error

    for path in (workdir / "checkpoints").rglob("d/*"):
        os.truncate(path, path.stat().st_size // 3)
    for more in ([], ["--mode=evaluate"]):
        assert call(*arguments, *more) == 2
        error = capsys.readouterr().err
        assert f"checkpoint {workdir}/checkpoints/00000006 is incomplete" in error
        assert "Traceback" not in error


@pytest.mark.slow
def test_as_a_program(tmp_path):
    """The exit status and the one line of a wrong input, through absl."""
    done = subprocess.run(
        [sys.executable, "-m", "earthformer_jax.main", "--config=absent.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the config file absent.py does not exist; ")
    assert len(done.stderr.splitlines()) == 1
