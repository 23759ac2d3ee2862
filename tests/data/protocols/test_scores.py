"""Scores under a protocol are those of the implementations that it is taken from."""

from typing import Any

import jax
import numpy as np
import pytest

from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.protocols.registry import PROTOCOLS
from earthformer_jax.data.protocols.scores import EventScores, scored_by
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics import precipitation
from earthformer_jax.metrics.contract import scalar_scores
from earthformer_jax.metrics.frames import FrameScores
from earthformer_jax.metrics.precipitation import RainScores
from earthformer_jax.metrics.verification import Verification
from earthformer_jax.reports.verification import archive
from tests import golden_files
from tests.metrics.test_precipitation import CASES

NAMES = ("sevir-paper", "sevir-challenge", "sevir-lr")
SCALE = 255.0
TABLE: Any = PROTOCOLS


def metric_of(name):
    return EventScores(TABLE[name].scoring, SCALE, 0.0)


def state_of(metric, forecast, truth, batch_size=1, **batch):
    state, update = metric.init(), jax.jit(metric.update)
    for i in range(0, len(truth), batch_size):
        part = {k: v[i : i + batch_size] for k, v in batch.items()}
        part["targets"] = truth[i : i + batch_size]
        state = update(state, forecast[i : i + batch_size], part)
    return state


@pytest.fixture(scope="module")
def golden():
    path = golden_files.shared_file("golden", "metrics", "sevir_skill.npz")
    with np.load(path) as z:
        return {name: z[name] for name in z.files}


class TestReferenceValues:
    def scores(self, golden, case, name):
        """Counts `[k, m]` and scores."""
        forecast, truth = (
            golden[f"{case}/input/{x}"][..., None] for x in ("pred", "target")
        )
        known = np.isfinite(forecast) & np.isfinite(truth)
        forecast, truth = (np.nan_to_num(x) / SCALE for x in (forecast, truth))
        metric = metric_of(name)
        state = state_of(metric, forecast, truth, observed=known)
        counts = metric.verification.sums(state)["contingency"]
        counts = {kind: x[..., 0] for kind, x in counts.items()}
        return metric, metric.verification.sums(state), counts, metric.compute(state)

    @pytest.mark.parametrize("case", CASES)
    def test_paper(self, golden, case):
        metric, sums, counts, found = self.scores(golden, case, "sevir-paper")
        for ours, theirs in (
            ("hits", "hits"),
            ("misses", "misses"),
            ("false_alarms", "fas"),
        ):
            expected = golden[f"{case}/output/mode0/{theirs}"]
            np.testing.assert_array_equal(counts[ours].sum(axis=0), expected)
            expected = golden[f"{case}/output/mode1/{theirs}"]
            np.testing.assert_array_equal(counts[ours].T, expected)
        for name in ("csi", "pod", "sucr"):
            expected = golden[f"{case}/output/mode0/{name}"]
            values = metric.verification.value(name, sums)[:, 0]
            np.testing.assert_allclose(values, expected, atol=1e-6)
            average = float(golden[f"{case}/output/mode0/{name}_avg"])
            assert found[f"{name}_m"] == pytest.approx(average, abs=1e-6)
        bias = golden[f"{case}/output/plain_bias_mode0"]
        bias = np.where(np.isinf(bias), np.nan, bias)  # none observed
        values = metric.verification.value("bias", sums)[:, 0]
        np.testing.assert_allclose(values, bias, rtol=1e-6)
        csi = golden[f"{case}/output/mode1/csi_avg"]
        np.testing.assert_allclose(found["csi_by_lead"], csi, atol=1e-6)

    @pytest.mark.parametrize("case", CASES)
    def test_challenge(self, golden, case):
        metric, sums, _, found = self.scores(golden, case, "sevir-challenge")
        expected = float(golden[f"{case}/output/challenge_mCSI"])
        assert found["csi_m"] == pytest.approx(expected, abs=1e-6)
        expected = golden[f"{case}/output/challenge_mCSI_t"]
        np.testing.assert_allclose(found["csi_by_lead"], expected, atol=1e-6)
        if case != "nan":  # the recipe of the challenge leaves it unknown
            expected = float(golden[f"{case}/output/challenge_MAE"]) / SCALE
            assert found["mae"] == pytest.approx(expected, rel=1e-6)
        for name in ("csi", "pod", "sucr", "bias"):
            expected = golden[f"{case}/output/tf_channel_avg/{name}"][:3]
            values = metric.verification.value(name, sums)[:, 0]
            values = 2**values if name == "bias" else values
            np.testing.assert_allclose(values, expected, rtol=2e-6, atol=1e-6)

    def test_frames(self):
        path = golden_files.shared_file("golden", "metrics", "frame_metrics.npz")
        with np.load(path) as z:
            golden = {name: z[name] for name in z.files}
        assert "range of values 1," in TABLE["nbody-paper"].scoring.ssim
        metric = FrameScores()  # what the data sets of digits are scored with
        forecast, truth = (golden[f"input/{x}"][..., None] for x in ("pred", "target"))
        found = metric.compute(state_of(metric, forecast, truth))
        for name, key in (
            ("mse", "earthformer/frame_mse"),
            ("mae", "earthformer/frame_mae"),
            ("ssim", "torchmetrics_0.9.3/ssim_all_range1"),
        ):
            expected = float(golden[f"output/{key}"])
            assert found[name] == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def fields():
    rng = np.random.default_rng(0)
    return rng.random((2, 3, 2, 16, 32, 1)).astype(np.float32)


def test_the_paper_is_what_is_scored_without_a_protocol(fields):
    ours = metric_of("sevir-paper").compute(state_of(metric_of("sevir-paper"), *fields))
    theirs = RainScores().compute(state_of(RainScores(), *fields))
    assert set(ours) == set(theirs)
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=1e-6, err_msg=name)


def test_pools_by_hand(fields):
    metric = metric_of("sevir-lr")
    found = metric.compute(state_of(metric, *fields))
    blocks = fields.reshape(2, 3, 2, 4, 4, 8, 4).max(axis=(4, 6)) * SCALE
    forecast, truth = blocks
    expected = []
    for threshold in metric.thresholds:
        p, t = forecast >= threshold, truth >= threshold
        expected.append(np.sum(p & t) / np.sum(p | t))
    assert found["csi_m_pool4"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert {"csi_m", "csi_16", "csi_m_pool16"} <= set(found)


@pytest.mark.parametrize("name", NAMES)
def test_no_examples(name):
    metric = metric_of(name)
    found = metric.compute(metric.init())
    assert all(np.isnan(found[x]) for x in scalar_scores(metric))
    assert "csi_m" in found and found["csi_by_lead"] == []


def test_merging_and_padding(fields):
    metric, (forecast, truth) = metric_of("sevir-challenge"), fields
    whole = state_of(metric, forecast, truth)
    first = state_of(metric, forecast[:1], truth[:1])
    valid = np.array([True, True, False])
    padded = forecast[[1, 2, 2]], truth[[1, 2, 2]]
    rest = state_of(metric, *padded, 3, valid=valid)
    found = metric.compute(metric.merge(first, rest))
    for name, expected in metric.compute(whole).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6, err_msg=name)


def test_intervals_are_of_the_same_score(fields):
    """The score of the same name that sums of blocks are made into."""
    whole = precipitation.verification()
    counts = {"contingency": whole.statistics["contingency"]}
    verification = Verification(statistics=counts, scores={})
    sums = verification.sums(state_of(verification, *fields))
    task = ForecastFrames(metric=RainScores(), verification=verification)
    for name in NAMES:
        made = scored_by(task, TABLE[name], Affine(SCALE))
        kept = made.verification
        archive.described(kept.scores["csi_m"])  # it can be stored with the sums
        found = np.atleast_1d(kept.value("csi_m", sums))
        metric: Any = made.metric
        expected = metric.compute(state_of(metric, *fields))
        pools = [f"csi_m_pool{p}" if p > 1 else "csi_m" for p in metric.scoring.pools]
        np.testing.assert_allclose(found, [expected[x] for x in pools], rtol=1e-6)
    assert scored_by(task, TABLE["nbody-paper"], Affine()) is task  # no events
