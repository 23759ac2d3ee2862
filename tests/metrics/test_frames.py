import jax
import numpy as np
import pytest

from earthformer_jax.metrics.frames import FrameScores
from earthformer_jax.metrics.statistics.ssim import ssim
from tests import golden_files


def fields(seed=0, shape=(5, 3, 12, 14, 1)):
    rng = np.random.default_rng(seed)
    return rng.random((2, *shape)).astype(np.float32)


def scores(forecast, truth, batch_size=2, metric=None, **batch):
    metric = metric or FrameScores()
    state, update = metric.init(), jax.jit(metric.update)
    for i in range(0, len(truth), batch_size):
        part = {k: v[i : i + batch_size] for k, v in batch.items()}
        part["targets"] = truth[i : i + batch_size]
        state = update(state, forecast[i : i + batch_size], part)
    return metric.compute(state)


def test_sums_over_pixels_are_averaged_over_frames():
    forecast, truth = fields()
    error = forecast.astype(np.float64) - truth
    found = scores(forecast, truth)
    squared = (error**2).sum(axis=(2, 3, 4))
    absolute = np.abs(error).sum(axis=(2, 3, 4))
    assert found["mse"] == pytest.approx(squared.mean(), rel=1e-6)
    assert found["mae"] == pytest.approx(absolute.mean(), rel=1e-6)
    np.testing.assert_allclose(found["mse_by_lead"], squared.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(found["mae_by_lead"], absolute.mean(axis=0), rtol=1e-6)
    alike = ssim(forecast[..., 0], truth[..., 0])
    assert found["ssim"] == pytest.approx(float(alike.mean()), abs=1e-6)
    np.testing.assert_allclose(found["ssim_by_lead"], alike.mean(axis=0), atol=1e-6)


def test_perfect_forecasts():
    _, truth = fields()
    found = scores(truth, truth)
    assert found["mse"] == found["mae"] == 0
    assert found["ssim"] == pytest.approx(1, abs=1e-6)


def test_channels_are_averaged_and_means_can_be_had():
    forecast, truth = fields(shape=(4, 3, 12, 14, 2))
    error = forecast.astype(np.float64) - truth
    found = scores(forecast, truth)
    assert found["mse"] == pytest.approx(12 * 14 * np.mean(error**2), rel=1e-6)
    alike = [ssim(forecast[..., c], truth[..., c]).mean() for c in (0, 1)]
    assert found["ssim"] == pytest.approx(float(np.mean(alike)), abs=1e-6)
    plain = scores(forecast, truth, metric=FrameScores(per_frame_sum=False))
    assert plain["mse"] == pytest.approx(np.mean(error**2), rel=1e-6)


def test_batches_padding_and_merging_make_no_difference():
    forecast, truth = fields()
    whole = scores(forecast, truth, batch_size=5)
    padded = np.concatenate([forecast, np.full_like(forecast[:1], np.nan)])
    valid = np.arange(6) < 5
    found = scores(padded, np.concatenate([truth, truth[:1]]), valid=valid)
    metric = FrameScores()
    a, b = (
        metric.update(metric.init(), forecast[part], {"targets": truth[part]})
        for part in (slice(0, 1), slice(1, 5))
    )
    merged = metric.compute(metric.merge(a, b))
    for name, value in whole.items():
        near = dict(rtol=1e-6, atol=1e-6 * name.startswith("ssim"), err_msg=name)
        np.testing.assert_allclose(found[name], value, **near)
        np.testing.assert_allclose(merged[name], value, **near)


def test_unknown_pixels_are_left_out_and_their_frames_have_no_ssim():
    forecast, truth = fields()
    observed = np.ones(truth.shape, bool)
    observed[0, 1, :6] = False  # half a frame
    observed[:, 2] = False  # a whole lead
    error = np.where(observed, forecast.astype(np.float64) - truth, np.nan)
    found = scores(forecast, truth, observed=observed)
    assert found["mse"] == pytest.approx(12 * 14 * np.nanmean(error**2), rel=1e-6)
    assert np.isnan(found["mse_by_lead"][2]) and np.isnan(found["ssim_by_lead"][2])
    alike = np.asarray(ssim(forecast[..., 0], truth[..., 0]))
    expected = np.mean(np.append(alike[:, 0], alike[1:, 1]))
    assert found["ssim"] == pytest.approx(float(expected), abs=1e-6)


def test_small_frames_have_no_ssim_and_nothing_gives_nan():
    found = scores(*fields(shape=(2, 3, 10, 64, 1)))
    assert sorted(found) == ["mae", "mae_by_lead", "mse", "mse_by_lead"]
    nothing = FrameScores().compute(FrameScores().init())
    assert np.isnan(nothing["mse"]) and np.isnan(nothing["mae"])


def test_sums_stay_accurate_over_many_examples():
    """A hundred thousand examples of a large error, their errors summed in float32."""
    metric = FrameScores()
    rng = np.random.default_rng(0)
    forecast = rng.random((100, 2, 4, 4, 1)).astype(np.float32)
    truth = np.zeros_like(forecast)

    def many(state):
        def step(_, state):
            return metric.update(state, forecast, {"targets": truth})

        return jax.lax.fori_loop(0, 1000, step, state)

    found = metric.compute(jax.jit(many)(metric.init()))
    expected = 16 * np.mean(forecast.astype(np.float64) ** 2)
    assert found["mse"] == pytest.approx(expected, rel=2e-7)


def test_reference_values():
    path = golden_files.shared_file("golden", "metrics", "frame_metrics.npz")
    with np.load(path) as z:
        forecast, truth = z["input/pred"][..., None], z["input/target"][..., None]
        mse, mae = (float(z[f"output/earthformer/frame_{n}"]) for n in ("mse", "mae"))
        alike = float(z["output/torchmetrics_1.3.2/ssim_all_range1"])
    found = scores(forecast, truth)
    assert found["mse"] == pytest.approx(mse, rel=1e-7)
    assert found["mae"] == pytest.approx(mae, rel=1e-7)
    assert found["ssim"] == pytest.approx(alike, abs=1e-6)
