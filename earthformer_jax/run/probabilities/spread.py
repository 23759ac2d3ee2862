"""The spread of the members of a trained model, kept in its workdir.

Members of a trained model may be too much or too little alike. A factor on their
departures from their mean, for every lead and channel, makes up for that: the one with
the smallest fair CRPS on the validation split. The model has it as the constant
`batch_stats/spread`; training leaves it at 1, and so do its checkpoints.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import Batch
from earthformer_jax.metrics.ensembles import spread as spread_lib
from earthformer_jax.models.contract import Variables
from earthformer_jax.models.probabilistic import SPREAD, Probabilistic
from earthformer_jax.run.trained import TrainedModel
from earthformer_jax.settings import ConfigError
from earthformer_jax.training import evaluation
from earthformer_jax.training import mesh as mesh_lib

FILE = "spread.json"
FITTED = "fitted"  # value of config.eval.spread
LEAST_MEMBERS = 2

logger = logging.getLogger(__name__)


def has_spread(variables: Variables) -> bool:
    """Whether a model has a spread that can be fitted."""
    return SPREAD in variables.get("batch_stats", {})


def used(variables: Variables) -> list[list[float]] | None:
    """The factors `[k][c]` of a model as it is; None if it has none."""
    if not has_spread(variables):
        return None
    return np.asarray(variables["batch_stats"][SPREAD])[:, 0, 0].tolist()


def fit(
    members: Callable[[Batch], np.ndarray], data: Data, batch_size: int
) -> dict[str, Any]:
    """Finds the factors on the validation split.

    Args:
        members: batch -> `[m, b, k, h, w, c]` in model units, with a spread of 1.
        data: only its validation split is used.
        batch_size: examples per call.

    Returns:
        "factors" `[k][c]`; "crps", the mean in model units "as_trained" and "fitted";
        "validation_examples".
    """
    weights = np.asarray(data.loss_weights)
    terms = jax.jit(lambda fields, batch: spread_lib.terms(fields, batch, weights))
    total: dict[str, Any] = {}
    for batch in evaluation_batches(data.validation, batch_size):
        used = ("targets", "observed", "valid")
        truth = {k: batch[k] for k in used if k in batch}
        for name, x in jax.device_get(terms(members(batch), truth)).items():
            total[name] = total.get(name, 0.0) + np.asarray(x, np.float64)
    factors, crps = spread_lib.best(total)
    mean = [
        float(np.average(x[np.isfinite(x)], weights=total["weight"][np.isfinite(x)]))
        for x in crps
    ]
    return {
        "factors": factors.tolist(),
        "crps": dict(zip(("as_trained", "fitted"), mean, strict=True)),
        "validation_examples": len(data.validation),
    }


def fit_once(trained: TrainedModel, data: Data, workdir: pathlib.Path) -> None:
    """Fits the spread of a trained model and keeps it, unless that was done already.

    Args:
        trained: the model, with a spread of 1.
        data: that it was trained on.
        workdir: where the file is written.
    """
    options = trained.config.eval
    assert isinstance(trained.model, Probabilistic)
    size = trained.model.options.members
    key = {"step": trained.step, "checkpoint": options.checkpoint, "members": size}
    before = read(workdir)
    if before is not None and all(before.get(k) == v for k, v in key.items()):
        return
    if size < LEAST_MEMBERS:
        logger.info("config.model.members=%d: no spread can be fitted", size)
        return
    from earthformer_jax.reports.scoring import write_json  # slow, and rarely needed

    members = evaluation.make_forecaster(
        trained.model,
        jax.device_get(trained.variables),
        mesh_lib.data_mesh(jax.local_devices()),
        method="members",
        size=size,
    )
    found = {**key, **fit(members, data, options.batch_size)}
    write_json(workdir / FILE, found)
    by_lead, crps = np.asarray(found["factors"]).mean(axis=1), found["crps"]
    logger.info(
        "spread fitted on %d validation examples: departures from the mean times %.2f "
        "at the first lead, %.2f at the last; CRPS %.4g -> %.4g",
        found["validation_examples"],
        by_lead[0],
        by_lead[-1],
        crps["as_trained"],
        crps["fitted"],
    )


def apply(trained: TrainedModel, workdir: pathlib.Path) -> TrainedModel:
    """The model with the spread that was fitted, if `config.eval.spread` asks for it.

    Args:
        trained: as its checkpoint is.
        workdir: of the model.

    Raises:
        ConfigError: if the file does not fit the model.
    """
    variables = trained.variables
    if not has_spread(variables) or trained.config.eval.spread != FITTED:
        return trained
    found = read(workdir)
    if found is None or found.get("step") != trained.step:
        logger.info(
            "%s holds no spread fitted to step %d: members are as they were trained "
            "(the end of a training fits it to the checkpoint that "
            "config.eval.checkpoint names)",
            workdir,
            trained.step,
        )
        return trained
    made = _like(found["factors"], variables["batch_stats"][SPREAD], workdir)
    stats = {**variables["batch_stats"], SPREAD: made}
    return dataclasses.replace(trained, variables={**variables, "batch_stats": stats})


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
    """What was kept; None if there is nothing that can be read."""
    try:
        found = json.loads((workdir / FILE).read_text(encoding="utf-8"))
        np.asarray(found["factors"], np.float32)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def _like(factors: Any, before: jax.Array, workdir: pathlib.Path) -> jax.Array:
    """Factors `[k][c]` as the constant `[k, 1, 1, c]` of a model."""
    made = jnp.asarray(np.asarray(factors, np.float32)[:, None, None, :])
    if made.shape != jnp.shape(before):
        raise ConfigError(
            f"{workdir / FILE} has factors of the shape {list(np.shape(factors))}, and "
            f"the model a spread of {list(jnp.shape(before))}; delete the file, and "
            "let the training command fit the spread again"
        )
    return made
