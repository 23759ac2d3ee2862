"""The spread of the members of a trained model, kept in its workdir.

Members of a trained model may be too much or too little alike. Factors on their
departures from their mean, for every lead and channel or for every cell of those, make
up for that; they are fitted on the validation split (`metrics.ensembles.spread`). The
model has them as the constant `batch_stats/spread`; training leaves it at 1, and so do
its checkpoints.
"""

import dataclasses
import functools
import json
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.source import Batch, Selected, Source
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
PARTS = 4  # of the validation split, each scored with factors of the others
LEAST_EXAMPLES = 4 * PARTS  # that share no frame, for the scores of parts
PRIORS = (10, 30, 100)
MOST_CELLS = 10_000  # of a frame
DECIMALS = 4

Totals = Mapping[str, np.ndarray]  # sums of `metrics.ensembles.spread.terms`

logger = logging.getLogger(__name__)


def has_spread(variables: Variables) -> bool:
    """Whether a model has a spread that can be fitted."""
    return SPREAD in variables.get("batch_stats", {})


def used(variables: Variables) -> list[list[float]] | None:
    """The factors `[k][c]` of a model as it is, means over cells; None: it has none."""
    if not has_spread(variables):
        return None
    return np.asarray(variables["batch_stats"][SPREAD]).mean(axis=(1, 2)).tolist()


def fit(
    members: Callable[[Batch], np.ndarray], data: Data, batch_size: int
) -> dict[str, Any]:
    """Finds the factors on the validation split.

    Whether they are those of frames or of cells, and how far cells are drawn to their
    frame, is decided by parts of the split that the factors were not fitted to. Splits
    with fewer than `LEAST_EXAMPLES` examples that share no frame have those of frames.
    So have large fields: rain that moves through them is not tied to places.

    Args:
        members: batch -> `[m, b, k, h, w, c]` in model units, with a spread of 1.
        data: only its validation split is used.
        batch_size: examples per call.

    Returns:
        "by": "as_trained", "frame" or "cell N", where N is `PRIORS`' number of examples
        that every cell takes from its frame; "factors" `[k][h][w][c]`, where the cells
        may be one; "crps": by these names, the mean in model units on the parts that
        the factors were not fitted to, or, if there is one part only, on the whole
        split; "validation_examples".
    """
    weights = np.asarray(data.loss_weights)
    terms = jax.jit(lambda fields, batch: spread_lib.terms(fields, batch, weights))
    parts = _parts(data)
    totals = [_total(terms, members, part, batch_size) for part in parts]
    whole = _sum(totals)
    if not whole["weight"].any():
        crps, by = {}, "as_trained"
    elif len(parts) == 1:
        crps, by = _crps_of_frames(whole), "frame"
    else:
        crps = _crps_of_parts(members, parts, totals, weights, batch_size)
        by = min(crps, key=crps.__getitem__)
    return {
        "by": by,
        "factors": np.round(_ways(whole, weights)[by](whole), DECIMALS).tolist(),
        "crps": crps,
        "validation_examples": len(data.validation),
    }


def _ways(total: Totals, weights: np.ndarray) -> dict[str, Callable]:
    """By name, how factors that can be broadcast to a target are made of totals."""
    ways = {"as_trained": _ones, "frame": _of_frames}
    if np.prod(np.shape(total["error"])[1:3]) <= MOST_CELLS:
        by_cell = functools.partial(spread_lib.by_cell, weights=weights)
        ways |= {f"cell {x}": functools.partial(by_cell, prior=x) for x in PRIORS}
    return ways


def _crps_of_frames(total: Totals) -> dict[str, float]:
    """The mean CRPS on the examples that the factors of frames are fitted to."""
    score, weight = spread_lib.best(total)[1], total["weight"]
    known = np.isfinite(score).all(axis=0)
    means = [float(np.average(x[known], weights=weight[known])) for x in score]
    return dict(zip(("as_trained", "frame"), means, strict=True))


def _crps_of_parts(
    members: Callable[[Batch], np.ndarray],
    parts: Sequence[Source],
    totals: Sequence[Totals],
    weights: np.ndarray,
    batch_size: int,
) -> dict[str, float]:
    """The mean CRPS of each way, every part with factors fitted to the others."""

    @jax.jit
    def score(fields, batch, factors):
        return {"crps": spread_lib.scores(fields, batch, weights, factors)}

    shape, ways = np.shape(totals[0]["error"]), _ways(totals[0], weights)
    crps = np.zeros(len(ways))
    for i, part in enumerate(parts):
        others = _sum([*totals[:i], *totals[i + 1 :]])
        factors = np.stack([np.broadcast_to(f(others), shape) for f in ways.values()])
        scored = functools.partial(score, factors=factors)
        crps += _total(scored, members, part, batch_size)["crps"]
    weight = np.sum([x["weight"].sum() for x in totals]) * np.prod(shape[1:3])
    return dict(zip(ways, (crps / weight).tolist(), strict=True))


def _parts(data: Data) -> list[Source]:
    """Consecutive parts of the validation split; one if it has too few examples."""
    source = data.validation
    if disjoint(data.spans.get("validation"), len(source)) < LEAST_EXAMPLES:
        return [source]
    numbers = np.array_split(np.arange(len(source)), PARTS)
    return [Selected(source, x) for x in numbers]


def disjoint(spans: Spans | None, count: int) -> int:
    """Number of examples that share no frame with each other.

    Args:
        spans: of the examples; None: all are independent.
        count: of the examples.
    """
    if spans is None:
        return count
    place = np.zeros(count, np.int64) if spans.place is None else spans.place
    found, end = 0, None
    for i in np.lexsort((spans.last, place)):
        if end is None or place[i] != end[0] or spans.first[i] > end[1]:
            found, end = found + 1, (place[i], spans.last[i])
    return found


def _total(
    function: Callable[[np.ndarray, Batch], Any],
    members: Callable[[Batch], np.ndarray],
    source: Source,
    batch_size: int,
) -> Totals:
    """Sums of a function of members and truth over all batches."""
    from earthformer_jax.data.pipeline import evaluation_batches  # slow

    def terms() -> Iterator[Any]:
        for batch in evaluation_batches(source, batch_size):
            used = ("targets", "observed", "valid")
            truth = {k: batch[k] for k in used if k in batch}
            yield jax.device_get(function(members(batch), truth))

    return _sum(terms())


def _sum(parts: Iterable[Mapping[str, Any]]) -> Totals:
    """Sums by name, of which one at a time is in memory."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, x in part.items():
            total[name] = total.get(name, 0.0) + np.asarray(x, np.float64)
    return total


def _ones(total: Totals) -> np.ndarray:
    return np.ones_like(_of_frames(total))


def _of_frames(total: Totals) -> np.ndarray:
    return spread_lib.best(total)[0][:, None, None]


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
    by_lead, by = np.mean(found["factors"], axis=(1, 2, 3)), found["by"]
    crps = found["crps"]
    if not crps:
        logger.info("nothing was observed in validation: no spread was fitted")
        return
    logger.info(
        "spread fitted on %d validation examples, by %s: departures from the mean "
        "times %.2f at the first lead, %.2f at the last; CRPS %.4g -> %.4g",
        found["validation_examples"],
        by,
        by_lead[0],
        by_lead[-1],
        crps["as_trained"],
        crps[by],
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
    """Factors `[k][h][w][c]` as the constant of a model; the cells may be one."""
    wanted, made = jnp.shape(before), np.asarray(factors, np.float32)
    fits = made.ndim == len(wanted) and all(
        n == full or (n == 1 and axis in (1, 2))
        for axis, (n, full) in enumerate(zip(made.shape, wanted, strict=True))
    )
    if not fits:
        raise ConfigError(
            f"{workdir / FILE} has factors of the shape {list(made.shape)}, and "
            f"the model a spread of {list(wanted)}; delete the file, and "
            "let the training command fit the spread again"
        )
    return jnp.broadcast_to(jnp.asarray(made), wanted)
