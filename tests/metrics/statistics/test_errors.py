import numpy as np
import pytest

from earthformer_jax.metrics.contract import dims_of
from earthformer_jax.metrics.statistics.errors import Errors

RNG = np.random.default_rng(0)
FORECAST, TRUTH = RNG.normal(size=(2, 3, 4, 5, 6, 2)).astype(np.float32)
ERROR = FORECAST.astype(np.float64) - TRUTH


def sums(statistic, **batch):
    return statistic(FORECAST, {"targets": TRUTH, **batch})


def test_channels_are_added_or_kept_apart():
    together = Errors(scale=2.0)
    assert dims_of(together) == ("lead",) and together.coords == {}
    found = sums(together)
    assert set(found) == set(together.names)
    squared = 4 * np.sum(ERROR**2, axis=(2, 3, 4))
    np.testing.assert_allclose(found["squared"], squared, rtol=1e-6)
    np.testing.assert_array_equal(found["weight"], np.full((3, 4), 60))
    np.testing.assert_array_equal(found["frames"], np.full((3, 4), 2))
    apart = Errors(("a", "b"), scale=(1.0, -3.0))
    assert dims_of(apart) == ("lead", "variable")
    assert apart.coords == {"variable": ("a", "b")}
    found = sums(apart)
    error = np.sum(ERROR * (1, -3), axis=(2, 3))
    np.testing.assert_allclose(found["error"], error, rtol=1e-5, atol=1e-5)
    absolute = np.sum(np.abs(ERROR) * (1, 3), axis=(2, 3))
    np.testing.assert_allclose(found["absolute"], absolute, rtol=1e-6)


def test_weights_regions_and_what_is_not_observed():
    weights = np.arange(5.0).reshape(5, 1, 1)
    half = np.tile(np.arange(6) < 3, (5, 1))
    observed = RNG.random(TRUTH.shape) > 0.3
    statistic = Errors(weights=weights, regions={"all": half | True, "half": half})
    assert statistic.coords == {"region": ("all", "half")}
    truth = np.where(observed & (weights > 0), TRUTH, np.nan)
    found = statistic(
        FORECAST,
        {"targets": truth, "observed": observed, "valid": np.arange(3) < 2},
    )
    share = np.where(observed, weights / 2, 0)
    want = np.sum((share * ERROR**2)[:, :, :, :3], axis=(2, 3, 4))
    np.testing.assert_allclose(found["squared"][:2, :, 1], want[:2], rtol=1e-6)
    whole = np.sum(share, axis=(2, 3, 4))
    np.testing.assert_allclose(found["weight"][:2, :, 0], whole[:2], rtol=1e-6)
    np.testing.assert_allclose(found["frames"][:2, :, 0], whole[:2] / 30, rtol=1e-6)
    for name, x in found.items():
        assert not np.any(x[2]), name  # padding


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"variables": ("a", "b"), "scale": (1.0,)}, "1 values for the 2 channels"),
        ({"weights": np.zeros(1)}, "all cells are zero"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Errors(**settings)


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="2 channels; the scores name 1: a"):
        sums(Errors(("a",)))
