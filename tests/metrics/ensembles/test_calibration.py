import numpy as np
import pytest

from earthformer_jax.metrics.ensembles.calibration import brier_parts, flatness


def histograms(spread, repeats, blocks=60, members=9, cells=40):
    """Ranks of `cells` targets in each block, every one counted `repeats` times."""
    rng = np.random.default_rng(0)
    drawn = spread * rng.normal(size=(members, blocks, cells))
    ranks = np.sum(drawn < rng.normal(size=(blocks, cells)), axis=0)
    found = [np.bincount(r, minlength=members + 1) for r in ranks]
    return repeats * np.array(found)


@pytest.mark.parametrize("repeats", [1, 100])
def test_flat_histograms_pass_and_overconfident_ones_fail(repeats):
    """Values that are counted often are not taken for more than they are."""
    flat = flatness(histograms(1.0, repeats))
    assert flat["p_value"] > 0.05
    assert flat["effective"] == pytest.approx(60 * 40, rel=0.15)
    assert flatness(histograms(0.7, repeats))["p_value"] < 1e-6


def test_few_blocks_say_nothing():
    assert np.isnan(flatness(histograms(1.0, 1, blocks=7))["p_value"])


def test_parts_add_up_to_the_mean_squared_error_of_probabilities():
    rng = np.random.default_rng(1)
    number = rng.integers(0, 5, size=500)
    event = rng.random(500) < 0.1 + 0.15 * number
    said = np.bincount(number, minlength=6)  # all five members: never
    came = np.bincount(number, event, minlength=6)
    parts = brier_parts(said, came)
    assert parts["brier"] == pytest.approx(np.mean((number / 5 - event) ** 2))
    assert parts["uncertainty"] == pytest.approx(event.mean() * (1 - event.mean()))
    assert min(parts.values()) >= 0


def test_without_forecasts_there_is_no_score():
    assert np.isnan(brier_parts(np.zeros((2, 4)), np.zeros((2, 4)))["brier"]).all()
