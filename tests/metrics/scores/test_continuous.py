import numpy as np
import pytest

from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.statistics.errors import Errors
from tests import golden_files

SUMS = dict(error=-4.0, squared=8.0, absolute=6.0, weight=2.0, frames=0.5)
SUMS = {name: np.array([x, 0.0]) for name, x in SUMS.items()}


@pytest.mark.parametrize(
    "name, value",
    [("mse", 4), ("mae", 3), ("rmse", 2), ("bias", -2)]
    + [("frame_mse", 16), ("frame_mae", 12), ("psnr", -10 * np.log10(4))],
)
def test_scores_and_nothing_to_score(name, value):
    found = getattr(continuous, name)(SUMS)
    np.testing.assert_allclose(found, [value, np.nan], rtol=1e-12)


def test_a_perfect_forecast_has_an_infinite_signal_to_noise_ratio():
    perfect = {"squared": np.zeros(2), "weight": np.array([3.0, 0.0])}
    np.testing.assert_array_equal(continuous.psnr(perfect), [np.inf, np.nan])


def test_signal_to_noise_ratios_of_frames_are_those_of_another_implementation():
    path = golden_files.shared_file("golden", "metrics", "frame_metrics.npz")
    with np.load(path) as z:
        forecast, truth = (np.clip(z[f"input/{n}"], 0, 1) for n in ("pred", "target"))
        wanted = z["output/openstl/psnr_per_frame"]
    found = Errors()(forecast[..., None], {"targets": truth[..., None]})
    sums = {name: np.asarray(x) for name, x in found.items()}
    np.testing.assert_allclose(continuous.psnr(sums), wanted, rtol=1e-6)
