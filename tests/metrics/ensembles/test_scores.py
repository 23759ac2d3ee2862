from typing import Any

import jax
import numpy as np
import pytest

from earthformer_jax.metrics.ensembles import crps as lib
from earthformer_jax.metrics.ensembles.scores import EnsembleScores, Event


def crps(members, targets, fair=True):
    return np.asarray(lib.crps(members, targets, fair=fair), np.float64)


def truth_and_members(size=8, spread=1.0, shape=(6, 3, 4, 5, 2), seed=0):
    """Targets and members around a centre that both know; reliable if spread is 1."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=shape)
    targets = centre + rng.normal(size=shape)
    members = centre + spread * rng.normal(size=(size, *shape))
    return targets.astype(np.float32), members.astype(np.float32)


def scores(metric, targets, members, batch_size=2, **batch):
    update, states = jax.jit(metric.update), []
    for i in range(0, len(targets), batch_size):
        part = {k: v[i : i + batch_size] for k, v in batch.items()}
        part["targets"] = targets[i : i + batch_size]
        states.append(update(metric.init(), members[:, i : i + batch_size], part))
    while len(states) > 1:  # in any order
        states.append(metric.merge(states.pop(0), states.pop(0)))
    return metric.compute(states[0])


TWO: dict[str, Any] = dict(names=("T", "P"), scale=(2.0, -0.5), offset=(1.0, 0.0))


def test_scores_by_definition_by_lead_and_channel():
    targets, members = truth_and_members()
    found = scores(EnsembleScores(8, **TWO), targets, members)
    each = crps(members, targets)
    assert found["crps"] == pytest.approx(each.mean(), rel=1e-5)
    assert found["crps_plain"] == pytest.approx(
        np.mean(crps(members, targets, fair=False)), rel=1e-5
    )
    np.testing.assert_allclose(
        found["crps_by_lead"], each.mean(axis=(0, 2, 3, 4)), rtol=1e-5
    )
    assert found["crps_T"] == pytest.approx(2 * each[..., 0].mean(), rel=1e-5)
    assert found["crps_P"] == pytest.approx(0.5 * each[..., 1].mean(), rel=1e-5)
    spread = np.sqrt(np.mean(np.var(members, axis=0, ddof=1)))
    rmse = np.sqrt(np.mean((members.mean(axis=0) - targets) ** 2))
    assert found["spread"] == pytest.approx(spread, rel=1e-5)
    assert found["rmse"] == pytest.approx(rmse, rel=1e-5)
    assert found["ratio"] == pytest.approx(np.sqrt(9 / 8) * spread / rmse, rel=1e-5)


def test_scores_are_in_physical_units_if_channels_share_them():
    targets, members = truth_and_members(shape=(3, 2, 4, 5, 1))
    found = scores(EnsembleScores(8, ("T",), (3.0,)), targets, members)
    assert found["crps"] == pytest.approx(3 * np.mean(crps(members, targets)), rel=1e-5)
    metric = EnsembleScores(8, ("T",), (3.0,))
    terms = jax.device_get(metric.terms(members, {"targets": targets}))
    expected = 3 * np.mean(crps(members, targets), axis=(2, 3, 4))
    np.testing.assert_allclose(metric.crps_of(terms), expected, rtol=1e-4)


def test_reliable_members_have_ratio_one_and_a_flat_histogram():
    targets, members = truth_and_members(8, 1.0, (400, 1, 6, 6, 1))
    found = scores(EnsembleScores(8), targets, members, 100)
    assert found["ratio"] == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(found["rank_histogram"], np.full(9, 1 / 9), rtol=0.08)
    targets, members = truth_and_members(8, 0.5, (400, 1, 6, 6, 1))
    narrow = scores(EnsembleScores(8), targets, members, 100)
    assert narrow["ratio"] < 0.6
    assert min(narrow["rank_histogram"][0], narrow["rank_histogram"][-1]) > 0.2
    assert narrow["crps"] > found["crps"]


def test_only_what_is_observed_counts_and_batches_merge_exactly():
    targets, members = truth_and_members()
    weights = np.random.default_rng(2).random((3, 4, 5, 2))
    weights[:, 0] = 0
    observed = np.random.default_rng(1).random(targets.shape) > 0.3
    observed[:, 2] = False  # a whole lead
    kept = observed * weights
    metric = EnsembleScores(8, **TWO, weights=weights, events=(Event(1.0),))
    hidden = np.where(kept > 0, targets, np.nan)
    found = scores(metric, hidden, members, 2, observed=observed)
    whole = scores(metric, hidden, members, 6, observed=observed)
    expected = np.average(crps(members, targets), weights=kept)
    assert found["crps"] == pytest.approx(expected, rel=1e-5)
    assert found["crps"] == pytest.approx(whole["crps"], rel=1e-6)
    assert np.isnan(found["crps_by_lead"][2])
    np.testing.assert_allclose(found["rank_histogram"], whole["rank_histogram"], 1e-5)
    assert sum(found["rank_histogram"]) == pytest.approx(1)
    assert sum(found["events"][">=1"]["share"]) == pytest.approx(1)


def test_padding_does_not_count():
    targets, members = truth_and_members()
    valid = np.array([True, True, True, True, False, False])
    found = scores(EnsembleScores(8, **TWO), targets, members, 6, valid=valid)
    alone = scores(EnsembleScores(8, **TWO), targets[:4], members[:, :4], 4)
    assert found["crps"] == pytest.approx(alone["crps"], rel=1e-6)
    np.testing.assert_allclose(found["rank_histogram"], alone["rank_histogram"], 1e-5)


def test_ties_are_shared_out_evenly():
    """Rain: without any in members and truth, every rank is as likely."""
    zeros = np.zeros((1, 1, 1, 1, 1), np.float32)
    members = np.zeros((4, 1, 1, 1, 1, 1), np.float32)
    found = scores(EnsembleScores(4), zeros, members)
    np.testing.assert_allclose(found["rank_histogram"], np.full(5, 0.2))
    members[2:] = 1  # two tie: places 0, 1 and 2
    found = scores(EnsembleScores(4), zeros, members)
    np.testing.assert_allclose(found["rank_histogram"], [1 / 3, 1 / 3, 1 / 3, 0, 0])


def test_events_are_counted_in_physical_units():
    targets = np.array([0.0, 0.2, 0.6, 0.9], np.float32).reshape(4, 1, 1, 1, 1)
    members = np.stack([targets, targets + 0.3])
    events = (Event(5.0), Event(2.0, above=False))
    metric = EnsembleScores(2, ("x",), (10.0,), events=events)
    found = scores(metric, targets, members)["events"]
    above, below = found[">=5"], found["<=2"]
    np.testing.assert_allclose(above["share"], [0.25, 0.25, 0.5])
    np.testing.assert_allclose(above["frequency"], [0, 0, 1])
    assert above["brier_plain"] == pytest.approx(0.25 / 4)
    # One of two draws has it: as they are 0.25, of endless draws 0.25 - 0.5 * 0.5 / 1.
    assert above["brier"] == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(below["share"], [0.5, 0.5, 0])
    assert np.isnan(below["frequency"][2])


def test_quantiles_are_scored_as_they_are():
    targets, members = truth_and_members()
    found = scores(
        EnsembleScores(8, **TWO, events=(Event(0.0),), drawn=False), targets, members
    )
    assert found["crps"] == found["crps_plain"]
    assert found["events"][">=0"]["brier"] == found["events"][">=0"]["brier_plain"]
    spread = np.sqrt(np.mean(np.var(members, axis=0)))
    assert found["ratio"] == pytest.approx(spread / found["rmse"], rel=1e-5)


def test_the_brier_score_does_not_depend_on_the_number_of_draws():
    found = []
    for size in (3, 40):
        targets, members = truth_and_members(size, shape=(200, 1, 6, 6, 1))
        metric = EnsembleScores(size, events=(Event(0.5),))
        found.append(scores(metric, targets, members, 100)["events"][">=0.5"])
    few, many = found
    assert few["brier"] == pytest.approx(many["brier"], rel=0.03)
    assert few["brier_plain"] > 1.2 * many["brier_plain"]


def test_a_single_member_has_no_spread():
    targets, members = truth_and_members(1)
    found = scores(EnsembleScores(1, **TWO), targets, members)
    assert found["crps"] == pytest.approx(np.mean(abs(members[0] - targets)), rel=1e-6)
    assert found["spread"] == found["ratio"] == 0


def test_no_examples_have_no_scores():
    metric = EnsembleScores(3, events=(Event(1.0),))
    found = metric.compute(metric.init())
    assert np.isnan(found["crps"]) and np.isnan(found["rank_histogram"]).all()


def test_normal_distributions_are_scored_in_closed_form():
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(3, 2, 4, 5, 1)).astype(np.float32)
    mean, std = 0.5 * targets, np.full_like(targets, 0.8)
    metric = EnsembleScores(9, drawn=False, events=(Event(0.5),))
    batch = {"targets": targets}
    terms = metric.gaussian_terms(np.stack([mean, std]), batch)
    found = metric.compute(metric.add(metric.init(), terms))
    expected = np.mean(np.asarray(lib.crps_gaussian(mean, std, targets)))
    assert found["crps"] == pytest.approx(expected, rel=1e-5)
    assert found["spread"] == pytest.approx(0.8, rel=1e-5)
    assert found["ratio"] == pytest.approx(
        0.8 / np.sqrt(np.mean(0.25 * targets**2)), rel=1e-5
    )
    assert sum(found["rank_histogram"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: EnsembleScores(0), "size=0"),
        (lambda: EnsembleScores(2, ("a", "b")), "differ in length"),
        (lambda: EnsembleScores(2, weights=np.zeros(1)), "all cells are zero"),
    ],
)
def test_what_does_not_go_together_is_refused(make, problem):
    with pytest.raises(ValueError, match=problem):
        make()


def test_another_number_of_members_is_refused():
    targets, members = truth_and_members()
    with pytest.raises(ValueError, match="members"):
        EnsembleScores(9, **TWO).terms(members, {"targets": targets})
