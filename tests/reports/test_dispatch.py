"""The type of a task chooses its report; tasks without a report are rejected."""

import dataclasses

import numpy as np
import pytest

from earthformer_jax import models, reports
from earthformer_jax.data.task import (
    EmbedSeries,
    ForecastFrames,
    ForecastNino,
    RestoreFrames,
    Task,
)
from earthformer_jax.metrics.pixel import PixelError
from earthformer_jax.reports import frames
from earthformer_jax.reports.nino import report as enso

SHAPE = (2, 8, 8, 1)


class Series(list):
    frame_count = 0


def nino():
    weights = np.full((2, 2), 0.25)
    return ForecastNino(
        metric=PixelError(), nino_weights=weights, ocean=weights > 0, index_months=3
    )


FRAMES = ForecastFrames(metric=PixelError())
EMBED = EmbedSeries(metric=PixelError(), series=Series())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rain(ForecastFrames):
    """A kind of forecast of frames."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detect(Task):
    """A question that no report answers."""


@pytest.mark.parametrize(
    ("task", "report"),
    [
        (FRAMES, frames.score),
        (nino(), enso.score),
        (Rain(metric=PixelError()), frames.score),
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_type_chooses_the_report(task, report):
    assert reports.score.dispatch(type(task)) is report


def test_a_task_without_a_report_is_refused(tmp_path):
    message = "no report for a task of type Detect; .* ForecastFrames, ForecastNino"
    task = Detect(metric=PixelError())
    with pytest.raises(TypeError, match=message):
        reports.check(task, models.create_model("persistence", SHAPE, SHAPE))
    with pytest.raises(TypeError, match=message):
        reports.score(task, None, None, tmp_path, None)


def test_only_models_with_embeddings_can_embed(tmp_path):
    persistence = models.create_model("persistence", SHAPE, SHAPE)
    reports.check(FRAMES, persistence)
    reports.check(nino(), persistence)
    reports.check(EMBED, models.create_model("conv_autoencoder", SHAPE, SHAPE))
    with pytest.raises(ValueError, match="Persistence has no method 'embed'.*out_len"):
        reports.check(EMBED, persistence)
    functions = reports.ModelFunctions(forecast=lambda batch: batch["inputs"])
    with pytest.raises(ValueError, match="embed=None"):
        reports.score(EMBED, None, functions, tmp_path / "run", None)
    assert not (tmp_path / "run").exists()


def test_only_models_of_codes_can_restore(tmp_path):
    task = RestoreFrames(metric=PixelError())
    reports.check(task, models.create_model("vq_vae", SHAPE, SHAPE))
    persistence = models.create_model("persistence", SHAPE, SHAPE)
    with pytest.raises(ValueError, match="Persistence has no methods 'encode' and"):
        reports.check(task, persistence)
    functions = reports.ModelFunctions(forecast=lambda batch: batch["inputs"])
    with pytest.raises(ValueError, match="encode=None"):
        reports.score(task, None, functions, tmp_path / "run", None)
    assert not (tmp_path / "run").exists()
