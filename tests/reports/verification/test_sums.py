"""Sums by block: those of all examples, whatever the batches, and of bounded size."""

import dataclasses

import jax
import numpy as np
import pytest

from earthformer_jax.data.pipeline import evaluation_batches
from earthformer_jax.metrics import channels
from earthformer_jax.reports import scoring
from earthformer_jax.reports.verification import sums as sums_lib
from earthformer_jax.reports.verification.sums import Gatherer
from tests.reports.verification.fields import FORECASTS, TASK, data


def gathered(data, batch_size=4, forecasts=FORECASTS):
    gatherer = Gatherer(TASK, data)
    results = scoring.evaluate(
        TASK.metric, data.test, forecasts, batch_size, gatherer.watch
    )
    return gatherer.sums(), results


def test_blocks_add_up_to_the_streamed_scores():
    sums, results = gathered(data(11))
    assert sums.examples.number == sums.blocks == 11
    for name, parts in sums.values.items():
        total = jax.tree.map(lambda x: x.sum(axis=0), parts)
        csi = sums.verification.value("csi_m", total)
        assert csi[0] == pytest.approx(results[name]["csi_m"], rel=1e-12)
        mse = sums.verification.value("mse", total, ("lead",))
        assert mse == pytest.approx(results[name]["mse"], rel=1e-6)


def test_a_block_holds_the_examples_of_its_event():
    events = data(7, event=np.array([3, 3, 3, 9, 9, 4, 4], np.int32))
    sums, _ = gathered(events)
    assert sums.examples.sizes.tolist() == [3, 2, 2]
    (batch,) = evaluation_batches(events.test, 7)
    terms = TASK.verification.terms(FORECASTS["model"](batch), batch)
    expected = np.add.reduceat(terms["contingency"]["hits"], [0, 3, 5])
    found = sums.values["model"]["contingency"]["hits"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("most", [256, 3])
def test_batches_make_no_difference(monkeypatch, most):
    monkeypatch.setattr(sums_lib, "MOST_BLOCKS", most)
    events = data(29, event=np.repeat(np.arange(15), 2)[:29].astype(np.int32))
    one, two = (gathered(events, size)[0] for size in (4, 7))
    assert one.examples.checksum == two.examples.checksum
    np.testing.assert_array_equal(one.examples.sizes, two.examples.sizes)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
        one.values,
        two.values,
    )


def test_many_blocks_are_joined(monkeypatch):
    whole, _ = gathered(data(29))
    monkeypatch.setattr(sums_lib, "MOST_BLOCKS", 3)
    joined, _ = gathered(data(29))
    assert joined.examples.sizes.tolist() == [8, 8, 8, 5]
    assert joined.examples.block == "8 examples"
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(
            np.add.reduceat(x, [0, 8, 16, 24]), y, rtol=1e-12
        ),
        whole.values,
        joined.values,
    )


def test_the_checksum_knows_the_examples():
    same, other = gathered(data(5))[0], gathered(data(5, seed=1))[0]
    assert gathered(data(5))[0].examples.checksum == same.examples.checksum
    assert other.examples.checksum != same.examples.checksum
    fewer = gathered(data(4))[0]
    assert fewer.examples.checksum != same.examples.checksum


def test_a_forecast_that_is_not_a_number_spoils_its_own_sums_alone():
    def broken(batch):
        field = FORECASTS["model"](batch)
        return np.where(
            np.arange(len(field))[:, None, None, None, None] == 1, np.nan, field
        )

    sums, _ = gathered(data(4), forecasts={**FORECASTS, "broken": broken})
    squared = {n: x["errors"]["squared"] for n, x in sums.values.items()}
    assert np.isnan(squared["broken"]).any(axis=1).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert np.isfinite(squared["model"]).all()


def test_what_the_host_adds_to_a_batch_is_there():
    """Anomalies are departures from a climatology that the batch does not hold."""

    def climatology(batch):
        return np.full(np.shape(batch["targets"]), 0.5, np.float32)

    verification = channels.verification(("x",), (1.0,), climatology=climatology)
    task = dataclasses.replace(TASK, verification=verification)
    examples = data(6)
    gatherer = Gatherer(task, examples)
    for batch in evaluation_batches(examples.test, 4):
        gatherer.watch(batch, {"model": FORECASTS["model"](batch)})
    found = jax.tree.map(lambda x: x.sum(axis=0), gatherer.sums().values["model"])
    acc = verification.value("acc", found, ("lead",))
    (batch,) = evaluation_batches(examples.test, 6)
    with_it = {**batch, channels.CLIMATOLOGY: climatology(batch)}
    terms = verification.terms(FORECASTS["model"](batch), with_it)
    expected = jax.tree.map(lambda x: np.asarray(x).sum(axis=0), terms)
    np.testing.assert_allclose(
        acc, verification.value("acc", expected, ("lead",)), rtol=1e-5
    )
