import numpy as np
import pytest

from earthformer_jax.metrics.ensembles import crps as lib
from earthformer_jax.metrics.ensembles.crps import mean_distance


def crps(members, target, fair=True):
    return np.asarray(lib.crps(members, target, fair=fair), np.float64)


def crps_gaussian(mean, std, target):
    return np.asarray(lib.crps_gaussian(mean, std, target), np.float64)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_distance_is_the_mean_over_pairs_of_different_members():
    members = normal(7, 5)
    pairs = [abs(a - b) for i, a in enumerate(members) for b in members[:i]]
    np.testing.assert_allclose(mean_distance(members), np.mean(pairs, 0), rtol=1e-5)


@pytest.mark.parametrize("fair", [True, False])
def test_a_single_member_scores_its_absolute_error(fair):
    members, target = normal(1, 9), normal(9, seed=1)
    expected = np.abs(members[0] - target)
    np.testing.assert_allclose(crps(members, target, fair=fair), expected, rtol=1e-6)


@pytest.mark.parametrize("fair", [True, False])
def test_the_order_of_members_does_not_matter(fair):
    members, target = normal(6, 9), normal(9, seed=1)
    found = crps(members[[3, 0, 5, 1, 4, 2]], target, fair=fair)
    np.testing.assert_allclose(found, crps(members, target, fair=fair), rtol=1e-4)


def test_plain_score_is_the_integral_over_the_step_function():
    members, target = normal(5), np.float32(0.3)
    x = np.linspace(-6, 6, 600_001)
    below = np.mean(members[:, None] <= x, axis=0)
    integral = np.sum((below - (target <= x)) ** 2) * (x[1] - x[0])
    assert crps(members, target, fair=False) == pytest.approx(integral, abs=1e-4)


def test_fair_score_of_few_draws_is_that_of_the_distribution():
    """Two draws are as good as many on average; the plain score is worse by a third."""
    target = 1.3 * normal(200_000, seed=1)
    exact = np.mean(crps_gaussian(0.0, 1.0, target))
    few = normal(2, 200_000, seed=2)
    assert np.mean(crps(few, target)) == pytest.approx(exact, rel=0.01)
    assert np.mean(crps(few, target, fair=False)) > 1.2 * exact


def test_gaussian_score_of_the_truth_is_known():
    """N(0, s) scores s / sqrt(pi) on average; a single value its absolute error."""
    target = 0.7 * normal(400_000)
    found = np.mean(crps_gaussian(0.0, 0.7, target))
    assert found == pytest.approx(0.7 / np.sqrt(np.pi), rel=0.005)
    np.testing.assert_allclose(crps_gaussian(1.0, 0.0, target), abs(target - 1), 1e-5)
    for other in (0.5, 1.0):
        assert np.mean(crps_gaussian(0.0, other, target)) > found
