"""Scores with intervals and paired differences, from sums by block."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from earthformer_jax.metrics import bootstrap
from earthformer_jax.reports.verification import skill
from tests.reports.verification.fields import FORECASTS, data, half
from tests.reports.verification.test_sums import gathered


@pytest.fixture(scope="module")
def sums():
    forecasts = {**FORECASTS, "same": half}
    return gathered(data(12), forecasts=forecasts)[0]


def one(sums, name, **options):
    (found,) = skill.sampled(sums, names=[name], **options)
    return found


def test_a_sample_is_scored_like_its_blocks(sums):
    found = one(sums, "csi")
    assert found.dims == ("threshold", "pool")
    counts = bootstrap.draw(12, 1)
    drawn = np.repeat(np.arange(12), counts[7].astype(int))
    parts = jax.tree.map(lambda x: x[drawn].sum(axis=0), sums.values["model"])
    expected = sums.verification.value("csi", parts, ("lead",))
    np.testing.assert_allclose(found.samples["model"][7], expected)


def test_by_lead(sums):
    found = one(sums, "mse", by_lead=True)
    assert found.dims == ("lead",) and found.coords["lead"] == (1, 2, 3)
    assert found.interval("model").shape == (3, 2)


def test_a_mean_over_leads_stays_one(sums):
    """The published CSI-M averages over lead times; counts are not added over them."""
    found = one(sums, "csi_m_by_lead_mean")
    parts = jax.tree.map(lambda x: x.sum(axis=0), sums.values["model"])
    np.testing.assert_allclose(
        found.value("model"), sums.verification.value("csi_m_by_lead_mean", parts)
    )


def test_every_score_has_an_interval_that_holds_it(sums):
    for score in skill.sampled(sums):
        for number in score.numbers():
            low, high = number.interval("persistence")
            value = number.value("persistence")
            assert low <= value <= high or (np.isnan(low) and np.isnan(value)), number


def test_numbers_have_names(sums):
    names = [x.name for x in one(sums, "csi").numbers()]
    assert names[:3] == [
        "csi_16",
        "csi_16_pool4",
        "csi_74",
    ]
    assert [x.name for x in one(sums, "mse").numbers()] == ["mse"]


@pytest.mark.parametrize("better", ["higher", "lower", "near one", "near zero"])
def test_verdicts(sums, better):
    values = {
        "higher": (0.9, 0.5),
        "lower": (-0.9, 2.0),
        "near one": (0.9, 1.3),
        "near zero": (-0.1, 0.5),
    }[better]
    spread = np.linspace(-0.01, 0.01, 201)
    samples = {n: x + spread for n, x in zip("ab", values, strict=True)}
    score = dataclasses.replace(one(sums, "mse"), better=better, samples=samples)
    assert skill.verdict(score, "a", "b") == "better"
    assert skill.verdict(score, "b", "a") == "worse"
    assert skill.verdict(score, "a", "a") == "not told apart"
    assert skill.best(score, ["a", "b"]) == "a"


def test_what_scores_json_holds(sums):
    forecasts: dict[str, Any] = {name: {"mse": 1.0} for name in sums.values}
    scores = {"data": {}, "forecasts": forecasts}
    skill.add(scores, sums)
    about = scores["data"]["intervals"]
    assert about["blocks"] == 12 and about["block"] == "an example"
    assert scores["verification"]["csi"] == {"better": "higher", "units": "1"}
    model = forecasts["model"]
    assert model["mse"] == 1.0
    assert len(model["intervals"]["csi_74_pool4"]) == 2
    assert np.shape(model["intervals"]["mse_by_lead"]) == (3, 2)
    assert list(model["differences"]) == ["persistence", "same"]
    # A reference is compared with the one that is best in a score, and no other.
    for name, other in (("persistence", "same"), ("same", "persistence")):
        found = forecasts[name]["differences"].get(other, {})
        for score in ("csi_16", "csi_74"):
            own, its = (forecasts[n]["verification"][score] for n in (name, other))
            assert (score in found) == (own < its)
    gap = model["differences"]["persistence"]["mse"]
    a, b = (forecasts[n]["verification"]["mse"] for n in ("model", "persistence"))
    assert gap["difference"] == pytest.approx(a - b, rel=1e-5)
    assert gap["interval"][0] < gap["difference"] < gap["interval"][1]
    same = model["differences"]["same"]["mse"]
    assert same == {"difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0}


def test_summary(sums):
    first, second = skill.summary(sums, "persistence")
    assert first.startswith(
        "Model, with 90% intervals from 12 blocks (an example each)"
    )
    assert "csi_m " in first
    assert second.startswith("Model minus persistence, paired: mse -")
    assert "p = " in second and "better" in second


@pytest.mark.parametrize("count, text", [(1, "1 block "), (3, "3 blocks ")])
def test_few_blocks_have_no_intervals(count, text):
    sums, _ = gathered(data(count))
    assert text in skill.summary(sums, "persistence")[0]
    scores = {"data": {}, "forecasts": {name: {} for name in sums.values}}
    skill.add(scores, sums)
    assert scores["data"]["intervals"]["samples"] == 0
    assert "at least 4 are needed" in scores["data"]["intervals"]["none_because"]
    assert np.isnan(scores["forecasts"]["model"]["intervals"]["mse"]).all()
    gap = scores["forecasts"]["model"]["differences"]["persistence"]["mse"]
    assert np.isfinite(gap["difference"]) and np.isnan(gap["p_value"])


def test_a_score_that_is_unknown_has_no_interval():
    forecasts = dict(FORECASTS)
    forecasts["model"] = lambda batch: half(batch) * np.nan
    sums, _ = gathered(data(6), forecasts=forecasts)
    (score,) = skill.sampled(sums, names=["mse"])
    assert np.isnan(score.interval("model")).all()
    gap = score.difference("model", "persistence")
    assert np.isnan(gap.p_value) and np.isnan(gap.interval).all()
    assert skill.verdict(score, "model", "persistence") == "not told apart"
    assert skill.best(score, ["model", "persistence"]) == "persistence"
