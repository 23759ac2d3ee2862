"""Trackers: services that show the records of many trainings side by side.

Weights & Biases and MLflow are packages of their own, installed with the extras `wandb`
and `mlflow`. Each is set up as its own documentation says, by environment variables
(WANDB_PROJECT, WANDB_MODE, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME). A continued
training goes on in the same run of a tracker, whose name WORKDIR/trackers.json keeps.
"""

import importlib
import json
import logging
import os
import pathlib
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from earthformer_jax.settings import Accepted, ConfigError, flatten

FILE = "trackers.json"
MOST_PARAMETERS = 100  # that MLflow takes at a time

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where scores are told to besides the files of the workdir."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tells scores of a step."""

    def close(self, failed: bool) -> None:
        """Ends the run; `failed` if an error does."""


class WandbTracker:
    """A run of Weights & Biases."""

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], run: str):
        """Begins a run, or continues the one that is named."""
        wandb = importlib.import_module("wandb")
        self.run = run or uuid.uuid4().hex[:16]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "earthformer_jax"),
            name=workdir.name,
            id=self.run,
            resume="allow",
            dir=str(workdir),
            config=dict(config),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tells scores of a step."""
        self._run.log(dict(values), step=step)

    def close(self, failed: bool) -> None:
        """Ends the run."""
        self._run.finish(exit_code=int(failed))


class MlflowTracker:
    """A run of MLflow."""

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any], run: str):
        """Begins a run, or continues the one that is named."""
        self._mlflow: Any = importlib.import_module("mlflow")
        if run:
            self.run = run
            self._mlflow.start_run(run_id=run)
            return
        self.run = self._mlflow.start_run(run_name=workdir.name).info.run_id
        fields = list(flatten(config).items())
        for first in range(0, len(fields), MOST_PARAMETERS):
            self._mlflow.log_params(dict(fields[first : first + MOST_PARAMETERS]))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tells scores of a step."""
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self, failed: bool) -> None:
        """Ends the run."""
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


_TRACKERS = {"wandb": WandbTracker, "mlflow": MlflowTracker}
NAMES = Accepted(
    f"names among {' and '.join(map(repr, _TRACKERS))}, separated by commas, or an "
    "empty text",
    lambda value: isinstance(value, str) and set(_names(value)) <= {*_TRACKERS},
)


def _names(text: str) -> list[str]:
    return text.split(",") if text else []


def check(text: str) -> None:
    """Refuses trackers whose packages are missing.

    Args:
        text: names of trackers, separated by commas.

    Raises:
        ConfigError: naming the first one and how to install it.
    """
    for name in _names(text):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"config.train.trackers={text}: the package {name!r} is not installed; "
                f"install it with: pip install 'earthformer-jax[{name}]'"
            ) from error


class Trackers:
    """All trackers of a training. One that fails is left alone from then on."""

    def __init__(
        self, text: str, workdir: pathlib.Path, config: Mapping[str, Any], step: int
    ):
        """Begins runs, or continues those of the workdir.

        Args:
            text: names of trackers, separated by commas.
            workdir: of the training, which exists if there are any.
            config: plain values of the config.
            step: the last one that was taken before; 0: runs begin anew.
        """
        path, kept = workdir / FILE, {}
        if step and path.exists():
            kept = json.loads(path.read_text())
        self._open: dict[str, Tracker] = {}
        for name in _names(text):
            try:
                tracker = _TRACKERS[name](workdir, config, kept.get(name, ""))
            except Exception as error:
                _warn(name, error)
                continue
            self._open[name], kept[name] = tracker, tracker.run
        if kept:
            path.write_text(json.dumps(kept) + "\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tells all of them the scores of a step."""
        for name, tracker in list(self._open.items()):
            try:
                tracker.log(step, values)
            except Exception as error:
                _warn(name, error)
                del self._open[name]

    def close(self, failed: bool = False) -> None:
        """Ends the runs; `failed` if an error ends the training."""
        for name, tracker in list(self._open.items()):
            try:
                tracker.close(failed)
            except Exception as error:
                _warn(name, error)
        self._open.clear()


def _warn(name: str, error: Exception) -> None:
    first = (str(error).splitlines() or [""])[0]
    logger.warning(
        "config.train.trackers: %s failed, and is told nothing more; training goes on "
        "(%s: %s)",
        name,
        type(error).__name__,
        first,
    )
