import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.metrics import precipitation as rain
from earthformer_jax.metrics import sums
from earthformer_jax.metrics.scores import categorical
from tests import golden_files

CASES = (
    "random",
    "no_events_above_160",
    "nan",
    "all_zero",
    "perfect",
    "all_miss",
    "all_false_alarm",
)


SCORES = {
    "csi": categorical.csi,
    "pod": categorical.pod,
    "sucr": categorical.success_ratio,
}
# Of counts, as the reference implementation calls them.
KINDS = {"hits": "hits", "misses": "misses", "false_alarms": "fas"}


def state_of(forecast, truth, metric=None, batch_size=1, **batch):
    metric = metric or rain.RainScores()
    state, update = metric.init(), jax.jit(metric.update)
    for i in range(0, len(truth), batch_size):
        part = {k: v[i : i + batch_size] for k, v in batch.items()}
        part["targets"] = truth[i : i + batch_size]
        state = update(state, forecast[i : i + batch_size], part)
    return state


def codes(*values):
    """One example of two frames of one row, in 0..1."""
    return np.array(values, np.float32).reshape(1, 2, 1, -1, 1) / 255


# Of pixels at or above 100: 2 hits, 1 missed, 3 falsely forecast; all in lead 1.
FORECAST = codes([100, 120, 99, 200, 200, 200, 0], [0] * 7)
TRUTH = codes([100, 200, 100, 99, 0, 0, 0], [0] * 7)
METRIC = rain.RainScores(thresholds=(100, 250))


def test_events_by_hand():
    state = state_of(FORECAST, TRUTH, METRIC)
    counts = METRIC.counts(state)
    np.testing.assert_array_equal(counts["hits"], [[2, 0], [0, 0]])
    np.testing.assert_array_equal(counts["misses"], [[1, 0], [0, 0]])
    np.testing.assert_array_equal(counts["false_alarms"], [[3, 0], [0, 0]])
    found = METRIC.compute(state)
    assert found["csi_100"] == pytest.approx(2 / 6, rel=1e-4)
    assert found["csi_250"] == 0  # no event anywhere
    assert found["csi_m"] == pytest.approx(1 / 6, rel=1e-4)
    assert found["pod_m"] == pytest.approx(1 / 3, rel=1e-4)
    assert found["sucr_m"] == pytest.approx(1 / 5, rel=1e-4)
    assert found["bias_m"] == pytest.approx(5 / 3)  # of the threshold observed
    assert found["csi_by_lead"] == pytest.approx([1 / 6, 0], rel=1e-4)


def test_errors_are_shares_of_the_full_scale():
    found = METRIC.compute(state_of(FORECAST, TRUTH, METRIC))
    error = (FORECAST - TRUTH).astype(np.float64)
    assert found["mse"] == pytest.approx(np.mean(error**2), rel=1e-6)
    assert found["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-6)
    lead_1 = np.mean(error[0, 0] ** 2)
    assert found["mse_by_lead"] == pytest.approx([lead_1, 0], rel=1e-6)


def test_units_make_no_difference_not_even_at_the_thresholds():
    every = np.arange(256, dtype=np.float32).reshape(1, 1, 16, 16, 1)
    offset, scale = 33.44, 47.54
    normalised = ((every - offset) / scale).astype(np.float32)
    metric = rain.RainScores(scale=scale, offset=offset)
    found = metric.counts(state_of(normalised, normalised, metric))
    plain = rain.RainScores().counts(state_of(every / 255, every / 255))
    np.testing.assert_array_equal(found["hits"], plain["hits"])
    np.testing.assert_array_equal(found["hits"][0], 256 - np.array(rain.THRESHOLDS))
    shifted = metric.compute(state_of(normalised + 1, normalised, metric))
    assert shifted["mae"] == pytest.approx(scale / 255, rel=1e-5)


def test_batches_padding_unknown_pixels_and_merging():
    rng = np.random.default_rng(0)
    forecast, truth = rng.random((2, 5, 3, 8, 8, 1)).astype(np.float32)
    observed = rng.random(truth.shape) > 0.2
    valid = np.arange(5) < 4
    found = METRIC.compute(
        state_of(forecast, truth, METRIC, 5, observed=observed, valid=valid)
    )
    f, t, seen = forecast[:4], truth[:4], observed[:4]
    p, o = (255 * x >= 100 for x in (f, t))
    csi = np.sum(p & o & seen) / np.sum((p | o) & seen)
    assert found["csi_100"] == pytest.approx(csi, rel=1e-6)
    error = (f - t).astype(np.float64)[seen]
    assert found["mse"] == pytest.approx(np.mean(error**2), rel=1e-6)
    parts = [
        state_of(f[i], t[i], METRIC, observed=seen[i])
        for i in (slice(0, 1), slice(1, 4))
    ]
    for name, value in METRIC.compute(METRIC.merge(*parts)).items():
        np.testing.assert_allclose(value, found[name], rtol=1e-6, err_msg=name)


def test_counts_of_a_whole_archive_are_exact():
    """2e10 pixels, more than float32 or int32 can count, in batches of a million."""
    batch = (
        jnp.ones((1, 1, 1000, 1000, 1)),
        {"targets": jnp.ones((1, 1, 1000, 1000, 1))},
    )
    one = METRIC.update(METRIC.init(), *batch)

    def many(state):
        merged = jax.lax.fori_loop(0, 20_479, lambda _, s: METRIC.merge(s, one), state)
        return METRIC.update(merged, *batch)

    counts = METRIC.counts(jax.jit(many)(METRIC.init()))
    assert counts["hits"][0, 0] == 20_480 * 10**6
    assert counts["misses"][0, 0] == counts["false_alarms"][0, 0] == 0
    assert counts["hits"].dtype == np.int64


def test_batches_too_large_to_count_are_refused():
    shape = jax.ShapeDtypeStruct((sums.MOST, 1, 2, 2, 1), np.float32)
    with pytest.raises(ValueError, match="too large to be counted"):
        jax.eval_shape(METRIC.update, METRIC.init(), shape, {"targets": shape})


def test_nothing_gives_nan_and_no_thresholds_are_refused():
    found = METRIC.compute(METRIC.init())
    for name in ("mse", "mae", "csi_m", "csi_100", "pod_m", "sucr_m", "bias_m"):
        assert np.isnan(found[name]), name
    with pytest.raises(ValueError, match="thresholds"):
        rain.RainScores(thresholds=())


class TestReferenceValues:
    """Numbers of the reference implementation."""

    @pytest.fixture
    def golden(self):
        path = golden_files.shared_file("golden", "metrics", "sevir_skill.npz")
        with np.load(path) as z:
            return {name: z[name] for name in z.files}

    @pytest.mark.parametrize("case", CASES)
    def test_scores(self, golden, case):
        forecast = golden[f"{case}/input/pred"][..., None]
        truth = golden[f"{case}/input/target"][..., None]
        known = np.isfinite(forecast) & np.isfinite(truth)
        state = state_of(
            np.nan_to_num(forecast) / 255, np.nan_to_num(truth) / 255, observed=known
        )
        metric = rain.RainScores()
        by_lead = metric.counts(state)
        pooled = {kind: x.sum(axis=0) for kind, x in by_lead.items()}
        for mode, counts in (("mode0", pooled), ("mode1", by_lead)):
            for kind, theirs in KINDS.items():
                expected = golden[f"{case}/output/{mode}/{theirs}"]
                np.testing.assert_array_equal(counts[kind].T, expected)
        for name in ("csi", "pod", "sucr"):
            ratio = functools.partial(SCORES[name], epsilon=rain.EPSILON)
            modes = (ratio(pooled), ratio(by_lead).T, ratio(by_lead).mean(axis=0))
            for mode, found in enumerate(modes):
                expected = golden[f"{case}/output/mode{mode}/{name}"]
                np.testing.assert_allclose(found, expected, atol=2e-7)
                average = golden[f"{case}/output/mode{mode}/{name}_avg"]
                np.testing.assert_allclose(found.mean(axis=0), average, atol=2e-7)
        bias = golden[f"{case}/output/plain_bias_mode0"]
        bias = np.where(np.isinf(bias), np.nan, bias)  # none observed
        np.testing.assert_allclose(categorical.frequency_bias(pooled), bias, rtol=1e-12)
        found = metric.compute(state)
        expected = float(golden[f"{case}/output/mode0/csi_avg"])
        assert found["csi_m"] == pytest.approx(expected, abs=2e-7)
        np.testing.assert_allclose(
            found["csi_by_lead"], golden[f"{case}/output/mode1/csi_avg"], atol=2e-7
        )
