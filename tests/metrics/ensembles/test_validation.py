import numpy as np
import pytest

from earthformer_jax.metrics.ensembles.crps import crps
from earthformer_jax.metrics.ensembles.validation import MembersAndMean
from earthformer_jax.metrics.pixel import PixelError

SHAPE = (6, 2, 3, 4, 1)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=SHAPE).astype(np.float32)
    observed = rng.random(SHAPE) < 0.8
    targets[~observed] = np.nan
    valid = np.array([True] * 5 + [False])
    return {"targets": targets, "observed": observed, "valid": valid}


@pytest.fixture
def members():
    return np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)


def scored(metric, members, batch, *parts):
    state = metric.init()
    for part in parts:
        some = {name: x[part] for name, x in batch.items()}
        state = metric.merge(
            state, metric.update(metric.init(), members[:, part], some)
        )
    return metric.compute(state)


def test_a_weighted_mean_over_what_is_observed_whatever_the_batches(members, batch):
    weights = np.arange(12.0).reshape(1, 3, 4, 1)
    metric = MembersAndMean(PixelError(), weights)
    found = scored(metric, members, batch, slice(0, 2), slice(2, 6))
    known = batch["observed"] & batch["valid"][:, None, None, None, None]
    share = np.where(known, weights, 0)
    score = np.asarray(crps(members, np.nan_to_num(batch["targets"])), np.float64)
    assert found["crps"] == pytest.approx((share * score).sum() / share.sum(), rel=1e-5)


def test_the_other_scores_are_those_of_the_mean(members, batch):
    metric = MembersAndMean(PixelError(), np.ones(1))
    found = scored(metric, members, batch, slice(0, 6))
    alone = PixelError()
    state = alone.update(alone.init(), members.mean(axis=0), batch)
    assert found.pop("crps") > 0
    assert found == alone.compute(state)


def test_nothing_to_score_is_nan():
    metric = MembersAndMean(PixelError(), np.ones(1))
    assert np.isnan(metric.compute(metric.init())["crps"])
