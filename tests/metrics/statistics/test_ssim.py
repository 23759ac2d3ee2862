import json

import jax
import numpy as np
import pytest

from earthformer_jax.metrics.statistics.ssim import global_range, has_ssim, ssim, window
from tests import golden_files

# torchmetrics: version, whether it leaves out the border, what range it takes if none
# is given.
VERSIONS = (
    ("0.9.3", True, "global"),
    ("0.11.4", True, "batch"),
    ("1.3.2", True, "batch"),
    ("1.9.0", False, "batch"),
)


def frames(seed=0, shape=(2, 16, 13)):
    rng = np.random.default_rng(seed)
    target = rng.random(shape)
    return target + 0.2 * rng.normal(size=shape), target


def direct(x, y, data_range):
    """SSIM of two frames, window by window in float64."""
    weights = np.outer(window(), window())
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = np.sum(weights * a), np.sum(weights * b)
            var_a = np.sum(weights * (a - mean_a) ** 2)
            var_b = np.sum(weights * (b - mean_b) ** 2)
            both = np.sum(weights * (a - mean_a) * (b - mean_b))
            values.append(
                (2 * mean_a * mean_b + c1)
                / (mean_a**2 + mean_b**2 + c1)
                * (2 * both + c2)
                / (var_a + var_b + c2)
            )
    return np.mean(values)


def test_it_is_the_formula():
    forecast, target = frames()
    expected = [direct(*pair, 1.0) for pair in zip(forecast, target, strict=True)]
    np.testing.assert_allclose(ssim(forecast, target), expected, atol=2e-6)


@pytest.mark.parametrize("crop", (True, False))
def test_equal_frames_have_one_and_others_less(crop):
    forecast, target = frames()
    np.testing.assert_allclose(ssim(target, target, crop=crop), 1, atol=1e-6)
    assert np.all(ssim(forecast, target, crop=crop) < 0.95)


@pytest.mark.parametrize("crop", (True, False))
def test_symmetric_and_blind_to_flips_and_units(crop):
    forecast, target = frames()
    found = ssim(forecast, target, crop=crop)
    np.testing.assert_allclose(ssim(target, forecast, crop=crop), found, atol=1e-6)
    turned = ssim(
        np.flip(forecast, -1).swapaxes(-1, -2),
        np.flip(target, -1).swapaxes(-1, -2),
        crop=crop,
    )
    np.testing.assert_allclose(turned, found, atol=1e-6)
    larger = ssim(255 * forecast, 255 * target, 255.0, crop=crop)
    np.testing.assert_allclose(larger, found, atol=1e-5)


def test_leading_axes_and_a_range_for_each():
    forecast, target = frames(shape=(2, 3, 12, 12))
    ranges = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    found = jax.jit(ssim)(forecast, target, ranges)
    assert found.shape == (2, 3) and found.dtype == np.float32
    for i in np.ndindex(2, 3):
        alone = ssim(forecast[i], target[i], ranges[i])
        assert alone == pytest.approx(float(found[i]), abs=1e-6)


def test_frames_below_the_window_are_refused():
    assert has_ssim(11, 11) and not has_ssim(10, 64)
    with pytest.raises(ValueError, match="11 x 11 pixels or more; these have 10 x 64"):
        jax.jit(ssim)(np.zeros((1, 10, 64)), np.zeros((1, 10, 64)))


class TestReferenceValues:
    """Numbers of torchmetrics."""

    @pytest.fixture
    def golden(self):
        path = golden_files.shared_file("golden", "metrics", "frame_metrics.npz")
        with np.load(path) as z:
            data = {name: z[name] for name in z.files}
        assert "torchmetrics" in json.loads(str(data["config"]))
        return data

    @pytest.mark.parametrize("version, crop, over", VERSIONS)
    def test_all_conventions(self, golden, version, crop, over):
        forecast, target = golden["input/pred"], golden["input/target"]

        def expected(name):
            return golden[f"output/torchmetrics_{version}/{name}"]

        def found(part=slice(None), data_range=None):
            x, y = forecast[part], target[part]
            return ssim(x, y, data_range or global_range(x, y), crop=crop)

        np.testing.assert_allclose(
            np.ravel(found(data_range=1.0)),
            expected("ssim_per_frame_range1"),
            atol=1e-6,
        )
        assert np.mean(found()) == pytest.approx(float(expected("ssim_all")), abs=1e-6)
        steps = [found(part) for part in (slice(0, 2), slice(2, 4))]
        np.testing.assert_allclose(
            np.mean(steps, axis=(1, 2)), expected("ssim_steps"), atol=1e-6
        )
        epoch = np.mean(found()) if over == "global" else np.mean(steps)
        assert epoch == pytest.approx(float(expected("ssim_epoch")), abs=1e-6)
        oblong = ssim(golden["input/rect_pred"], golden["input/rect_target"], crop=crop)
        assert np.mean(oblong) == pytest.approx(
            float(expected("ssim_rect_range1")), abs=1e-6
        )

    def test_the_number_of_the_paper(self, golden):
        forecast, target = golden["input/pred"], golden["input/target"]
        found = np.mean(ssim(forecast, target, global_range(forecast, target)))
        assert found == pytest.approx(0.59493, abs=5e-6)
