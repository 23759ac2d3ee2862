"""Trackers, with modules that stand in for the packages."""

import json
import sys
import types

import pytest

from earthformer_jax.settings import ConfigError
from earthformer_jax.training.monitoring import trackers
from earthformer_jax.training.records import Records

CONFIG = {"seed": 0, "optim": {"lr": 0.1}, "data": {f"f{i}": i for i in range(150)}}


class StandIn:
    """Notes what the packages are told; fails on request."""

    def __init__(self):
        self.calls, self.fails = [], False

    def __getattr__(self, name):
        def call(*args, **kwargs):
            if self.fails:
                raise OSError("no network\nat all")
            self.calls.append((name, args, kwargs))
            info = types.SimpleNamespace(run_id="run-of-mlflow")
            return types.SimpleNamespace(log=self.log, finish=self.finish, info=info)

        return call

    def named(self, name):
        return [(args, kwargs) for called, args, kwargs in self.calls if called == name]


@pytest.fixture
def packages(monkeypatch):
    found = {name: StandIn() for name in ("wandb", "mlflow")}
    for name, module in found.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


def test_wandb(packages, tmp_path):
    opened = trackers.Trackers("wandb", tmp_path, CONFIG, 0)
    opened.log(3, {"train/loss": 0.5})
    opened.close()
    wandb = packages["wandb"]
    ((_, options),) = wandb.named("init")
    assert options["name"] == tmp_path.name and options["config"] == CONFIG
    assert options["project"] == "earthformer_jax"
    assert wandb.named("log") == [(({"train/loss": 0.5},), {"step": 3})]
    assert wandb.named("finish") == [((), {"exit_code": 0})]
    kept = json.loads((tmp_path / trackers.FILE).read_text())
    assert kept == {"wandb": options["id"]}
    trackers.Trackers("wandb", tmp_path, CONFIG, 3)
    assert wandb.named("init")[1][1]["id"] == options["id"]  # the same run
    trackers.Trackers("wandb", tmp_path, CONFIG, 0)
    assert wandb.named("init")[2][1]["id"] != options["id"]  # a training begun anew


def test_mlflow(packages, tmp_path):
    opened = trackers.Trackers("mlflow", tmp_path, CONFIG, 0)
    opened.log(3, {"train/loss": 0.5})
    opened.close(failed=True)
    mlflow = packages["mlflow"]
    assert mlflow.named("start_run") == [((), {"run_name": tmp_path.name})]
    told = [args[0] for args, _ in mlflow.named("log_params")]
    assert [len(part) for part in told] == [100, 52]
    assert told[0]["optim.lr"] == 0.1
    assert mlflow.named("log_metrics") == [(({"train/loss": 0.5},), {"step": 3})]
    assert mlflow.named("end_run") == [(("FAILED",), {})]
    trackers.Trackers("mlflow", tmp_path, CONFIG, 3)
    assert mlflow.named("start_run")[1] == ((), {"run_id": "run-of-mlflow"})
    assert len(mlflow.named("log_params")) == 2  # not again


def test_a_tracker_that_fails_does_not_end_the_training(packages, tmp_path, caplog):
    opened = trackers.Trackers("wandb,mlflow", tmp_path, CONFIG, 0)
    packages["mlflow"].fails = True
    for step in (1, 2):
        opened.log(step, {"train/loss": 0.5})
    opened.close()
    assert len(packages["wandb"].named("log")) == 2
    assert caplog.text.count("mlflow failed") == 1
    assert "OSError: no network)" in caplog.text


def test_the_record_tells_them(packages, tmp_path):
    opened = trackers.Trackers("wandb", tmp_path, CONFIG, 0)
    with pytest.raises(KeyError), Records(tmp_path, 0, trackers=opened) as records:
        records.write(1, "validation", {"mse": 1, "by_lead": [1.0, 2.0]})
        records.write(1, "speed", {"steps_per_s": 4.0})
        raise KeyError
    wandb = packages["wandb"]
    assert [args[0] for args, _ in wandb.named("log")] == [
        {"validation/mse": 1.0},
        {"speed/steps_per_s": 4.0},
    ]
    assert wandb.named("finish") == [((), {"exit_code": 1})]


def test_a_missing_package(monkeypatch, packages):
    trackers.check("")
    trackers.check("wandb,mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", None)  # import raises ImportError
    with pytest.raises(ConfigError) as error:
        trackers.check("wandb,mlflow")
    assert str(error.value) == (
        "config.train.trackers=wandb,mlflow: the package 'mlflow' is not installed; "
        "install it with: pip install 'earthformer-jax[mlflow]'"
    )


@pytest.mark.parametrize(
    "text, accepted",
    [
        ("", True),
        ("wandb", True),
        ("mlflow,wandb", True),
        ("wandb,", False),
        (3, False),
    ],
)
def test_names(text, accepted):
    assert trackers.NAMES.test(text) is accepted
