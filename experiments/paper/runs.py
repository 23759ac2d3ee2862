"""Trainings of rows: their configs, and results that are kept as JSON."""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from earthformer_jax import models
from earthformer_jax.run.api import load_config
from earthformer_jax.run.run import Run
from earthformer_jax.settings import flatten
from paper.costs import costs_of
from paper.table import Row

SCALES = ("test", "quick", "paper")
RESULT = "result.json"


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


def kept(folder: pathlib.Path, config: ml_collections.ConfigDict) -> dict | None:
    """The result of a training that is done; None: it is not.

    Raises:
        Mismatch: if it was made with another config.
    """
    file = folder / RESULT
    if not file.exists():
        return None
    result = json.loads(file.read_text())
    asked = _plain(config)
    differing = sorted(
        key
        for key in asked.keys() | result["config"].keys()
        if asked.get(key) != result["config"].get(key)
    )
    if differing:
        key = differing[0]
        raise Mismatch(
            f"{file} was made with {key}={result['config'].get(key)}, but "
            f"{key}={asked.get(key)} is asked for; choose another --out, or remove "
            "the folder"
        )
    return result


def trained(folder: pathlib.Path, config: ml_collections.ConfigDict) -> dict | None:
    """The result of a row, which is trained first if need be.

    Returns:
        config, sizes, costs and test scores; None if training was interrupted, which
        the same call resumes.
    """
    found = kept(folder, config)
    if found is not None:
        return found
    run = Run(config, folder)
    start = time.perf_counter()
    if not run.train():
        return None
    seconds = time.perf_counter() - start
    scores = run.evaluate()
    splits = run.dataset.data
    example = splits.example()
    costs = costs_of(
        models.create_model(
            input_shape=example["inputs"].shape,
            target_shape=example["targets"].shape,
            **config.model.to_dict(),
        )
    )
    result = dict(
        config=_plain(config),
        description=splits.description,
        inputs=example["inputs"].shape,
        targets=example["targets"].shape,
        train_examples=len(splits.train),
        test_examples=len(splits.test),
        parameters=costs.parameters,
        multiply_adds=costs.multiply_adds,
        seconds=round(seconds, 1),
        data=scores["data"],
        forecasts=scores["forecasts"],
    )
    (folder / RESULT).write_text(json.dumps(result, indent=1) + "\n")
    jax.clear_caches()
    return json.loads(json.dumps(result))


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """All fields of a config as JSON has them."""
    return json.loads(json.dumps(flatten(config), default=list))
