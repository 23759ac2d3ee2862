"""Scores of a trained model and of reference forecasts, as files, tables, figures.

The type of a task chooses its report: `score(task, data, model, workdir, settings)`.
"""

import functools
import os

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.task import (
    EmbedSeries,
    ForecastFrames,
    ForecastNino,
    RestoreFrames,
    Task,
)
from earthformer_jax.models.contract import Embedder, Forecaster, Tokenizer
from earthformer_jax.reports import frames, restoring, scoring
from earthformer_jax.reports.nino import report as nino
from earthformer_jax.reports.page import drawing, fields, figures, tidy, writing
from earthformer_jax.reports.page.about import About
from earthformer_jax.reports.scoring import ModelFunctions, Settings
from earthformer_jax.reports.verification import archive


@functools.singledispatch
def score(
    task: Task,
    data: Data,
    model: ModelFunctions,
    workdir: str | os.PathLike,
    settings: Settings,
) -> dict:
    """Scores a model and the references of a task on the test split, and reports it.

    Args:
        task: what is asked; its type chooses the report.
        data: with the test split.
        model: the trained model.
        workdir: where scores.json and figures/ are written.
        settings: batch size, and what single reports need.

    Returns:
        what scores.json holds.

    Raises:
        TypeError: if there is no report for the type of the task.
    """
    del data, model, workdir, settings
    raise _no_report(task)


score.register(ForecastFrames, frames.score)
score.register(ForecastNino, nino.score)
score.register(RestoreFrames, restoring.score)


@score.register(EmbedSeries)
def _embedded(*arguments) -> dict:
    from earthformer_jax.reports import embedding  # scikit-learn is slow to import

    return embedding.score(*arguments)


def report(
    task: Task,
    data: Data,
    model: ModelFunctions,
    workdir: str | os.PathLike,
    settings: Settings,
    about: About,
) -> dict:
    """As `score`; writes also scores.csv and report.html, and forecasts if wanted.

    Args:
        task, data, model, workdir, settings: as for `score`.
        about: what the page says of the model and its run.

    Returns:
        what scores.json holds.

    Raises:
        TypeError: if there is no report for the type of the task.
    """
    folder = settings.output(workdir, "figures")
    before = figures.seen(folder)
    scores = score(task, data, model, workdir, settings)
    sums = None
    if "verification" in scores:
        sums = archive.read(settings.output(workdir, archive.NAME))
        drawing.draw(sums, folder, data.display.channels[0].units)
    channels = {channel.name: channel.units for channel in data.display.channels}
    rows = tidy.rows(scores, sums, channels)
    tidy.write(settings.output(workdir, "scores.csv"), rows)
    if settings.write_forecasts:
        fields.write(
            settings.output(workdir, "forecasts.nc"),
            data,
            scoring.forecasts_of(task, data, model.forecast),
            settings.write_forecasts,
            settings.batch_size,
            about.attributes(data.name),
        )
    pictures = figures.drawn_since(folder, before)
    page = settings.output(workdir, "report.html")
    restored = isinstance(task, fields.WITHOUT_FORECASTS)
    writing.write(page, scores, rows, data, about, pictures, restored=restored)
    return scores


def check(task: Task, model: Forecaster) -> None:
    """Refuses, before training, what could not be reported afterwards.

    Raises:
        TypeError: if there is no report for the type of the task.
        ValueError: if the task needs embeddings or codes and the model has none.
    """
    if score.dispatch(type(task)) is score.dispatch(object):
        raise _no_report(task)
    if isinstance(task, EmbedSeries) and not isinstance(model, Embedder):
        raise ValueError(
            f"{type(model).__name__} has no method 'embed', which {type(task).__name__}"
            " needs (out_len=0: the targets are the inputs); use the model "
            "'conv_autoencoder'"
        )
    if isinstance(task, RestoreFrames) and not isinstance(model, Tokenizer):
        raise ValueError(
            f"{type(model).__name__} has no methods 'encode' and 'decode', which "
            f"{type(task).__name__} needs; use the model 'vq_vae'"
        )


def _no_report(task: Task) -> TypeError:
    known = ", ".join(kind.__name__ for kind in score.registry if kind is not object)
    return TypeError(
        f"there is no report for a task of type {type(task).__name__}; there are "
        f"reports for {known}"
    )
