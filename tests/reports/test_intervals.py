import numpy as np
import pytest

from earthformer_jax.data.references import persistence
from earthformer_jax.metrics.frames import FrameScores
from earthformer_jax.reports import intervals

METRIC = FrameScores(per_frame_sum=False)
COUNT, SAMPLES = 60, 400


class Examples:
    """Examples whose persistence has the error of one number each."""

    def __init__(self, errors):
        self.errors = np.asarray(errors, np.float32)

    def __len__(self):
        return len(self.errors)

    def __getitem__(self, i):
        field = np.zeros((1, 11, 11, 1), np.float32)
        return {"inputs": field, "targets": field + self.errors[i]}


def sampled(errors, block, **more):
    """Values of "mse": of all, then of the samples."""
    forecasts = {"persistence": persistence(1, 1)} | more
    sums = intervals.block_sums(METRIC, Examples(errors), forecasts, block)
    found = {}
    for name, own in sums.items():
        scores = intervals.sampled_scores(METRIC, own, SAMPLES, seed=0)
        found[name] = np.array([x["mse"] for x in scores])
    return found if more else found["persistence"]


@pytest.fixture(scope="module")
def errors():
    return np.random.default_rng(0).uniform(0.5, 1.5, COUNT)


@pytest.fixture(scope="module")
def independent(errors):
    return sampled(errors, 1)


def test_the_first_score_is_that_of_all_examples(errors, independent):
    assert independent[0] == pytest.approx(np.mean(errors**2), rel=1e-5)
    # 60 examples are 7 whole blocks of 8, and one of 4.
    assert sampled(errors, 8)[0] == pytest.approx(independent[0], rel=1e-5)


def test_the_spread_is_the_standard_error(errors, independent):
    expected = np.std(errors**2) / np.sqrt(COUNT)
    assert np.std(independent[1:]) == pytest.approx(expected, rel=0.15)


def test_blocks_of_equal_examples_count_once(errors, independent):
    repeated = np.repeat(errors, 4)
    np.testing.assert_allclose(sampled(repeated, 4), independent, rtol=1e-4)
    assert np.std(sampled(repeated, 1)[1:]) < 0.7 * np.std(independent[1:])


def test_forecasts_are_sampled_alike(errors):
    better = sampled(errors, 1, half=lambda batch: np.asarray(batch["targets"]) / 2)
    np.testing.assert_allclose(better["half"], better["persistence"] / 4, rtol=1e-4)
