"""CRPS of an ensemble: limits of alpha, closed forms, equal rights of members."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax import losses
from earthformer_jax.losses.crps import almost_fair_crps

RNG = np.random.default_rng(0)
MEMBERS = RNG.normal(size=(4, 50)).astype(np.float32)
TARGET = RNG.normal(size=50).astype(np.float32)


def of_the_cdf(members, target):
    """The integral of (F(x) - 1[x >= y])^2 over x, of the empirical distribution."""
    total = 0.0
    points = np.sort([*members, target])
    for left, right in itertools.pairwise(points):
        below = np.mean(members <= left)
        total += (right - left) * (below - (left >= target)) ** 2
    return total


def test_alpha_0_is_the_crps_of_the_empirical_distribution():
    want = [of_the_cdf(MEMBERS[:, i], TARGET[i]) for i in range(50)]
    np.testing.assert_allclose(almost_fair_crps(MEMBERS, TARGET, 0), want, rtol=1e-4)


def test_alpha_1_is_fair():
    """Members of the distribution of the target have the score of that distribution.

    That of the standard normal distribution is 1 / sqrt(pi), whatever their number.
    """
    rng = np.random.default_rng(1)
    for size in (2, 3):
        drawn = rng.normal(size=(size + 1, 200_000)).astype(np.float32)
        fair = almost_fair_crps(drawn[1:], drawn[0], 1).mean()
        np.testing.assert_allclose(fair, np.pi**-0.5, atol=0.006)
        plain = almost_fair_crps(drawn[1:], drawn[0], 0).mean()
        np.testing.assert_allclose(plain, np.pi**-0.5 * (1 + 1 / size), atol=0.006)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_formula(size):
    x, total = MEMBERS[:size, 0], 0.0
    for j, k in np.ndindex(size, size):
        total += abs(x[j] - x[k])
    factor = (1 - 0.05 / size) / (2 * size * (size - 1))
    want = np.mean(np.abs(x - TARGET[0])) - factor * total
    got = almost_fair_crps(MEMBERS[:size, :1], TARGET[:1])
    np.testing.assert_allclose(got, [want], rtol=1e-5)


def test_a_single_member_has_the_absolute_error():
    for alpha in (0, 0.95, 1):
        got = almost_fair_crps(MEMBERS[:1], TARGET, alpha)
        np.testing.assert_array_equal(got, np.abs(MEMBERS[0] - TARGET))


def test_members_are_exchangeable():
    def loss(members):
        return almost_fair_crps(members, TARGET).sum()

    order = np.array([2, 0, 3, 1])
    value, gradient = jax.value_and_grad(loss)(MEMBERS)
    shuffled, gradient_of_shuffled = jax.value_and_grad(loss)(MEMBERS[order])
    np.testing.assert_allclose(shuffled, value, rtol=1e-6)
    np.testing.assert_allclose(gradient_of_shuffled, gradient[order], atol=1e-6)


def test_equal_members_have_equal_gradients():
    equal = jnp.zeros((3, 1))
    gradient = jax.grad(lambda x: almost_fair_crps(x, jnp.ones(1)).sum())(equal)
    np.testing.assert_allclose(gradient, np.full((3, 1), -1 / 3), rtol=1e-6)


def test_no_members_are_refused():
    with pytest.raises(ValueError, match="at least one member of the shape"):
        almost_fair_crps(MEMBERS[:0], TARGET)
    with pytest.raises(ValueError, match="of the shape of the target, .49,"):
        almost_fair_crps(MEMBERS, TARGET[1:])


def test_numpy_loop():
    rng = np.random.default_rng(2)
    members = rng.normal(size=(2, 3, 2, 4, 5, 1)).astype(np.float32)
    targets = rng.normal(size=(3, 2, 4, 5, 1)).astype(np.float32)
    weights = rng.uniform(size=(2, 4, 5, 1)).astype(np.float32)
    weights[0, :2] = 0
    observed = rng.random(targets.shape) < 0.7
    total = norm = 0.0
    for b, t, h, w in np.ndindex(3, 2, 4, 5):
        x, y = members[:, b, t, h, w, 0], targets[b, t, h, w, 0]
        if observed[b, t, h, w, 0]:
            score = np.mean(np.abs(x - y)) - 0.7 * abs(x[0] - x[1]) / 2
            total += weights[t, h, w, 0] * score
        norm += weights[t, h, w, 0]
    loss = losses.create_loss("afcrps", alpha=0.4)
    got = loss(members, targets, weights, observed)
    np.testing.assert_allclose(got, total / norm, rtol=1e-5)
