"""What scores are made of sums, and over which axes."""

import functools

import numpy as np
import pytest

from earthformer_jax.metrics import precipitation
from earthformer_jax.metrics.scores import categorical
from earthformer_jax.metrics.statistics.contingency import Contingency
from earthformer_jax.metrics.verification import Score, Verification
from tests import golden_files

STATISTICS = {"contingency": Contingency((1, 5), (1, 4))}
RNG = np.random.default_rng(0)


def counts(*leading, leads=3):
    """Any counts, with leading axes."""
    shape = (*leading, leads, 2, 2)
    names = STATISTICS["contingency"].names
    return {"contingency": {n: RNG.integers(0, 9, shape) for n in names}}


def csi_of(table, axis):
    h, m, f = (
        table["contingency"][n].sum(axis=axis)
        for n in ("hits", "misses", "false_alarms")
    )
    return h / (h + m + f)


def test_sums_are_added_before_and_scores_averaged_after():
    of = functools.partial(Score, "contingency", categorical.csi)
    verification = Verification(
        STATISTICS,
        {
            "csi": of(),
            "pooled": of(add=("lead",), mean=("threshold",), where={"pool": (4,)}),
            "mean": of(mean=("lead", "threshold")),
        },
    )
    table = counts(7)  # samples of a bootstrap
    csi = verification.value("csi", table)
    assert verification.dims("csi") == ("lead", "threshold", "pool")
    np.testing.assert_allclose(csi, csi_of(table, ()))
    pooled = verification.value("csi", table, add=("lead",))
    assert verification.dims("csi", ("lead",)) == ("threshold", "pool")
    np.testing.assert_allclose(pooled, csi_of(table, 1))
    assert verification.dims("pooled") == ("pool",)
    assert verification.coords("pooled") == {"pool": (4,)}
    wanted = pooled.mean(axis=1)[:, 1:]
    np.testing.assert_allclose(verification.value("pooled", table), wanted)
    wanted = csi.mean(axis=(1, 2))
    np.testing.assert_allclose(verification.value("mean", table), wanted)


def test_undefined_values_are_left_out_of_means():
    score = Score("contingency", categorical.csi, mean=("lead",))
    verification = Verification(STATISTICS, {"csi": score})
    table = counts()
    for x in table["contingency"].values():
        x[0, 0, 0] = x[:, 1, 1] = 0
    found = verification.value("csi", table)
    later = {n: x[1:] for n, x in table["contingency"].items()}
    one = categorical.csi(later)[:, 0, 0].mean()
    assert found[0, 0] == pytest.approx(one) and np.isnan(found[1, 1])


@pytest.mark.parametrize(
    "score, words",
    [
        (dict(statistic="errors"), "'errors': expected one of contingency"),
        (dict(add=("variable",)), "axis 'variable': expected one of lead"),
        (dict(mean=("lead",), add=("lead",)), "adds and averages over lead"),
        (dict(where={"threshold": (2,)}), r"where\['threshold'\]=\(2,\)"),
        (dict(where={"pool": ()}), r"where\['pool'\]=\(\)"),
        (dict(where={"lead": (1,)}), r"where\['lead'\]"),
    ],
)
def test_scores_of_what_is_not_there_are_refused(score, words):
    score = {"statistic": "contingency", "function": categorical.csi, **score}
    with pytest.raises(ValueError, match=words):
        Verification(STATISTICS, {"csi": Score(**score)})


def test_extras_are_added_to_batches_of_the_host():
    verification = Verification(extras={"double": lambda batch: 2 * batch["targets"]})
    assert verification.prepare({"targets": np.ones(2)})["double"].tolist() == [2, 2]
    batch = {"targets": np.ones(2)}
    assert Verification().prepare(batch).keys() == batch.keys()


@pytest.mark.parametrize(
    "case", ("random", "no_events_above_160", "nan", "all_zero", "perfect")
)
def test_the_orders_of_aggregation_of_the_published_tables(case):
    """Pooled over lead times, and the mean over them, of six and of three thresholds.

    The reference implementation gives the mean for each threshold ("mode 2").
    """
    path = golden_files.shared_file("golden", "metrics", "sevir_skill.npz")
    with np.load(path) as z:
        forecast, truth = (z[f"{case}/input/{n}"] for n in ("pred", "target"))
        pooled = float(z[f"{case}/output/mode0/csi_avg"])
        by_lead = z[f"{case}/output/mode2/csi"]
    known = np.isfinite(forecast) & np.isfinite(truth)
    forecast, truth = (np.nan_to_num(x)[..., None] / 255 for x in (forecast, truth))
    verification = precipitation.verification(pools=(1,), windows=(1,))
    batch = {"targets": truth, "observed": known[..., None]}
    state = verification.update(verification.init(), forecast, batch)
    sums = verification.sums(state)
    found = {
        name: verification.value(name, sums).item()
        for name in ("csi_m", "csi_m_by_lead_mean", "csi_m3_by_lead_mean")
    }
    assert found["csi_m"] == pytest.approx(pooled, abs=2e-7)
    assert found["csi_m_by_lead_mean"] == pytest.approx(by_lead.mean(), abs=2e-7)
    assert found["csi_m3_by_lead_mean"] == pytest.approx(by_lead[:3].mean(), abs=2e-7)


def test_published_scores_of_nothing_are_undefined_and_of_no_event_are_zero():
    verification = precipitation.verification(pools=(1,), windows=(1,))
    nothing = np.zeros((1, 2, 4, 4, 1), np.float32)
    for observed, wanted in ((True, 0), (False, np.nan)):
        batch = {"targets": nothing, "observed": np.full(nothing.shape, observed)}
        state = verification.update(verification.init(), nothing, batch)
        for name in ("csi_m", "csi_m_by_lead_mean", "csi_m3_by_lead_mean"):
            found = verification.value(name, verification.sums(state))
            np.testing.assert_array_equal(found, [wanted], name)
