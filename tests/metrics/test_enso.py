import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.metrics import enso
from tests import golden_files

SST_MAX, SST_MIN = 10.198975563049316, -16.549121856689453  # of ICAR-ENSO, K
SCALE = SST_MAX - SST_MIN
BOX = np.full((3, 11), 1 / 33)


def icar_weights() -> np.ndarray:
    weights = np.zeros((24, 48))
    weights[10:13, 19:30] = BOX
    return weights


def skill(forecast, truth, **options) -> dict:
    """All scores of `[b, k]` index series, given as fields of a single cell."""
    metric = enso.NinoSkill(np.ones((1, 1)), forecast.shape[1], **options)
    batch = {"targets": truth[:, :, None, None, None]}
    state = metric.update(metric.init(), forecast[:, :, None, None, None], batch)
    return metric.compute(state)


def moments_of(forecast, truth):
    return enso.moments(forecast, truth, np.ones(len(truth), bool))


def series(seed=0, shape=(40, 6)):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=shape)
    return truth + rng.normal(size=shape), truth


class TestReferenceValues:
    """Numbers of the reference implementation."""

    @pytest.fixture
    def golden(self):
        return golden_files.load("metrics_enso_nino34")

    def test_index(self, golden):
        index = enso.three_month_mean(enso.nino34(golden["input/pred_sst_box"], BOX))
        np.testing.assert_allclose(
            index, golden["output/nino_pred_unnormalised"], atol=1e-6
        )
        np.testing.assert_allclose(
            SCALE * index + SST_MIN, golden["output/nino_pred"], atol=2e-5
        )

    @pytest.mark.parametrize("truth", ("label", "sst"))
    def test_scores(self, golden, truth):
        metric = enso.NinoSkill(BOX, 14, scale=SCALE, offset=SST_MIN)
        batch = {"targets": golden["input/true_sst_box"][..., None]}
        if truth == "label":
            batch["nino34_three_month"] = golden["input/nino_label"]
        forecast = golden["input/pred_sst_box"][..., None]
        found = metric.compute(metric.update(metric.init(), forecast, batch))
        expected = golden_files.group(golden, f"output/{truth}")
        np.testing.assert_allclose(
            found["correlation"], expected["corr_per_lead"], atol=2e-6
        )
        for name, theirs in (
            ("c_nino34_m", "corr_mean_C_Nino34_M"),
            ("c_nino34_wm", "weighted_mean_C_Nino34_WM"),
            ("nino34_rmse", "rmse_mean"),
        ):
            assert found[name] == pytest.approx(float(expected[theirs]), rel=2e-6)

    @pytest.mark.parametrize("leads", (3, 12, 18, 24))
    def test_weights(self, golden, leads):
        np.testing.assert_allclose(
            enso.lead_weights(leads),
            golden[f"output/default_weight_{leads}"],
            rtol=1e-6,
        )

    def test_24_leads(self, golden):
        state = moments_of(golden["input/nino24_pred"], golden["input/nino24_true"])
        correlation = enso.correlation(state)
        for kind, found in (
            ("none", correlation.sum()),
            ("default", 24 * enso.weighted_score(correlation)),
        ):
            score, rmse = golden[f"output/nino24/{kind}"]
            assert found == pytest.approx(float(score), rel=1e-6)
            assert enso.rmse(state).sum() == pytest.approx(float(rmse), rel=1e-6)

    def test_constant_forecast_scores_zero(self, golden):
        truth = golden["input/nino_label"]
        state = moments_of(np.full_like(truth, 0.1), truth)
        np.testing.assert_allclose(enso.correlation(state), 0, atol=1e-6)
        assert golden["output/constant_pred/acc_rmse"][0] == 0

    @pytest.mark.parametrize("case", range(3))
    def test_scores_of_the_wider_set(self, case):
        golden = golden_files.group(
            golden_files.load("x_metrics"), f"enso_score/{case}"
        )
        state = moments_of(golden["input/y_pred"], golden["input/y_true"])
        correlation = enso.correlation(state)
        leads = correlation.size
        for found, name in (
            (correlation.sum(), "acc_none"),
            (leads * enso.weighted_score(correlation), "acc_default"),
            (enso.rmse(state).sum(), "rmse_none"),
        ):
            assert found == pytest.approx(float(golden[f"output/{name}"]), rel=2e-6)

    def test_index_of_whole_fields(self):
        golden = golden_files.group(golden_files.load("x_metrics"), "sst_to_nino")
        index = enso.nino34(golden["input/sst_normalised"], icar_weights())
        index = enso.three_month_mean(index)
        np.testing.assert_allclose(index, golden["output/unnormalised"], atol=1e-6)
        np.testing.assert_allclose(
            SCALE * index + SST_MIN, golden["output/normalised"], atol=2e-5
        )

    def test_squared_error_of_whole_fields(self):
        path = golden_files.shared_file("golden", "metrics", "enso_nino34.npz")
        with np.load(path) as z:
            forecast, truth = z["input/pred_sst"], z["input/true_sst"]
            expected = float(z["output/mse_sst_normalised"])
        metric = enso.NinoSkill(icar_weights(), 14, scale=SCALE, offset=SST_MIN)
        batch = {"targets": truth[..., None]}
        state = metric.update(metric.init(), forecast[..., None], batch)
        assert metric.compute(state)["mse"] == pytest.approx(expected, rel=1e-6)


class TestLaws:
    def test_correlation_is_that_of_numpy(self):
        forecast, truth = series()
        found = skill(forecast, truth)["correlation_monthly"]
        pairs = zip(forecast.T, truth.T, strict=True)
        expected = [np.corrcoef(a, b)[0, 1] for a, b in pairs]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_correlation_ignores_offset_and_positive_scale(self):
        forecast, truth = series()
        found = skill(300 + 0.01 * forecast, truth)["correlation_monthly"]
        expected = skill(forecast, truth)["correlation_monthly"]
        np.testing.assert_allclose(found, expected, atol=3e-3)
        np.testing.assert_allclose(
            skill(-forecast, truth)["correlation_monthly"],
            -np.array(expected),
            atol=1e-6,
        )

    def test_a_perfect_forecast(self):
        _, truth = series()
        found = skill(truth, truth)
        np.testing.assert_allclose(found["correlation"], 1, atol=1e-6)
        assert found["c_nino34_m"] == pytest.approx(1, abs=1e-6)
        assert found["mse"] == found["nino34_rmse"] == 0

    @pytest.mark.parametrize("cut", (1, 7, 39))
    def test_batches_and_merges_make_no_difference(self, cut):
        forecast, truth = series()
        whole = skill(forecast, truth)
        metric = enso.NinoSkill(np.ones((1, 1)), 6)
        update = jax.jit(metric.update)
        parts = []
        for part in (slice(0, cut), slice(cut, None)):
            batch = {"targets": truth[part, :, None, None, None]}
            field = forecast[part, :, None, None, None]
            parts.append(update(metric.init(), field, batch))
        merged = metric.compute(metric.merge(metric.init(), metric.merge(*parts)))
        for name, value in whole.items():
            np.testing.assert_allclose(merged[name], value, rtol=1e-5, atol=1e-6)

    def test_many_small_batches_stay_accurate(self):
        forecast, truth = series(shape=(2000, 3))
        truth = truth + 27.0  # absolute temperatures: mean far above the deviations
        forecast = forecast + 27.0
        metric = enso.NinoSkill(np.ones((1, 1)), 3)
        update, state = jax.jit(metric.update), metric.init()
        for i in range(0, 2000, 20):
            batch = {"targets": truth[i : i + 20, :, None, None, None]}
            state = update(state, forecast[i : i + 20, :, None, None, None], batch)
        expected = [np.corrcoef(forecast[:, k], truth[:, k])[0, 1] for k in range(3)]
        found = metric.compute(state)["correlation_monthly"]
        np.testing.assert_allclose(found, expected, atol=2e-5)

    def test_padding_is_left_out(self):
        forecast, truth = series()
        valid = np.arange(40) < 25
        metric = enso.NinoSkill(np.ones((1, 1)), 6)
        padded = np.where(valid[:, None], forecast, np.nan)
        batch = {"targets": truth[:, :, None, None, None], "valid": valid}
        state = metric.update(metric.init(), padded[:, :, None, None, None], batch)
        expected = skill(forecast[:25], truth[:25])
        for name, value in metric.compute(state).items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-5)

    def test_given_indices_replace_those_of_the_targets(self):
        forecast, truth = series()
        metric = enso.NinoSkill(np.ones((1, 1)), 6)
        batch = {
            "targets": jnp.zeros((40, 6, 1, 1, 1)),
            "nino34": truth,
            "nino34_three_month": truth[:, :4],
        }
        state = metric.update(metric.init(), forecast[:, :, None, None, None], batch)
        found = metric.compute(state)
        expected = skill(forecast, truth)["correlation_monthly"]
        np.testing.assert_allclose(found["correlation_monthly"], expected, atol=1e-6)
        three = (forecast[:, :-2] + forecast[:, 1:-1] + forecast[:, 2:]) / 3
        expected = [np.corrcoef(three[:, k], truth[:, k])[0, 1] for k in range(4)]
        np.testing.assert_allclose(
            found["correlation_three_month"], expected, atol=1e-6
        )

    def test_index_months_choose_the_correlation(self):
        forecast, truth = series()
        three, one = skill(forecast, truth), skill(forecast, truth, index_months=1)
        assert three["correlation"] == three["correlation_three_month"]
        assert one["correlation"] == one["correlation_monthly"]
        assert one["c_nino34_m"] == three["c_nino34_m"]
        assert three["c_nino34_m"] == pytest.approx(np.mean(three["correlation"]))

    def test_units(self):
        forecast, truth = series()
        units = skill(forecast, truth, scale=4.0, offset=-1.0)
        kelvin = skill(forecast, truth, scale=4.0, mse_in_kelvin=True)
        assert kelvin["mse"] == pytest.approx(16 * units["mse"])
        expected = 4 * skill(forecast, truth)["nino34_rmse"]
        assert units["nino34_rmse"] == pytest.approx(expected, rel=1e-5)

    def test_land_may_hold_anything(self):
        fields = np.array([[1.0, 3.0], [np.nan, 100.0]])
        weights = np.array([[0.25, 0.75], [0, 0]])
        assert float(enso.nino34(fields, weights)) == 2.5


class TestDegenerate:
    def test_no_examples(self):
        metric = enso.NinoSkill(np.ones((1, 1)), 4)
        for value in metric.compute(metric.init()).values():
            assert np.all(np.isnan(value))

    def test_one_example_has_no_correlation(self):
        forecast, truth = series(shape=(1, 4))
        assert skill(forecast, truth)["correlation"] == [0, 0]

    def test_errors(self):
        with pytest.raises(ValueError, match="sum to 1; they sum to 2"):
            enso.NinoSkill(np.ones((1, 2)), 12)
        with pytest.raises(ValueError, match="index_months=2: expected 1 or 3"):
            enso.NinoSkill(np.ones((1, 1)), 12, index_months=2)
        with pytest.raises(ValueError, match="out_len=2 is too short"):
            enso.NinoSkill(np.ones((1, 1)), 2)


def test_the_verification_has_the_scores_of_the_metric():
    forecast, truth = (x[..., None, None, None] for x in series())
    labels = truth[:, 1:-1, 0, 0, 0] + 0.1
    labels[3, 2] = np.nan
    metric = enso.NinoSkill(np.ones((1, 1)), 6, 2.0, 0.3, mse_in_kelvin=True)
    batch = {"targets": truth, "nino34_three_month": labels}
    wanted = metric.compute(metric.update(metric.init(), forecast, batch))
    verification = metric.verification()
    state = verification.update(verification.init(), forecast, batch)
    sums = verification.sums(state)
    value = functools.partial(verification.value, sums=sums)
    correlation = value("correlation")  # [k, months]
    near = {"atol": 1e-6}
    np.testing.assert_allclose(correlation[:, 0], wanted["correlation_monthly"], **near)
    three_month = wanted["correlation_three_month"]
    np.testing.assert_allclose(correlation[:4, 1], three_month, **near)
    assert np.all(np.isnan(correlation[4:, 1]))
    np.testing.assert_allclose(value("c_nino34_m"), wanted["c_nino34_m"], **near)
    np.testing.assert_allclose(value("mse", add=("lead",)), wanted["mse"], rtol=1e-6)
    errors = value("index_rmse")[:4, 1]
    np.testing.assert_allclose(errors.mean(), wanted["nino34_rmse"], rtol=1e-6)
