"""The report on frames that are restored from codes: scores.json and a figure."""

import os
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Data
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.task import RestoreFrames
from earthformer_jax.metrics.contract import is_scalar
from earthformer_jax.plotting.fields import shown
from earthformer_jax.reports import frames, scoring
from earthformer_jax.reports.scoring import ModelFunctions, Settings


def score(
    task: RestoreFrames,
    data: Data,
    model: ModelFunctions,
    workdir: str | os.PathLike,
    settings: Settings,
) -> dict:
    """Scores restored frames and the use of the codes on all test examples.

    Args:
        task: with the metric.
        data: with the test split.
        model: the trained model, with `encode`.
        workdir: where scores.json and figures/ are written.
        settings: the batch size is used.

    Returns:
        what scores.json holds: {"data": {...}, "forecasts": {"model": scores}}; among
        the scores are "usage" and "perplexity".

    Raises:
        ValueError: if the model has no codes.
    """
    if model.encode is None:
        raise ValueError("encode=None: a report on codes needs a model of codes")
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    update = jax.jit(task.metric.update)
    sums, first = task.metric.init(), None
    for batch in evaluation_batches(data.test, settings.batch_size):
        restored = model.forecast(batch)
        sums = update(sums, restored, {**batch, "codes": model.encode(batch)})
        first = first or (batch, restored)
    results = task.metric.compute(sums)
    scores = {"data": frames.describe(task, data), "forecasts": {"model": results}}
    scoring.write_json(settings.output(workdir, "scores.json"), scores)
    print(table(scores), flush=True)
    if first is not None:
        figure = draw(*first, data)
        path = settings.output(workdir, "figures") / "restored.png"
        plotting.save(figure, path)
    return scores


def table(scores: Mapping) -> str:
    """The scores as text, each in a line."""
    data, results = scores["data"], scores["forecasts"]["model"]
    lines = [
        data["description"],
        f"Frames restored from codes ({data['test_examples']} test examples; mse: "
        f"{data['mse_units']})",
    ]
    lines += [
        f"  {name:<12} {value:.4g}"
        for name, value in results.items()
        if is_scalar(value)
    ]
    return "\n".join(lines)


def draw(batch: Mapping, restored: np.ndarray, data: Data):
    """A figure of the first example and what is restored of it."""
    channel = data.display.channels[0]
    truth = shown(batch["targets"][0], channel, 0, _first(batch.get("observed")))
    return plotting.frame_rows(
        {"Truth": truth, "Restored": shown(np.asarray(restored)[0], channel, 0)},
        channel=channel,
        display=data.display,
        title=f"{data.name}: the first test example, restored from its codes",
    )


def _first(observed: np.ndarray | None) -> np.ndarray | None:
    return None if observed is None else observed[0]
