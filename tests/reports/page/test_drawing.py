import dataclasses

import numpy as np
import pytest

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.metrics import precipitation
from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.statistics.errors import Errors
from earthformer_jax.metrics.verification import LOWER, Score, Verification
from earthformer_jax.reports.page import drawing, tidy
from earthformer_jax.reports.verification import skill
from earthformer_jax.reports.verification.sums import Gatherer
from tests.reports.verification.fields import SIDE, TASK, data

RAIN = precipitation.verification(
    thresholds=(16, 74), pools=(1, 4), windows=(1, 3), frame=(SIDE, SIDE)
)


def gathered(verification, count=5):
    fields = data(count)
    task = dataclasses.replace(TASK, verification=verification)
    gatherer = Gatherer(task, fields)
    for batch in evaluation_batches(fields.test, 5):
        targets = np.asarray(batch["targets"])
        made = {"model": 0.9 * targets, "persistence": 0 * targets + 0.5}
        gatherer.watch(batch, made)
    return gatherer.sums()


@pytest.fixture(scope="module")
def rain():
    return gathered(RAIN)


def test_all_figures_of_rain_are_drawn(rain, tmp_path):
    drawing.draw(rain, tmp_path, "code")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["performance.png", "skill.png", "spectra.png"]


def test_the_skill_has_errors_events_and_bias_with_bands(rain):
    figure = drawing.skill_figure(rain)
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "Mean squared error, (code / 255)²",
        "CSI, mean over thresholds",
        "Frequency bias, events from 74 on",
    ]
    assert "90% intervals" in figure.get_suptitle()
    assert [len(axes.collections) for axes in figure.axes] == [2, 2, 2]
    score = next(skill.sampled(rain, names=["mse"], by_lead=True))
    line = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(line, score.value("model"))


def test_points_of_performance_are_those_of_all_leads_without_pooling(
    rain, monkeypatch
):
    asked = {}
    monkeypatch.setattr(drawing, "performance", lambda x, **o: asked.update(x=x, **o))
    drawing.performance_figure(rain)
    assert asked["thresholds"] == ["16", "74"]
    found = {
        s.name: s.value("model")[:, 0]
        for s in skill.sampled(rain, names=["pod", "success_ratio"])
    }
    np.testing.assert_allclose(
        asked["x"]["model"], np.stack([found["success_ratio"], found["pod"]], -1)
    )


def test_power_of_the_model_is_that_of_its_fields(rain):
    figure = drawing.spectra_figure(rain, "spectra", "code")
    share = figure.axes[1].lines[0].get_ydata()
    np.testing.assert_allclose(share, 0.81, rtol=1e-3)
    assert "at +15 min" in figure.get_suptitle()
    assert "code²" in figure.axes[0].get_ylabel()


def test_data_without_rain_have_a_figure_of_their_errors(tmp_path):
    scores = {"rmse": Score("errors", continuous.rmse, LOWER)}
    sums = gathered(Verification({"errors": Errors()}, scores), count=2)
    drawing.draw(sums, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["skill.png"]
    figure = drawing.skill_figure(sums)
    assert figure.axes[0].get_ylabel() == "RMSE (code / 255)"
    assert not figure.axes[0].collections  # too few blocks for intervals
    assert drawing.skill_figure(gathered(Verification(), 2)) is None


def test_scores_of_each_lead_threshold_and_pool_have_rows_with_intervals(rain):
    scores = {
        "data": {"mse_units": "(code / 255)^2"},
        "forecasts": {"model": {"csi_16": 0.1}},
    }
    rows = {
        (r.score, r.lead, r.threshold, r.scale): r
        for r in tidy.rows(scores, rain)
        if r.forecast == "model"
    }
    (csi,) = skill.sampled(rain, names=["csi"], by_lead=True)
    at = rows["csi", 2, "74", "4"]
    assert at.value == csi.value("model")[1, 1, 1]
    assert [at.low, at.high] == csi.interval("model")[1, 1, 1].tolist()
    # The same number is there once, and that with an interval.
    assert np.isfinite(rows["csi", None, "16", ""].low)
    assert rows["csi", None, "mean", "4"].units == "1"
    assert rows["mse", 3, "", ""].units == "(code / 255)^2"
    assert rows["mae", 3, "", ""].units == "code / 255"
    assert ("fss", None, "16", "3") in rows
    assert ("power_ratio", None, "", "8") in rows
    assert not any(r.lead for r in rows.values() if r.score == "power_ratio")
