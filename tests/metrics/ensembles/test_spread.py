import jax
import numpy as np
import pytest

from earthformer_jax.metrics.ensembles import spread
from earthformer_jax.metrics.ensembles.crps import crps

SHAPE = (200, 3, 4, 5, 2)
FACTOR = np.array([[0.5, 1.0], [1.7, 0.8], [3.0, 1.3]])  # [k, c]


def targets_and_members(size=24):
    """Members whose departures are too small by `FACTOR`."""
    rng = np.random.default_rng(0)
    centre = rng.normal(size=SHAPE)
    targets = centre + rng.normal(size=SHAPE)
    noise = rng.normal(size=(size, *SHAPE))
    members = (
        centre
        + noise.mean(axis=0)
        + (noise - noise.mean(axis=0)) / FACTOR[:, None, None]
    )
    return targets.astype(np.float32), members.astype(np.float32)


@pytest.fixture(scope="module")
def case():
    targets, members = targets_and_members()
    targets[:, :, 0] = np.nan
    weights = np.ones((1, 4, 5, 1))
    weights[:, 0] = 0
    terms = jax.jit(lambda x, batch: spread.terms(x, batch, weights))
    total: dict = {}
    for part in (slice(0, 100), slice(100, 200)):
        found = terms(members[:, part], {"targets": targets[part]})
        total = {k: total.get(k, 0) + np.asarray(v) for k, v in found.items()}
    return targets, members, total


def test_the_factor_that_was_lost_is_found(case):
    factors, score = spread.best(case[2])
    np.testing.assert_allclose(factors, FACTOR, rtol=0.06)
    assert np.all(score[1] <= score[0])


@pytest.mark.parametrize("size", [2, 5])
def test_reliable_members_keep_their_spread_however_few_they_are(size):
    rng = np.random.default_rng(1)
    shape = (4000, 1, 3, 3, 1)
    members = rng.normal(size=(size, *shape)).astype(np.float32)
    truth = rng.normal(size=shape).astype(np.float32)
    found = spread.terms(members, {"targets": truth}, np.ones(1))
    factors, score = spread.best(jax.device_get(found))
    assert factors == pytest.approx(1, abs=0.04)
    expected = np.asarray(crps(members, truth), np.float64).mean()
    assert score[0] == pytest.approx(expected, rel=1e-4)


def test_what_is_unknown_or_has_no_spread_stays_as_it_is(case):
    total = {k: v.copy() for k, v in case[2].items()}
    for name in total:
        total[name][..., 0, :] = 0
    total["distance"][1, 1] = 0
    factors, score = spread.best(total)
    assert np.all(factors[0] == 1) and factors[1, 1] == 1
    assert np.isnan(score[:, 0]).all() and score[0, 1, 1] == score[1, 1, 1]


def test_the_best_factor_may_be_at_the_end_of_those_tried(case):
    members = 100 * (case[1] - case[1].mean(axis=0)) + case[1].mean(axis=0)
    truth = np.nan_to_num(case[0])
    found = spread.terms(members, {"targets": truth}, np.ones(1))
    factors, _ = spread.best(jax.device_get(found))
    assert factors == pytest.approx(spread.FACTORS[0], rel=0.1)


def uneven(seed=0, examples=300):
    """Reliable members, whose variance differs from cell to cell, and the truth."""
    rng = np.random.default_rng(seed)
    size = np.linspace(0.5, 2, 12).reshape(1, 3, 4, 1)
    truth = size * rng.normal(size=(examples, 1, 3, 4, 1))
    members = size * rng.normal(size=(16, examples, 1, 3, 4, 1))
    return members.astype(np.float32), truth.astype(np.float32)


class TestCells:
    def test_the_factors_that_were_lost_are_found(self):
        members, truth = uneven()
        wanted = np.linspace(2, 0.5, 12).reshape(1, 3, 4, 1)
        found = spread.terms(members / wanted, {"targets": truth}, np.ones(1))
        factors = spread.by_cell(jax.device_get(found), np.ones(1), 0.0)
        np.testing.assert_allclose(factors, wanted, rtol=0.15)
        assert np.mean(np.log(factors / wanted)) == pytest.approx(0, abs=0.02)

    def test_a_strong_prior_gives_that_of_the_frame(self):
        members, truth = uneven()
        found = jax.device_get(
            spread.terms(members / 3, {"targets": truth}, np.ones(1))
        )
        factors = spread.by_cell(found, np.ones(1), 1e9)
        assert np.ptp(factors) < 1e-4 and factors.mean() == pytest.approx(3, rel=0.05)

    def test_what_is_unknown_or_has_no_spread_is_as_its_frame(self):
        members, truth = uneven()
        weights = np.ones((1, 3, 4, 1))
        weights[:, 0] = 0
        members[..., 1, 1, :] = 0.3
        truth[..., 0, :, :] = np.nan
        found = jax.device_get(spread.terms(members, {"targets": truth}, weights))
        factors = spread.by_cell(found, weights, 10.0)
        assert factors[0, 0] == pytest.approx(factors[0, 1, 1, 0], rel=1e-6)
        assert np.isfinite(factors).all()
        nothing = {name: np.zeros_like(x) for name, x in found.items()}
        assert np.all(spread.by_cell(nothing, weights, 10.0) == 1)

    def test_the_score_of_factors(self):
        """1 changes nothing; others are those of members that were moved."""
        members, truth = uneven(examples=2000)
        factors = np.ones((2, 1, 3, 4, 1)) * np.array([1, 1.5]).reshape(2, 1, 1, 1, 1)
        one, wide = spread.scores(members, {"targets": truth}, np.ones(1), factors)
        expected = np.asarray(crps(members, truth), np.float64).sum()
        assert one == pytest.approx(expected, rel=1e-3)
        mean = members.mean(axis=0)
        moved = np.asarray(crps(mean + 1.5 * (members - mean), truth), np.float64)
        # Moved from the mean of the other members, which is a little further away.
        assert wide == pytest.approx(moved.sum(), rel=0.05) and wide > moved.sum()
