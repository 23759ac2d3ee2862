import numpy as np
import pytest

from earthformer_jax.metrics.contract import dims_of
from earthformer_jax.metrics.scores import continuous
from earthformer_jax.metrics.statistics.anomaly import Anomalies

RNG = np.random.default_rng(0)
SHAPE = (5, 2, 6, 4, 2)
CLIMATE = RNG.normal(size=SHAPE).astype(np.float32)
TRUTH = CLIMATE + RNG.normal(size=SHAPE).astype(np.float32)
FORECAST = TRUTH + RNG.normal(size=SHAPE).astype(np.float32)


def totals(statistic, forecast=FORECAST, **batch):
    found = statistic(forecast, {"targets": TRUTH, **batch})
    return {name: np.asarray(x).sum(axis=0) for name, x in found.items()}


def test_it_is_the_mean_of_the_weighted_correlations_of_maps():
    weights = np.cos(np.linspace(-1, 1, 6))[:, None, None]
    observed = RNG.random(SHAPE) > 0.2
    statistic = Anomalies(("T", "P"), by_batch=True, weights=weights)
    assert dims_of(statistic) == ("lead", "variable")
    found = totals(statistic, climatology=CLIMATE, observed=observed)
    w = np.where(observed, weights, 0)
    f, o = (np.asarray(x - CLIMATE, np.float64) for x in (FORECAST, TRUTH))
    fo, ff, oo = (np.sum(w * x, axis=(2, 3)) for x in (f * o, f * f, o * o))
    wanted = np.mean(fo / np.sqrt(ff * oo), axis=0)
    np.testing.assert_allclose(continuous.acc(found), wanted, rtol=1e-6)
    wanted = fo.sum(axis=0) / np.sqrt(ff.sum(axis=0) * oo.sum(axis=0))
    np.testing.assert_allclose(continuous.pooled_acc(found), wanted, rtol=1e-6)


def test_a_constant_climatology_and_a_perfect_forecast():
    by_batch = Anomalies(by_batch=True)
    constant = totals(by_batch, climatology=np.full(SHAPE, 0.5, np.float32))
    for name, x in totals(Anomalies(center=0.5)).items():
        np.testing.assert_allclose(x, constant[name], rtol=1e-6)
    perfect = continuous.acc(totals(Anomalies(), TRUTH))
    np.testing.assert_allclose(perfect, 1, rtol=1e-6)
    np.testing.assert_allclose(continuous.acc(totals(Anomalies(), -TRUTH)), -1, 1e-6)


def test_the_climatology_itself_has_no_correlation_and_nan_is_seen():
    found = totals(Anomalies(by_batch=True), CLIMATE, climatology=CLIMATE)
    assert np.all(found["frames"] == 0)
    assert np.all(np.isnan(continuous.acc(found)))
    assert np.all(np.isnan(continuous.pooled_acc(found)))
    broken = FORECAST.copy()
    broken[1, 0, 0, 0, 0] = np.nan
    assert np.isnan(continuous.acc(totals(Anomalies(), broken))[0])


def test_padding_and_small_values():
    found = totals(Anomalies(), 1e-18 * FORECAST, valid=np.arange(5) < 0)
    assert not any(np.any(x) for x in found.values())
    small = np.float32(1e-13)  # whose fourth power is not a float32
    found = totals(Anomalies(), small * FORECAST, targets=small * TRUTH)
    wanted = continuous.acc(totals(Anomalies()))
    np.testing.assert_allclose(continuous.acc(found), wanted, rtol=1e-5)


def test_what_is_missing_or_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="the batch has no 'climatology'"):
        totals(Anomalies(by_batch=True))
    with pytest.raises(ValueError, match="climatology has shape"):
        totals(Anomalies(by_batch=True), climatology=CLIMATE[:, :1])
    with pytest.raises(ValueError, match="2 channels; the scores name 1: a"):
        totals(Anomalies(("a",)))
    with pytest.raises(ValueError, match="weights of all cells are zero"):
        Anomalies(weights=np.zeros(1))
