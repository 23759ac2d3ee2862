"""What was evaluated, and how to do it again."""

import dataclasses
import json
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

PACKAGES = ("earthformer-jax", "jax", "jaxlib", "flax", "optax", "numpy")
PROGRAM = "python -m earthformer_jax.main"


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """A trained model, and the run that evaluates it.

    Attributes:
        model: its name for readers, "unet + lim".
        parameters: how many numbers it has learned.
        config: the whole config of the evaluation, of plain values.
        changed: fields of it, "data.path", that differ from those of the training.
        workdir: of the training.
        step: optimiser steps after which the checkpoint was saved; 0: none was needed.
        complete: whether the training ended as planned.
        device: what made the forecasts, "cpu".
    """

    model: str
    parameters: int
    config: Mapping[str, Any]
    changed: Sequence[str]
    workdir: str
    step: int
    complete: bool
    device: str

    def attributes(self, data: str) -> dict[str, str]:
        """Global attributes of a file of test forecasts, after CF."""
        made = [f"{name} {number}" for name, number in versions().items()]
        after = f" after {self.step} training steps" if self.step else ""
        return {
            "title": f"Forecasts of test examples of {data}, and what was observed",
            "source": f"{self.model}{after}",
            "comment": f"made with {', '.join(made)}",
        }


def commands(about: About) -> dict[str, str]:
    """Shell commands that repeat the training and the evaluation, by what they do."""
    folder = about.workdir.rstrip("/") or "/"
    training = f"--config={folder}/config.json"
    fields = [f"--config.{x}={_text(_field(about.config, x))}" for x in about.changed]
    evaluation = [f"--workdir={folder}", "--mode=evaluate", *fields]
    again = [training, f"--workdir={folder}-again"]
    return {
        "Evaluate again": f"{PROGRAM} {shlex.join(evaluation)}",
        "Train again": f"{PROGRAM} {shlex.join(again)}",
    }


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on, and of Python."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a copy that is not installed
            found[name] = "unknown"
    return found | {"Python": platform.python_version(), "system": platform.platform()}


def config_text(about: About) -> str:
    """The config as indented JSON."""
    return json.dumps(about.config, indent=2, ensure_ascii=False, default=str)


def _field(config: Mapping[str, Any], name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value.get(part, "")
    return value


def _text(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, list | tuple):
        return repr(tuple(value))
    return str(value)
