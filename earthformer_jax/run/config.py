"""What a config may hold, checked before anything is computed or written.

A config has the fields `seed`, `data`, `model`, `optim`, `train` and `eval`. `data` and
`model` belong to their data set and model, which check their own options; the table
`FIELDS` describes all the others.
"""

import dataclasses
import difflib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections

from earthformer_jax.data.dataset import Dataset
from earthformer_jax.metrics.contract import scalar_scores


class ConfigError(ValueError):
    """A config that cannot be run; the message says which field and why."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One field: what it means, which values it takes, and the test for them."""

    meaning: str
    expected: str
    accepts: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _integer(meaning: str, at_least: int) -> Field:
    return Field(
        meaning,
        f"a whole number of at least {at_least}",
        lambda value: _is_integer(value) and value >= at_least,
    )


def _number(meaning: str, expected: str, test: Callable[[float], bool]) -> Field:
    return Field(
        meaning,
        f"a number {expected}",
        lambda value: _is_number(value) and test(value),
    )


def _not_negative(meaning: str) -> Field:
    return _number(meaning, "of at least 0", lambda value: value >= 0)


def _fraction(meaning: str) -> Field:
    return _number(meaning, "between 0 and 1", lambda value: 0 <= value <= 1)


def _decay(meaning: str) -> Field:
    return _number(
        meaning, "of at least 0 and smaller than 1", lambda value: 0 <= value < 1
    )


def _positive(meaning: str) -> Field:
    return _number(meaning, "greater than 0", lambda value: value > 0)


def _choice(meaning: str, *choices: str) -> Field:
    return Field(
        meaning, " or ".join(map(repr, choices)), lambda value: value in choices
    )


def _text(meaning: str) -> Field:
    return Field(
        meaning, "a name", lambda value: isinstance(value, str) and value != ""
    )


FIELDS: Mapping[str, Field] = {
    "seed": _integer("seed of initial parameters, dropout and data order", 0),
    "optim.lr": _positive("learning rate after the warm-up"),
    "optim.weight_decay": _not_negative("decoupled weight decay (AdamW)"),
    "optim.warmup_fraction": _fraction("share of the steps with a rising rate"),
    "optim.warmup_min_ratio": _fraction("rate of the first step, in units of lr"),
    "optim.min_lr_ratio": _fraction("rate at the end, in units of lr"),
    "optim.clip_norm": _not_negative("largest global gradient norm; 0: no clipping"),
    "optim.b1": _decay("memory of Adam's mean gradient"),
    "optim.b2": _decay("memory of Adam's mean squared gradient"),
    "optim.eps": _positive("added to the root of Adam's mean squared gradient"),
    "optim.ema_decay": _decay("memory of the averaged parameters; 0: none"),
    "train.batch_size": _integer("examples per optimiser step", 1),
    "train.micro_batch": _integer("examples per gradient; the gradients add up", 1),
    "train.epochs": _not_negative("passes through the training split"),
    "train.steps": _integer("optimiser steps; 0: from epochs", 0),
    "train.simulated_steps": _integer("first steps, on simulated examples only", 0),
    "train.simulated_fraction": _fraction("share of simulated examples afterwards"),
    "train.validate_every": _integer("steps between validations; 0: an epoch", 0),
    "train.early_stop_patience": _integer(
        "validations without improvement before training stops; 0: never", 0
    ),
    "train.monitor": _text("validation score that selects the best checkpoint"),
    "train.monitor_mode": _choice("is a small or a large score good?", "min", "max"),
    "train.log_every": _integer("steps between lines of the log", 1),
    "train.checkpoint_every": _integer(
        "steps between checkpoints; 0: at validations", 0
    ),
    "train.num_threads": _integer("threads that read examples; 0: none", 0),
    "train.num_workers": _integer("processes that read examples; 0: none", 0),
    "eval.batch_size": _integer("examples per forecast batch", 1),
    "eval.clusters": _integer("regimes that embeddings are sorted into", 2),
    "eval.checkpoint": _choice("which checkpoint is scored", "best", "last"),
}

SECTIONS = ("data", "model", "optim", "train", "eval")

# These may change when training continues in the same workdir: they alter what is
# written and when, not what is learned.
FREE_TO_CHANGE = frozenset(
    {
        "train.early_stop_patience",
        "train.log_every",
        "train.checkpoint_every",
        "train.num_threads",
        "train.num_workers",
        "eval.batch_size",
        "eval.checkpoint",
        "eval.clusters",
    }
)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim.lr": 1e-3, ...} from nested mappings."""
    fields = {}
    for key, value in tree.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            fields |= flatten(value, f"{prefix}{key}.")
        else:
            fields[f"{prefix}{key}"] = value
    return fields


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses a config with missing, unknown or impossible fields.

    Args:
        config: the whole config.

    Raises:
        ConfigError: naming every wrong field, its value and what is expected.
    """
    problems = _wrong_names(config)
    if not problems:
        fields = flatten(config)
        problems = [
            f"config.{name} = {fields[name]!r}; expected {field.expected} "
            f"({field.meaning})"
            for name, field in FIELDS.items()
            if not field.accepts(fields[name])
        ]
    if not problems:
        problems = _contradictions(config.train)
    _raise(problems)


def check_devices(config: ml_collections.ConfigDict, count: int) -> None:
    """Refuses batches that cannot be shared equally by the devices.

    Args:
        config: a config that passed `check`.
        count: number of devices of all processes.

    Raises:
        ConfigError: naming the batch and how to change it.
    """
    batches = {
        "train.micro_batch": config.train.micro_batch,
        "eval.batch_size": config.eval.batch_size,
    }
    _raise(
        f"config.{name} = {size} cannot be shared equally by {count} devices; use a "
        "multiple of their number, or fewer devices (CUDA_VISIBLE_DEVICES=0, or "
        "JAX_NUM_CPU_DEVICES=1 on a CPU)"
        for name, size in batches.items()
        if size % count
    )


def check_dataset(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Refuses a config that asks its data set for something it does not have.

    Args:
        config: a config that passed `check`.
        dataset: the data set.

    Raises:
        ConfigError: naming the field, or the split that is empty.
    """
    data, metric = dataset.data, dataset.task.metric
    problems = [
        f"the {split} split of {data.name!r} is empty: nothing to "
        f"{'train on' if split == 'train' else 'validate with'}"
        for split in ("train", "validation")
        if len(getattr(data, split)) == 0
    ]
    if data.simulated is None:
        problems += [
            f"config.train.{name} = {config.train[name]}, but {data.name!r} has no "
            "simulated examples; expected 0"
            for name in ("simulated_steps", "simulated_fraction")
            if config.train[name]
        ]
    scores = scalar_scores(metric)
    if config.train.monitor not in scores:
        problems.append(
            f"config.train.monitor = {config.train.monitor!r} is not a score of "
            f"{data.name!r}; expected one of {', '.join(scores)}"
        )
    _raise(problems)


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Says that a field is unknown, and which of the known ones may be meant."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean config.{nearest[0]}?" if nearest else ""
    return f"config.{name} is unknown{hint}"


def to_json(config: ml_collections.ConfigDict) -> str:
    """The config as indented JSON: references resolved, tuples as lists."""
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2) + "\n"


def read_json(path: str | os.PathLike) -> ml_collections.ConfigDict:
    """A locked config from a file that `to_json` wrote.

    Raises:
        ConfigError: if the file cannot be read.
    """
    try:
        fields = dict(json.loads(pathlib.Path(path).read_text()))
        return ml_collections.ConfigDict(fields).lock()
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read as a config: {error}") from error


def differences(
    saved: ml_collections.ConfigDict, config: ml_collections.ConfigDict
) -> list[str]:
    """Lines that say how two configs differ, e.g. "optim.lr: 0.001, now 0.0003".

    Args:
        saved: the config of a workdir.
        config: the config it is compared with.
    """
    before, now = (flatten(json.loads(to_json(c))) for c in (saved, config))
    return [
        f"{name}: {_shown(before, name)}, now {_shown(now, name)}"
        for name in dict.fromkeys([*before, *now])
        if _shown(before, name) != _shown(now, name)
    ]


def _shown(fields: Mapping[str, Any], name: str) -> str:
    return json.dumps(fields[name]) if name in fields else "absent"


def _raise(problems) -> None:
    problems = list(problems)
    if problems:
        raise ConfigError("\n".join(problems))


def _wrong_names(config: ml_collections.ConfigDict) -> list[str]:
    """Sections and fields that are missing or that nobody reads."""
    problems = [
        f"config.{section} is missing"
        for section in SECTIONS
        if not isinstance(config.get(section), ml_collections.ConfigDict)
    ]
    if problems:
        return problems
    present = {
        name for name in flatten(config) if name.split(".")[0] not in ("data", "model")
    }
    present |= {f"{s}.name" for s in ("data", "model") if "name" in config[s]}
    known = {*FIELDS, "data.name", "model.name"}
    for name in sorted(present - known):
        nearest = difflib.get_close_matches(name, known - present or known, n=1)
        hint = f"; did you mean config.{nearest[0]}?" if nearest else ""
        problems.append(f"config.{name} is unknown{hint}")
    return problems + [f"config.{name} is missing" for name in sorted(known - present)]


def _contradictions(train: ml_collections.ConfigDict) -> list[str]:
    """Fields that are possible one by one but not together."""
    problems = []
    if train.batch_size % train.micro_batch:
        problems.append(
            f"config.train.micro_batch = {train.micro_batch} does not divide "
            f"config.train.batch_size = {train.batch_size}"
        )
    if not train.steps and not train.epochs:
        problems.append(
            "config.train.epochs = 0 and config.train.steps = 0; expected one of them "
            "to be greater than 0"
        )
    if train.steps and train.simulated_steps > train.steps:
        problems.append(
            f"config.train.simulated_steps = {train.simulated_steps} exceeds "
            f"config.train.steps = {train.steps}"
        )
    return problems
