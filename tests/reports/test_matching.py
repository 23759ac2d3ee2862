import dataclasses
from typing import Any

import numpy as np
import pytest

from earthformer_jax.data.dataset import Channel, Data, Display
from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.data.protocols.registry import PROTOCOLS
from earthformer_jax.data.protocols.scores import EventScores
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics.frames import FrameScores
from earthformer_jax.metrics.precipitation import RainScores, verification
from earthformer_jax.reports import matching
from earthformer_jax.reports.verification import skill
from earthformer_jax.reports.verification.sums import Gatherer, together

SCALE, OFFSET = 47.54, 33.44
METRIC = RainScores(thresholds=(16, 74), scale=SCALE, offset=OFFSET)
TASK = ForecastFrames(metric=METRIC)


def codes(field):
    return np.asarray(field) * SCALE + OFFSET


def units(x):
    return np.asarray((x - OFFSET) / SCALE, np.float32)


def examples(count, seed=0, wet=0.5):
    """Rain of 2 lead times; an example also has what a good forecast knows."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 250, (count, 2, 16, 16, 1)) * (
        rng.random((count, 2, 16, 16, 1)) < wet
    )
    return [{"inputs": units(x), "targets": units(x)} for x in truth]


FORECASTS: Any = {
    "weak": lambda batch: units(0.4 * codes(batch["targets"])),
    "persistence": lambda batch: np.asarray(batch["targets"])[:, ::-1],
}


def scores_of(task, validation, test, batch_size=4):
    found = matching.of(task, validation, FORECASTS, batch_size)
    assert found is not None
    for batch in evaluation_batches(test, batch_size):
        found.watch(batch, {name: f(batch) for name, f in FORECASTS.items()})
    scores: dict[str, Any] = {"forecasts": {name: {} for name in FORECASTS}}
    found.add(scores)
    return scores


def test_each_forecast_has_its_own_levels():
    scores = scores_of(TASK, examples(6), examples(5, seed=1))
    weak = scores["forecasts"]["weak"]
    assert weak["csi_m_matched"] == pytest.approx(1, abs=0.02)
    assert weak["bias_m_matched"] == pytest.approx(1, abs=0.02)
    (first, second) = scores["matching"]["levels"]["weak"]
    np.testing.assert_allclose(first, np.array([16, 74]) * 0.4, atol=0.5)
    np.testing.assert_allclose(second, first, atol=0.5)
    levels = scores["matching"]["levels"]["persistence"]
    np.testing.assert_allclose(levels, [[16, 74]] * 2, atol=3)
    assert scores["matching"]["examples"] == 6
    assert matching.note(scores)[0].endswith("fitted on 6 validation examples")
    assert matching.note({}) == []


def test_levels_are_those_of_validation_whatever_is_tested():
    validation = examples(6)
    found = [scores_of(TASK, validation, examples(4, 2, wet)) for wet in (0.9, 0.1)]
    assert found[0]["matching"] == found[1]["matching"]
    # Test rain that is twice as frequent stays so: it is not fitted to.
    bias = [x["forecasts"]["weak"]["bias_m_matched"] for x in found]
    np.testing.assert_allclose(bias, 1, atol=0.05)


def test_what_is_not_observed_is_not_fitted_to():
    whole, hidden = examples(4), examples(4)
    keep = np.ones((2, 16, 16, 1), bool)
    keep[:, :5] = False
    for example in (*whole, *hidden):
        example["observed"] = keep
    for example in hidden:
        example["targets"] = np.where(keep, example["targets"], units(254))
    found = [scores_of(TASK, x, examples(2))["matching"] for x in (whole, hidden)]
    assert found[0] == found[1]


def test_a_part_of_a_large_split_is_enough(monkeypatch):
    monkeypatch.setattr(matching, "EXAMPLES", 3)
    validation = examples(8)
    found = matching.of(TASK, validation, FORECASTS, 2)
    assert found is not None and found.examples == 3
    same: Any = matching.of(TASK, [validation[i] for i in (0, 4, 7)], FORECASTS, 2)
    np.testing.assert_array_equal(found.levels["weak"], same.levels["weak"])


def test_a_protocol_matches_its_own_thresholds():
    scoring: Any = PROTOCOLS["sevir-challenge"].scoring
    task = ForecastFrames(metric=EventScores(scoring, SCALE, OFFSET))
    scores = scores_of(task, examples(4), examples(2, 1))
    assert scores["matching"]["thresholds"] == [16, 74, 133]
    assert scores["forecasts"]["weak"]["csi_m_matched"] > 0.95


def test_nothing_to_match():
    assert matching.of(TASK, [], FORECASTS, 2) is None
    assert (
        matching.of(ForecastFrames(metric=FrameScores()), examples(2), FORECASTS, 2)
        is None
    )


def test_sums_by_block_have_the_same_scores():
    """So that matched scores have intervals, and differences that are paired."""
    made = verification(SCALE, OFFSET, (16, 74), pools=(1,), windows=(1,))
    task = dataclasses.replace(TASK, verification=made)
    test = examples(5, seed=1)
    data: Any = Data(
        name="rain",
        description="rain",
        train=test,
        validation=examples(6),
        test=test,
        loss_weights=np.ones((1, 1, 1, 1)),
        display=Display((Channel("rain"),), "5 min"),
    )
    found = matching.of(task, data.validation, FORECASTS, 2, data)
    gatherer = Gatherer(task, data)
    assert found is not None
    for batch in evaluation_batches(test, 2):
        fields = {name: f(batch) for name, f in FORECASTS.items()}
        found.watch(batch, fields)
        gatherer.watch(batch, fields)
    sums = found.with_sums(gatherer.sums())
    assert set(sums.verification.scores) > {"csi_m", "csi_m_matched", "bias_m_matched"}
    scores: dict[str, Any] = {"forecasts": {name: {} for name in FORECASTS}}
    found.add(scores)
    for score in skill.sampled(sums, names=["csi_m_matched", "bias_m_matched"]):
        for name, of_name in scores["forecasts"].items():
            value = score.value(name).item()
            assert value == pytest.approx(of_name[score.name], rel=1e-6)
            low, high = score.interval(name).ravel()
            assert low <= value <= high
    with pytest.raises(ValueError, match="both have bias"):
        together(sums, sums)
    other = dataclasses.replace(sums, values={"other": {}})
    with pytest.raises(ValueError, match="expected the same forecasts"):
        together(sums, other)
