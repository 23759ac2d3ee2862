import jax
import numpy as np
import pytest

from earthformer_jax.metrics import pixel


def fields(seed=0, count=5):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(2, count, 3, 4, 5, 1)).astype(np.float32)


def test_mean_errors_over_batches():
    forecast, truth = fields()
    metric = pixel.PixelError()
    state = metric.init()
    for part in (slice(0, 2), slice(2, 5)):
        batch = {"targets": truth[part]}
        state = jax.jit(metric.update)(state, forecast[part], batch)
    found = metric.compute(state)
    assert found["mse"] == pytest.approx(np.mean((forecast - truth) ** 2), rel=1e-6)
    assert found["mae"] == pytest.approx(np.mean(np.abs(forecast - truth)), rel=1e-6)


def test_merge_is_the_same_as_one_pass():
    forecast, truth = fields()
    metric = pixel.PixelError()
    a, b = (
        metric.update(metric.init(), forecast[part], {"targets": truth[part]})
        for part in (slice(0, 1), slice(1, 5))
    )
    whole = metric.update(metric.init(), forecast, {"targets": truth})
    merged = metric.compute(metric.merge(a, b))
    for name, value in metric.compute(whole).items():
        assert merged[name] == pytest.approx(value, rel=1e-6)


def test_weights_are_relative_and_zero_hides_anything():
    forecast, truth = fields()
    ocean = np.random.default_rng(1).random((4, 5)) > 0.4
    truth = np.where(ocean[..., None], truth, np.nan)
    metric = pixel.PixelError(7.0 * ocean[None, :, :, None])
    found = metric.compute(metric.update(metric.init(), forecast, {"targets": truth}))
    assert found["mse"] == pytest.approx(np.nanmean((forecast - truth) ** 2), rel=1e-6)


def test_padding_is_left_out():
    forecast, truth = fields()
    forecast[3:] = np.nan
    valid = np.array([True, True, True, False, False])
    metric = pixel.PixelError()
    batch = {"targets": truth, "valid": valid}
    found = metric.compute(metric.update(metric.init(), forecast, batch))
    expected = np.mean((forecast[:3] - truth[:3]) ** 2)
    assert found["mse"] == pytest.approx(expected, rel=1e-6)


def test_nothing_gives_nan_and_zero_weights_are_refused():
    metric = pixel.PixelError()
    assert all(np.isnan(v) for v in metric.compute(metric.init()).values())
    with pytest.raises(ValueError, match="weights of all cells are zero"):
        pixel.PixelError(np.zeros((3, 4, 5, 1)))


def test_only_what_is_observed_counts_and_empty_examples_do_not():
    forecast, truth = fields()
    observed = np.random.default_rng(2).random(truth.shape) > 0.4
    observed[1] = False
    metric = pixel.PixelError()
    batch = {"targets": truth, "observed": observed}
    found = metric.compute(metric.update(metric.init(), forecast, batch))
    squared = np.where(observed, (forecast - truth) ** 2, np.nan)[[0, 2, 3, 4]]
    expected = np.mean(np.nanmean(squared, axis=(1, 2, 3, 4)))
    assert found["mse"] == pytest.approx(expected, rel=1e-6)
    weights = np.zeros((4, 5))
    weights[2:] = 1
    metric = pixel.PixelError(weights[None, :, :, None])
    observed[:, :, 2:] = False  # nothing is left where the weights are
    found = metric.compute(metric.update(metric.init(), forecast, batch))
    assert np.isnan(found["mse"])
