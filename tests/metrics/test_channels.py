import jax
import numpy as np
import pytest

from earthformer_jax.metrics.channels import ChannelScores


def fields(seed=0, shape=(5, 3, 4, 6, 2)):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, *shape)).astype(np.float32)


def scores(metric, forecast, truth, batch_size=2, **batch):
    state, update = metric.init(), jax.jit(metric.update)
    for i in range(0, len(truth), batch_size):
        part = {k: v[i : i + batch_size] for k, v in batch.items()}
        part["targets"] = truth[i : i + batch_size]
        state = update(state, forecast[i : i + batch_size], part)
    return metric.compute(state)


def test_errors_of_all_channels_and_of_each_in_its_units():
    forecast, truth = fields()
    error = forecast.astype(np.float64) - truth
    found = scores(ChannelScores(("T", "P"), (3.0, -0.5)), forecast, truth)
    assert found["mse"] == pytest.approx(np.mean(error**2), rel=1e-6)
    assert found["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-6)
    each = np.sqrt(np.mean(error**2, axis=(0, 1, 2, 3)))
    assert found["rmse_T"] == pytest.approx(3.0 * each[0], rel=1e-6)
    assert found["rmse_P"] == pytest.approx(0.5 * each[1], rel=1e-6)
    np.testing.assert_allclose(
        found["mse_by_lead"], np.mean(error**2, axis=(0, 2, 3, 4)), rtol=1e-6
    )


def test_weights_are_relative_and_zero_hides_anything():
    forecast, truth = fields()
    weights = np.cos(np.linspace(-1, 1, 4))[:, None, None] * np.array([1.0, 3.0])
    weights[0] = 0
    truth[:, :, 0] = np.nan
    error = np.nan_to_num(forecast.astype(np.float64) - truth)
    full = np.broadcast_to(weights, error.shape)
    for scale in (1, 50):
        metric = ChannelScores(("T", "P"), weights=scale * weights)
        found = scores(metric, forecast, truth)
        expected = np.average(error**2, weights=full)
        assert found["mse"] == pytest.approx(expected, rel=1e-6)
        expected = np.sqrt(np.average(error[..., 1] ** 2, weights=full[..., 1]))
        assert found["rmse_P"] == pytest.approx(expected, rel=1e-6)


def test_only_what_is_observed_counts():
    forecast, truth = fields()
    observed = np.random.default_rng(1).random(truth.shape) > 0.3
    observed[1] = False  # a whole example
    observed[:, 2] = False  # a whole lead
    error = np.where(observed, forecast.astype(np.float64) - truth, np.nan)
    metric = ChannelScores(("T", "P"))
    found = scores(metric, forecast, truth, observed=observed)
    assert found["mse"] == pytest.approx(np.nanmean(error**2), rel=1e-6)
    assert np.isnan(found["mse_by_lead"][2])
    keep = np.arange(5) != 1
    without = scores(metric, forecast[keep], truth[keep], observed=observed[keep])
    assert without["mse"] == pytest.approx(found["mse"], rel=1e-6)


def test_padding_batches_and_merging_make_no_difference():
    forecast, truth = fields()
    metric = ChannelScores(("T", "P"))
    whole = scores(metric, forecast[:4], truth[:4], batch_size=4)
    forecast[4] = np.nan
    padded = scores(metric, forecast, truth, valid=np.arange(5) < 4)
    a, b = (
        metric.update(metric.init(), forecast[part], {"targets": truth[part]})
        for part in (slice(0, 1), slice(1, 4))
    )
    merged = metric.compute(metric.merge(a, b))
    for name, value in whole.items():
        np.testing.assert_allclose(padded[name], value, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(merged[name], value, rtol=1e-6, err_msg=name)


def test_sums_stay_accurate_over_many_examples():
    metric = ChannelScores(("T", "P"))
    forecast, truth = fields(shape=(100, 1, 2, 2, 2))

    def many(state):
        def step(_, state):
            return metric.update(state, forecast, {"targets": truth})

        return jax.lax.fori_loop(0, 1000, step, state)

    found = metric.compute(jax.jit(many)(metric.init()))
    expected = np.mean((forecast.astype(np.float64) - truth) ** 2)
    assert found["mse"] == pytest.approx(expected, rel=2e-7)


def test_nothing_gives_nan():
    metric = ChannelScores(("T",))
    found = metric.compute(metric.init())
    assert all(np.isnan(found[name]) for name in ("mse", "mae", "rmse_T"))
    assert found["mse_by_lead"] == []


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="name every channel"):
        ChannelScores(())
    with pytest.raises(ValueError, match="has 1 values for the 2 channels"):
        ChannelScores(("T", "P"), (1.0,))
    with pytest.raises(ValueError, match="weights of all cells are zero"):
        ChannelScores(("T",), weights=np.zeros((1, 1, 1, 1)))
    metric = ChannelScores(("T",))
    forecast, truth = fields()
    with pytest.raises(ValueError, match="targets have 2 channels; the scores name 1"):
        metric.update(metric.init(), forecast, {"targets": truth})
