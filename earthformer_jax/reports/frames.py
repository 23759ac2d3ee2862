"""The report on forecasts of frames: scores.json, a table, figures, an animation.

Every forecast (the model, the references of the task, and always persistence) is scored
on the same test examples by the metric of the task.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from earthformer_jax import plotting
from earthformer_jax.data.dataset import Data, Display
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.source import Batch, Source
from earthformer_jax.data.task import Forecast, Task
from earthformer_jax.plotting.fields import shown
from earthformer_jax.plotting.style import apart, moment_label
from earthformer_jax.reports import matching, scoring
from earthformer_jax.reports.probabilities import report as probabilities
from earthformer_jax.reports.scoring import ModelFunctions, Settings
from earthformer_jax.reports.verification import archive, skill
from earthformer_jax.reports.verification.sums import Gatherer

LIVELY = 10  # the example in the figures is of the 1 / LIVELY that change most
CHANNELS = 3  # at most so many are drawn
ROWS, COLUMNS = 6, 3  # forecasts in the figure, and in the animation beside the truth
SAMPLES = 3  # members that are drawn next to the forecast
FPS = 4.0
# Scores drawn next to the error if the metric has them: key, label.
SECOND_PANEL = (
    ("ssim_by_lead", "SSIM"),
    ("csi_by_lead", "CSI, mean over thresholds"),
)


def score(
    task: Task,
    data: Data,
    model: ModelFunctions,
    workdir: str | os.PathLike,
    settings: Settings,
) -> dict:
    """Scores a model and the references on all test examples, and reports it.

    Args:
        task: metric and references.
        data: with the test split.
        model: the trained model.
        workdir: where scores.json and figures/ are written.
        settings: the batch size is used.

    Returns:
        what scores.json holds: {"data": {...}, "forecasts": {name: scores}}, with
        intervals and differences if the task has a verification
        (`verification.skill.add`), and {"members": [scores]} of an ensemble. A model
        with members also has {"probabilities": ...}, see `probabilities.report.score`.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    forecasts = scoring.forecasts_of(task, data, model.forecast)
    errors = ExampleErrors()
    gatherer = Gatherer(task, data) if task.verification.scores else None
    matched = matching.of(task, data.validation, forecasts, settings.batch_size, data)

    def watch(batch, fields):
        errors.watch(batch, fields)
        for other in (gatherer, matched):
            if other is not None:
                other.watch(batch, fields)

    results = scoring.evaluate(
        task.metric, data.test, forecasts, settings.batch_size, watch
    )
    members = scoring.members_of(results)
    reference = best_reference(results)
    scores = {"data": describe(task, data), "forecasts": results, **members}
    if matched is not None:
        matched.add(scores)
    more = []
    if gatherer is not None:
        sums = gatherer.sums(model.step)
        if matched is not None:
            sums = matched.with_sums(sums)
        archive.write(settings.output(workdir, archive.NAME), sums)
        skill.add(scores, sums)
        more = skill.summary(sums, reference)
    references = {name: f for name, f in forecasts.items() if name != "model"}
    scores |= probabilities.scores_of(task, data, model, references, settings)
    scoring.write_json(settings.output(workdir, "scores.json"), scores)
    lines = [table(scores), *more]
    print("\n".join([*lines, *probabilities.lines(scores)]), flush=True)
    figures = settings.output(workdir, "figures")
    probabilities.draw(scores, data, figures)
    if "mse_by_lead" in results["model"] and gatherer is None:
        plotting.save(skill_figure(scores), figures / "skill.png")
    number = errors.typical()
    fields = one_example(
        data.test,
        number,
        {name: forecasts[name] for name in ("model", *ranked_references(results))},
        settings.batch_size,
    )
    title = (
        f"{data.name}, test example {number}: median model error among the "
        f"{len(errors.lively())} of {len(data.test)} that change most"
    )
    draw(fields, data.display, title, figures, dated=scoring.is_dated(data))
    if model.members is not None:
        (batch,) = evaluation_batches([data.test[number]], settings.batch_size)
        samples = np.asarray(model.members(batch))[:SAMPLES, 0]
        figure = draw_samples(fields, samples, data.display, title)
        plotting.save(figure, figures / "samples.png")
    return scores


class ExampleErrors:
    """Mean squared errors of single examples, to choose one to draw."""

    def __init__(self):
        self.model: list[float] = []
        self.change: list[float] = []  # error of persistence

    def watch(self, batch: Batch, fields: Mapping) -> None:
        """Records the errors of a batch."""
        targets = np.asarray(batch["targets"])
        real = np.asarray(batch.get("valid", np.ones(len(targets), bool)))
        known = np.broadcast_to(batch.get("observed", True), targets.shape)
        axes = tuple(range(1, targets.ndim))
        count = np.maximum(known.sum(axis=axes), 1)
        for errors, name in ((self.model, "model"), (self.change, "persistence")):
            squared = np.where(known, fields[name] - targets, 0) ** 2
            errors.extend((squared.sum(axis=axes) / count)[real].tolist())

    def lively(self) -> np.ndarray:
        """Indices of the examples that change most, 1 / `LIVELY` of all."""
        count = -(-len(self.change) // LIVELY)
        return np.argsort(-np.asarray(self.change), kind="stable")[:count]

    def typical(self) -> int:
        """Index of the one of those with the median error of the model."""
        lively = self.lively()
        order = np.argsort(np.asarray(self.model)[lively], kind="stable")
        return int(lively[order[(len(order) - 1) // 2]])


def describe(task: Task, data: Data) -> dict:
    """What the scores are about: the "data" part of scores.json."""
    example = data.test[0]
    return {
        "name": data.name,
        "description": data.description,
        "test_examples": len(data.test),
        "input_frames": len(example["inputs"]),
        "leads": list(range(1, len(example["targets"]) + 1)),
        "frame": data.display.frame,
        "channels": [channel.name for channel in data.display.channels],
        "mse_units": task.mse_units,
        **task.protocol,
    }


def best_reference(results: Mapping[str, Mapping]) -> str:
    """The forecast other than the model with the smallest error."""
    return ranked_references(results)[0]


def ranked_references(results: Mapping[str, Mapping]) -> list[str]:
    """The forecasts other than the model, that with the smallest error first."""
    errors = {name: s["mse"] for name, s in results.items() if name != "model"}
    return sorted(errors, key=lambda n: (np.isnan(errors[n]), errors[n]))


def table(scores: Mapping) -> str:
    """The scores as text: one row per forecast, one column per score."""
    data, forecasts = scores["data"], scores["forecasts"]
    heads = [k for k, v in forecasts["model"].items() if isinstance(v, int | float)]
    width = max(len(name) for name in forecasts)
    widths = [max(len(head), 8) for head in heads]
    count = len(data["leads"])
    rows = [
        data["description"],
        *scoring.protocol_line(data),
        f"Mean over {count} forecast frame{'s' * (count > 1)}{apart(data['frame'])} "
        f"({data['test_examples']} test examples; mse: {data['mse_units']})",
        " ".join(
            [" " * width]
            + [f"{head:>{w}}" for head, w in zip(heads, widths, strict=True)]
        ),
    ]
    for name, s in forecasts.items():
        cells = [f"{s[head]:>{w}.4g}" for head, w in zip(heads, widths, strict=True)]
        rows.append(" ".join([f"{name:<{width}}", *cells]))
    rows += matching.note(scores)
    return "\n".join(rows)


def skill_figure(scores: Mapping):
    """Error by lead for all forecasts, and the second score if there is one."""
    data, forecasts = scores["data"], scores["forecasts"]
    labels = [
        ("mse_by_lead", f"Mean squared error, {data['mse_units']}".replace("^2", "²"))
    ]
    labels += [pair for pair in SECOND_PANEL if pair[0] in forecasts["model"]]
    return plotting.lead_curves(
        {
            label: {name: s[key] for name, s in forecasts.items()}
            for key, label in labels
        },
        step=plotting.step_of(data["frame"]),
        title=f"Skill on {data['name']}, {data['test_examples']} test examples",
    )


def one_example(
    source: Source, number: int, forecasts: Mapping[str, Forecast], batch_size: int
) -> dict:
    """An example and its forecasts, computed in a batch of the usual size.

    Returns:
        the arrays of the example, and "forecasts" by name, without batch axis.
    """
    (batch,) = evaluation_batches([source[number]], batch_size)
    example = {key: np.asarray(value)[0] for key, value in batch.items()}
    fields = {name: np.asarray(f(batch))[0] for name, f in forecasts.items()}
    return example | {"forecasts": fields}


def draw_samples(
    example: Mapping, samples: np.ndarray, display: Display, title: str
) -> Figure:
    """A figure of one forecast next to some of its members; the first channel.

    Args:
        example: from `one_example`, with the forecast of the model.
        samples: `[n, k, h, w, c]` in model units.
        display: of the data.
        title: of the figure.
    """
    channel = display.channels[0]
    observed = example.get("observed")
    rows = {
        "Inputs": shown(example["inputs"], channel, 0),
        "Truth": shown(example["targets"], channel, 0, observed),
        "Forecast": shown(example["forecasts"]["model"], channel, 0),
    }
    rows |= {f"Sample {i + 1}": shown(x, channel, 0) for i, x in enumerate(samples)}
    return plotting.frame_rows(rows, channel=channel, display=display, title=title)


def draw(
    example: Mapping,
    display: Display,
    title: str,
    folder: Path,
    *,
    dated: bool = False,
) -> None:
    """Writes forecast.png of the first channel, one more for others, and a GIF.

    Args:
        example: from `one_example`; its first `ROWS` forecasts are drawn, and the first
            `COLUMNS` move.
        display: of the data.
        title: of the figures.
        folder: where they are written.
        dated: whether the "time" of the example is to be shown.
    """
    moments = None
    if dated:
        moments = np.asarray(example["time"], np.int64).astype("datetime64[m]")
        last = moments[len(example["inputs"]) - 1]
        title += f"; last input {moment_label(last, display.frame)}"
    channels = display.channels[:CHANNELS]
    observed = example.get("observed")
    inputs = [shown(example["inputs"], x, c) for c, x in enumerate(channels)]
    truth = [shown(example["targets"], x, c, observed) for c, x in enumerate(channels)]
    forecasts = {
        name: [shown(fields, x, c) for c, x in enumerate(channels)]
        for name, fields in list(example["forecasts"].items())[:ROWS]
    }
    for c, channel in enumerate(channels):
        figure = plotting.forecast_frames(
            inputs[c],
            truth[c],
            {name: fields[c] for name, fields in forecasts.items()},
            channel=channel,
            display=display,
            title=title,
        )
        suffix = "" if c == 0 else "_" + re.sub(r"[^\w.-]+", "_", channel.name)
        plotting.save(figure, folder / f"forecast{suffix}.png")
    pictures = plotting.forecast_animation(
        inputs,
        truth,
        dict(list(forecasts.items())[:COLUMNS]),
        display=display,
        title=title,
        moments=moments,
    )
    plotting.save_animation(pictures, folder / "forecast.gif", FPS)
