import numpy as np
import pytest

from earthformer_jax.metrics.ensembles.calibration import brier_parts, flatness, roc


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


def test_roc_of_warnings_by_hand():
    """Two members; events after 0, 1 and 2 members: 1, 2, 3 of 4, 4 and 4 cases."""
    found = roc([4, 4, 4], [1, 2, 3])
    np.testing.assert_allclose(found["hit_rate"], [0, 3 / 6, 5 / 6, 1])
    np.testing.assert_allclose(found["false_alarm_rate"], [0, 1 / 6, 3 / 6, 1])
    # The probability that an event was given more members than another case: of 36
    # pairs, 3 * 5 + 2 * 3 are in order and 3 + 4 + 3 are ties.
    assert found["area"] == pytest.approx((21 + 10 / 2) / 36)


def test_roc_of_perfect_reversed_and_ignorant_forecasts():
    for said, came, area in (
        ([5, 0, 5], [0, 0, 5], 1),
        ([5, 0, 5], [5, 0, 0], 0),
        ([0, 9, 0], [0, 3, 0], 0.5),
    ):
        assert roc(said, came)["area"] == pytest.approx(area)


def test_roc_needs_events_and_other_cases():
    said = np.array([[3.0, 1.0], [3.0, 1.0], [0.0, 0.0]])
    came = np.array([[0.0, 0.0], [3.0, 1.0], [0.0, 0.0]])
    assert np.isnan(roc(said, came)["area"]).all()
