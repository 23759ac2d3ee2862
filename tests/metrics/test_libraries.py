"""Scores next to those of independent libraries, on ordinary and on degenerate input.

Where a definition differs from that of a library, the difference is tested as well.
"""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from earthformer_jax.metrics import bootstrap
from earthformer_jax.metrics.ensembles import crps as crps_lib
from earthformer_jax.metrics.ensembles.scores import EnsembleScores, Event
from earthformer_jax.metrics.precipitation import verification
from earthformer_jax.metrics.scores import categorical, continuous, spatial
from earthformer_jax.metrics.statistics.anomaly import Anomalies
from earthformer_jax.metrics.statistics.spectra import radial_power
from earthformer_jax.metrics.statistics.ssim import ssim

WHY = "{} is not installed; it is in the extra `test`"
THRESHOLD, WINDOWS, SIDE = 0.5, (1, 3, 7), 16


def library(name: str):
    """A module of a library, or the test is skipped."""
    return pytest.importorskip(name, reason=WHY.format(name.split(".")[0]))


def cases():
    """Forecast, targets and what is observed, `[b, k, h, w]`, by name."""
    rng = np.random.default_rng(0)
    shape = (3, 2, SIDE, SIDE)
    # Some values are equal to the threshold.
    forecast, targets = rng.integers(0, 65, (2, *shape)).astype(np.float32) / 64
    seen, part = np.ones(shape, bool), rng.random(shape) > 0.4
    gap = part.copy()
    gap[:, 1] = False
    first = seen & (np.arange(3) == 0)[:, None, None, None]
    low, high = forecast * 0.1, 0.9 + forecast * 0.1
    return {
        "random": (forecast, targets, seen),
        "perfect": (targets, targets, seen),
        "no events": (low, low[::-1], seen),
        "all events": (high, high[::-1], seen),
        "all missed": (low, high, seen),
        "all false": (high, low, seen),
        "constant": (np.full_like(forecast, 0.7), np.full_like(targets, 0.6), seen),
        "masked": (forecast, np.where(part, targets, np.nan), part),
        "nothing at a lead": (forecast, np.where(gap, targets, np.nan), gap),
        "one sample": (forecast, targets, first),
    }


CASES = cases()
each_case = pytest.mark.parametrize("case", CASES)


@functools.cache
def _program():
    declared = verification(1.0, 0.0, (THRESHOLD,), (1,), WINDOWS, (SIDE, SIDE))
    return declared, jax.jit(declared.terms)


def totals(case: str, statistic: str) -> dict[str, np.ndarray]:
    """Sums of a case over its examples, `[k, ...]`; of pixels and one threshold."""
    forecast, targets, seen = (x[..., None] for x in CASES[case])
    found = _program()[1](forecast, {"targets": targets, "observed": seen})
    found = jax.device_get(found[statistic])
    return {n: np.asarray(x, np.float64).sum(axis=0) for n, x in found.items()}


def arrays(case: str) -> tuple[Any, Any]:
    """Forecast and targets as xarray, NaN where nothing is observed."""
    xr = library("xarray")
    forecast, targets, seen = CASES[case]
    dims = ("example", "lead", "y", "x")
    forecast, targets = (
        xr.DataArray(np.where(seen, x, np.nan).astype(np.float64), dims=dims)
        for x in (forecast, targets)
    )
    return forecast, targets


def assert_same(found, wanted, atol: float = 1e-7):
    np.testing.assert_allclose(found, np.asarray(wanted), rtol=1e-5, atol=atol)


@each_case
def test_contingency(case):
    scores = library("scores.categorical")
    counts = {n: x[:, 0, 0] for n, x in totals(case, "contingency").items()}
    p, t = (x.where(x.isnull(), x >= THRESHOLD) for x in arrays(case))
    other = scores.BinaryContingencyManager(p, t).transform(preserve_dims=["lead"])
    for name, key in (
        ("hits", "tp_count"),
        ("misses", "fn_count"),
        ("false_alarms", "fp_count"),
        ("correct_negatives", "tn_count"),
    ):
        np.testing.assert_array_equal(counts[name], other.get_counts()[key])
    assert_same(categorical.csi(counts), other.critical_success_index())
    assert_same(categorical.pod(counts), other.probability_of_detection())
    assert_same(categorical.far(counts), other.false_alarm_ratio())
    assert_same(categorical.success_ratio(counts), other.success_ratio())
    assert_same(categorical.ets(counts), other.equitable_threat_score())
    assert_same(categorical.hss(counts), other.heidke_skill_score())
    bias = np.asarray(other.frequency_bias())
    # Without any event in the targets the bias is not a number here, not infinite.
    assert np.isinf(bias).all() == (case == "all false")
    assert_same(
        categorical.frequency_bias(counts), np.where(np.isinf(bias), np.nan, bias)
    )


@each_case
def test_errors(case):
    scores = library("scores.continuous")
    sums = totals(case, "errors")
    unit = 255  # the sums are of code / 255
    for ours, theirs, power in (
        (continuous.mse, scores.mse, 2),
        (continuous.rmse, scores.rmse, 1),
        (continuous.mae, scores.mae, 1),
        (continuous.bias, scores.additive_bias, 1),
    ):
        wanted = theirs(*arrays(case), preserve_dims=["lead"])
        assert_same(ours(sums) * unit**power, wanted, atol=1e-6)


@each_case
def test_correlation(case):
    """Pearson's, where the mean of the frame is subtracted; averaged over frames."""
    scores = library("scores.continuous.correlation")
    fields = [x - x.mean(("y", "x")) for x in arrays(case)]
    forecast, targets = (x.to_numpy().astype(np.float32)[..., None] for x in fields)
    batch = {"targets": targets, "observed": CASES[case][2][..., None]}
    found = jax.device_get(_anomalies(forecast, batch))
    each = scores.pearsonr(*fields, reduce_dims=["y", "x"])
    total = {n: np.asarray(x, np.float64).sum(axis=0) for n, x in found.items()}
    assert_same(continuous.acc(total), each.mean("example"), atol=1e-6)
    assert np.isnan(continuous.acc(total)).all() == (case == "constant")
    # Pooled: of the values of all examples together, whose means are 0.
    pooled = scores.pearsonr(*fields, preserve_dims=["lead"])
    assert_same(continuous.pooled_acc(total), pooled, atol=1e-6)


_anomalies = jax.jit(Anomalies())


@each_case
def test_fractions(case):
    """Windows around every cell, with zeros outside.

    The library has these windows inside of a frame with a border of zeros. It knows no
    mask: cells that are not observed are zeros, which is the same only for windows of
    one cell (`test_fractions` in `statistics` has the others by brute force).
    """
    found = spatial.fss(totals(case, "fractions"))
    forecast, targets = (x.fillna(0) for x in arrays(case))
    seen = CASES[case][2]
    for place, size in enumerate(WINDOWS if seen.all() else (1,)):
        other = fss_of_library(forecast, targets, size, size // 2)
        nothing = np.isnan(found[:, 0, place])
        # Where there is no event the score is not a number here, not 0.
        assert_same(np.where(nothing, 0, found[:, 0, place]), other)
        assert nothing.all() == (case == "no events")
        assert nothing.any() == (case in ("no events", "nothing at a lead"))


def fss_of_library(forecast, targets, size: int, border: int, **options):
    """Fractions skill score by lead time of fields with a border of zeros."""
    edges = {"y": (border, border), "x": (border, border)}
    return library("scores.spatial").fss_2d(
        *(x.pad(edges, constant_values=0) for x in (forecast, targets)),
        event_threshold=THRESHOLD,
        threshold_operator=np.greater_equal,
        window_size=(size, size),
        spatial_dims=("y", "x"),
        preserve_dims=["lead"],
        **options,
    )


def test_fractions_have_other_borders_than_those_of_the_library():
    """Its own borders are none, and zeros with one row and column too many."""
    found = spatial.fss(totals("random", "fractions"))[:, 0, -1]
    (forecast, targets), size = arrays("random"), WINDOWS[-1]
    inner = fss_of_library(forecast, targets, size, 0)
    wide = fss_of_library(forecast, targets, size, 0, zero_padding=True)
    for other in (inner, wide):
        assert np.all(np.abs(np.asarray(other) - found) > 1e-5)
    edges = {"y": (3, 4), "x": (3, 4)}
    p, t = (x.pad(edges, constant_values=0) for x in (forecast, targets))
    assert_same(fss_of_library(p, t, size, 0), wide)


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (12, 20)])
def test_spectra_are_those_of_pysteps(shape):
    """Without window; pysteps leaves out the ring of 2 cells, and squeezes frames
    that are not square.
    """
    spectral = pytest.importorskip("pysteps.utils.spectral", reason="needs pysteps")
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    other = spectral.rapsd(x, fft_method=np.fft)[1:]
    found = np.asarray(radial_power(x, taper=False))
    if shape[0] == shape[1]:
        assert_same(found[: len(other)], other)
        assert len(found) - len(other) == (shape[0] % 2 == 0)
    else:
        assert np.max(np.abs(found[: len(other)] / other - 1)) > 0.1


@pytest.mark.parametrize("case", CASES)
def test_fractions_are_those_of_pysteps(case):
    """Cells that are not observed have no event there, but windows of their own."""
    other = pytest.importorskip(
        "pysteps.verification.spatialscores", reason="needs pysteps"
    )
    found = spatial.fss(totals(case, "fractions"))[:, 0]
    fields, seen = [x.to_numpy() for x in arrays(case)], CASES[case][2]
    for place, size in enumerate(WINDOWS if seen.all() else (1,)):
        for lead in range(2):
            total = other.fss_init(THRESHOLD, size)
            for forecast, targets in zip(*fields, strict=True):
                other.fss_accum(total, forecast[lead], targets[lead])
            with np.errstate(invalid="ignore"):
                assert_same(found[lead, place], other.fss_compute(total))


SIZES = (1, 2, 5)


def members_of(case: str, size: int) -> np.ndarray:
    """`[m, b, k, h, w]` around the forecast of a case; with ties, and with the
    threshold among the values. Constant fields have equal members.
    """
    forecast = CASES[case][0]
    rng = np.random.default_rng(1)
    change = rng.integers(-3, 4, (size, *forecast.shape)) / 64
    return forecast + (change if case != "constant" else 0 * change).astype(np.float32)


@functools.cache
def ensemble_scores(case: str, size: int) -> dict:
    """Our scores of the members, of all lead times and by lead time."""
    _, targets, seen = (x[..., None] for x in CASES[case])
    metric = _ensemble_metric(size)
    batch = {"targets": targets, "observed": seen}
    members = members_of(case, size)[..., None]
    return metric.of_sums(
        {
            name: np.asarray(x, np.float64).sum(axis=0)
            for name, x in _ensemble_terms(size)(members, batch).items()
        }
    )


@functools.cache
def _ensemble_metric(size: int) -> EnsembleScores:
    return EnsembleScores(size, events=(Event(THRESHOLD),))


@functools.cache
def _ensemble_terms(size: int):
    return jax.jit(_ensemble_metric(size).terms)


def ensemble(case: str, size: int):
    """Members and targets as xarray, NaN where nothing is observed."""
    xr = library("xarray")
    members = members_of(case, size).astype(np.float64)
    return xr.DataArray(members, dims=("member", "example", "lead", "y", "x")), arrays(
        case
    )[1]


each_size = pytest.mark.parametrize("size", SIZES)


@each_case
@each_size
def test_crps(case, size):
    """A single member has an absolute error here, and no fair CRPS in the library."""
    scores = library("scores.probability")
    found = ensemble_scores(case, size)
    members, targets = ensemble(case, size)
    fair = scores.crps_for_ensemble(
        members, targets, "member", method="fair", preserve_dims=["lead"]
    )
    plain = scores.crps_for_ensemble(members, targets, "member")
    assert_same(found["crps_plain"], plain, atol=1e-6)
    if size > 1:
        assert_same(found["crps_by_lead"], fair, atol=1e-6)
    else:
        assert np.isnan(fair).all()
        assert_same(found["crps"], plain)


@each_case
@each_size
def test_brier(case, size):
    scores = library("scores.probability")
    found = ensemble_scores(case, size)["events"][f">={THRESHOLD:g}"]
    members, targets = ensemble(case, size)
    brier = functools.partial(
        scores.brier_score_for_ensemble, members, targets, "member", THRESHOLD
    )
    fair, plain = brier(preserve_dims=["lead"]), brier(fair_correction=False).item()
    assert_same(found["brier_by_lead"], fair.squeeze("threshold"), atol=1e-6)
    assert_same(found["brier_plain"], plain, atol=1e-6)
    parts = found["reliability"] - found["resolution"] + found["uncertainty"]
    assert_same(parts, plain, atol=1e-6)


@each_case
@each_size
def test_roc(case, size):
    scores = library("scores.probability")
    found = ensemble_scores(case, size)["events"][f">={THRESHOLD:g}"]
    members, targets = ensemble(case, size)
    probability = (members >= THRESHOLD).mean("member")
    came = targets.where(targets.isnull(), targets >= THRESHOLD)
    curve = scores.roc_curve_data(
        probability,
        came,
        thresholds=np.arange(size + 1) / size - 1e-9 * (np.arange(size + 1) > 0),
    )
    # From never to always, and the library from always to never.
    assert_same(found["hit_rate"], curve["POD"][::-1], atol=1e-6)
    assert_same(found["false_alarm_rate"], curve["POFD"][::-1], atol=1e-6)
    assert_same(found["roc_area"], float(curve["AUC"]), atol=1e-6)
    assert np.isnan(found["roc_area"]) == (
        case in ("no events", "all events", "all missed", "all false", "constant")
    )


@each_case
@each_size
def test_rank_histogram_and_spread(case, size):
    scores = library("scores.probability")
    found = ensemble_scores(case, size)
    members, targets = ensemble(case, size)
    other = scores.rank_histogram(members, targets, "member")
    assert_same(found["rank_histogram"], other, atol=1e-6)
    error = np.sqrt(np.nanmean((members.mean("member") - targets) ** 2))
    assert_same(found["rmse"], error)
    if size > 1:
        known = members.where(targets.notnull())
        spread = np.sqrt(np.nanmean(known.var("member", ddof=1)))
        assert_same(found["spread"], spread, atol=1e-6)
        ratio = np.sqrt((size + 1) / size) * spread / error if error else np.nan
        assert_same(found["ratio"], ratio, atol=1e-6)
    else:
        assert found["spread"] == found["ratio"] == 0


@each_size
def test_crps_of_cells(size):
    scores = library("scores.probability")
    members, targets = ensemble("random", size)
    for fair, method in ((True, "fair"), (False, "ecdf")):
        if fair and size == 1:
            continue
        found = crps_lib.crps(members.to_numpy(), targets.to_numpy(), fair=fair)
        other = scores.crps_for_ensemble(
            members, targets, "member", method=method, preserve_dims="all"
        )
        assert_same(found, other, atol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c][2].all()])
def test_similarity(case):
    skimage = library("skimage.metrics")
    forecast, targets, _ = CASES[case]
    found = np.asarray(ssim(forecast, targets, 1.0))
    for place in np.ndindex(found.shape):
        other = skimage.structural_similarity(
            forecast[place].astype(np.float64),
            targets[place].astype(np.float64),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert found[place] == pytest.approx(other, abs=2e-6)
    sums = totals(case, "errors")
    noise = continuous.psnr({**sums, "squared": sums["squared"] * 255**2})
    for lead in range(2):
        pair = targets[:, lead], forecast[:, lead]
        with np.errstate(divide="ignore"):
            other = skimage.peak_signal_noise_ratio(*pair, data_range=1.0)
        assert noise[lead] == pytest.approx(other, rel=1e-5)


def errors_of_two(examples: int) -> np.ndarray:
    """Errors `[2, n]` of two forecasts, on examples that are hard for both at times."""
    rng = np.random.default_rng(2)
    hard = np.convolve(rng.normal(size=examples + 9), np.ones(10), "valid") ** 2
    return np.stack([hard + rng.normal(size=examples), hard + 0.2])


def test_intervals_are_those_of_its_block_bootstrap():
    """Circular blocks, the last one shortened; of a mean and of a paired difference."""
    processing, xr = library("scores.processing"), library("xarray")
    examples, block, samples = 125, 10, 4000
    errors = errors_of_two(examples)
    a, b = bootstrap.totals(bootstrap.draw(examples, block, samples), errors.T).T
    np.random.seed(0)  # the library draws from NumPy's global generator
    drawn = processing.block_bootstrap(
        xr.DataArray(errors, dims=("forecast", "start")),
        blocks={"start": block},
        n_iteration=samples,
    ).mean("start")
    for ours, theirs in ((a, drawn[0]), (b, drawn[1]), (a - b, drawn[0] - drawn[1])):
        found = bootstrap.interval(ours / examples)
        wanted = np.quantile(theirs, (0.05, 0.95))
        np.testing.assert_allclose(found, wanted, atol=0.05 * np.ptp(wanted))


def test_a_paired_test_is_that_of_diebold_and_mariano():
    """Independent starts: as corrected by Harvey, Leybourne and Newbold."""
    tests, xr = library("scores.stats.statistical_tests"), library("xarray")
    errors = errors_of_two(60)
    a, b = bootstrap.totals(bootstrap.draw(60, 1, 8000), errors.T).T / 60
    found = bootstrap.paired(a, b, 0.9, 60)
    gap = xr.DataArray(
        [errors[0] - errors[1]],
        dims=("lead", "start"),
        coords={"lead": [1], "h": ("lead", [1])},
    )
    other = tests.diebold_mariano(
        gap,
        "lead",
        "h",
        method="HLN",
        confidence_level=0.9,
        statistic_distribution="t",
    )
    assert found.value == pytest.approx(other["mean"].item())
    sure = other["confidence_gt_0"].item()
    assert found.p_value == pytest.approx(2 * min(sure, 1 - sure), abs=0.02)
    limits = [other["ci_lower"].item(), other["ci_upper"].item()]
    np.testing.assert_allclose(found.interval, limits, atol=0.05 * np.ptp(limits))
