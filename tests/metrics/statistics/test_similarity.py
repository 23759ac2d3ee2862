import numpy as np
import pytest

from earthformer_jax.metrics.contract import dims_of
from earthformer_jax.metrics.statistics.similarity import Similarity
from earthformer_jax.metrics.statistics.ssim import ssim

RNG = np.random.default_rng(0)
FORECAST, TRUTH = RNG.random((2, 3, 2, 12, 11, 2)).astype(np.float32)


def test_frames_with_unknown_pixels_are_left_out():
    observed = np.ones(TRUTH.shape, bool)
    observed[1, 0, 5, 5, 1] = False
    batch = {"targets": TRUTH, "observed": observed, "valid": np.arange(3) < 2}
    apart = Similarity((1.0, 2.0), ("a", "b"))
    assert dims_of(apart) == ("lead", "variable")
    found = apart(FORECAST, batch)
    frames = np.ones((3, 2, 2))
    frames[2] = frames[1, 0, 1] = 0
    np.testing.assert_array_equal(found["frames"], frames)
    planes = np.moveaxis(FORECAST, -1, 2), np.moveaxis(TRUTH, -1, 2)
    alike = np.asarray(ssim(*planes, np.array([1.0, 2.0], np.float32)))
    np.testing.assert_allclose(found["ssim"], alike * frames, rtol=1e-6)
    together = Similarity()(FORECAST, batch)
    np.testing.assert_array_equal(together["frames"], frames.sum(axis=2))


def test_small_frames_have_none_and_other_channels_are_refused():
    small = Similarity()(FORECAST[:, :, :10], {"targets": TRUTH[:, :, :10]})
    assert not np.any(small["ssim"]) and not np.any(small["frames"])
    with pytest.raises(ValueError, match="2 channels; the scores name 1: a"):
        Similarity(variables=("a",))(FORECAST, {"targets": TRUTH})
