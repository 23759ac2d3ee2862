"""Trainings of rows: their configs, and results that are kept as JSON."""

import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections

from earthformer_jax import models
from earthformer_jax.models.contract import Forecaster
from earthformer_jax.reports import scoring
from earthformer_jax.run.api import load_config
from earthformer_jax.run.parts import MakeParts, example_shapes, load_data
from earthformer_jax.run.run import Run
from earthformer_jax.settings import flatten
from earthformer_jax.training.setup.monitor import default_monitor
from paper.costs import costs_of
from paper.table import Row

SCALES = ("test", "quick", "paper")
RESULT = "result.json"
Shape = tuple[int, ...]


class Mismatch(Exception):
    """A row was trained with another config than the one that is asked for."""


def config_of(
    row: Row,
    data: str,
    scale: str,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> ml_collections.ConfigDict:
    """The config of a training.

    Args:
        row: the model.
        data: the config file.
        scale: one of `SCALES`, a variant of the config file.
        seed: of the model and of the order of examples; the data are the same.
        changes: of the config, by field.
    """
    options = dict(row.options)
    if scale != "paper":
        options |= row.small
    if scale == "test":  # one block on each level
        for key in ("enc_depth", "dec_depth"):
            if key in options:
                options[key] = (1,) * len(options[key])
    fields = {f"model.{key}": value for key, value in options.items()}
    name = f"{data}:{scale}"
    if row.model != "earthformer":
        name += f",{row.model}"
    return load_config(name, {"seed": seed, **fields, **(changes or {})})


def folder_of(out: pathlib.Path, row: Row, data: str, scale: str, seed: int):
    """Where a training is kept; the same for every table that has the row."""
    return out / scale / data / row.key / f"seed-{seed}"


def kept(
    folder: pathlib.Path, config: ml_collections.ConfigDict, pattern: str = ""
) -> dict | None:
    """The result of a training that is done; None: it is not.

    Args:
        folder: of the training.
        config: that is asked for.
        pattern: that is asked for, if it has no name that a config could hold.

    Raises:
        Mismatch: if it was made with another config.
    """
    file = folder / RESULT
    if not file.exists():
        return None
    result = json.loads(file.read_text())
    asked, made = _plain(config, pattern), result.get("config", {})
    differing = (k for k in asked.keys() | made.keys() if asked.get(k) != made.get(k))
    for key in sorted(differing)[:1]:
        raise Mismatch(
            f"{file} was made with {key}={made.get(key)}, but {key}={asked.get(key)} "
            "is asked for; choose another --out, or remove the folder"
        )
    return result


def keep(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    result: Mapping[str, Any],
    pattern: str = "",
) -> dict:
    """Writes the result of a training for `kept`; returns what that will read.

    Args:
        folder: of the training.
        config: that it was made with.
        result: what JSON can hold; numbers that are not finite become null.
        pattern: as in `kept`.
    """
    scoring.write_json(folder / RESULT, {"config": _plain(config, pattern), **result})
    return json.loads((folder / RESULT).read_text())


def trained(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    pattern: str = "",
    make_model: Callable[[Shape, Shape], Forecaster] | None = None,
) -> dict | None:
    """The result of a row, which is trained first if need be.

    Args:
        folder: where the training is kept.
        config: of the training.
        pattern: in words, of a model that the config does not describe.
        make_model: such a model, from the shapes of inputs and targets.

    Returns:
        config, sizes, costs, best validation score and test scores; None if training
        was interrupted, which the same call resumes.
    """
    found = kept(folder, config, pattern)
    if found is not None:
        return found

    run = Run(config, folder, _parts(make_model) if make_model else None)
    start = time.perf_counter()
    if not run.train():
        return None
    seconds = time.perf_counter() - start
    scores = run.evaluate()
    splits = run.dataset.data
    example = splits.example()
    shapes = example["inputs"].shape, example["targets"].shape
    if make_model:
        model = make_model(*shapes)
    else:
        options = config.model.to_dict()
        model = models.create_model(options.pop("name"), *shapes, **options)
    costs = costs_of(model)
    result = dict(
        description=splits.description,
        inputs=example["inputs"].shape,
        targets=example["targets"].shape,
        train_examples=len(splits.train),
        test_examples=len(splits.test),
        parameters=costs.parameters,
        multiply_adds=costs.multiply_adds,
        seconds=round(seconds, 1),
        validation=validation_of(folder, config),
        data=scores["data"],
        forecasts=scores["forecasts"],
    )
    jax.clear_caches()
    return keep(folder, config, result, pattern)


def validation_of(folder: pathlib.Path, config: ml_collections.ConfigDict) -> float:
    """The best validation score of a training, that of its best checkpoint."""
    name = f"validation/{config.train.monitor or default_monitor()}"
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [x[name] for x in map(json.loads, lines) if name in x]
    return min(found) if config.train.monitor_mode == "min" else max(found)


def _parts(make_model: Callable[[Shape, Shape], Forecaster]) -> MakeParts:
    def make(config: ml_collections.ConfigDict):
        dataset = load_data(config)
        return dataset, make_model(*example_shapes(config, dataset))

    return make


def _plain(config: ml_collections.ConfigDict, pattern: str) -> dict[str, Any]:
    """All fields of a config as JSON has them."""
    fields = flatten(config) | ({"model.enc_pattern": pattern} if pattern else {})
    return json.loads(json.dumps(fields, default=list))
