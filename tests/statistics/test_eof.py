import numpy as np
import pytest

from earthformer_jax.statistics import eof

LATITUDE = np.array([-50.0, 0.0, 30.0])
OCEAN = np.array([[1, 1, 0, 1], [1, 1, 1, 1], [0, 1, 1, 1]], bool)


def anomalies(months: int = 80, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(10, 3, 4)) * 0.7 ** np.arange(10)[:, None, None]
    return np.einsum("tk,khw->thw", rng.normal(size=(months, 10)), patterns) * OCEAN


def test_amplitudes_are_uncorrelated_and_sorted():
    x = anomalies()
    basis = eof.fit_eofs([x], OCEAN, LATITUDE)
    z = basis.amplitudes(x)
    covariance = z.T @ z / len(z)
    np.testing.assert_allclose(covariance, np.diag(basis.variance), atol=1e-10)
    assert np.all(np.diff(basis.variance) <= 0)


def test_patterns_are_orthonormal_by_area():
    basis = eof.fit_eofs([anomalies()], OCEAN, LATITUDE)
    area = np.broadcast_to(np.cos(np.deg2rad(LATITUDE))[:, None], OCEAN.shape)[OCEAN]
    gram = basis.patterns * area @ basis.patterns.T
    np.testing.assert_allclose(gram, np.eye(len(gram)), atol=1e-10)


def test_all_patterns_together_restore_the_fields():
    x = anomalies()
    basis = eof.fit_eofs([x], OCEAN, LATITUDE)
    np.testing.assert_allclose(basis.fields(basis.amplitudes(x)), x, atol=1e-10)
    assert not basis.fields(np.ones((2, len(basis.variance))))[:, ~OCEAN].any()


def test_parts_add_up():
    x = anomalies()
    basis = eof.fit_eofs([x], OCEAN, LATITUDE)
    first, rest = basis.part(slice(3)), basis.part(slice(3, None))
    both = first.fields(first.amplitudes(x)) + rest.fields(rest.amplitudes(x))
    np.testing.assert_allclose(both, x, atol=1e-10)


def test_several_series_are_one_sample():
    x = anomalies()
    one = eof.fit_eofs([x], OCEAN, LATITUDE, 4)
    two = eof.fit_eofs([x[:30], x[30:]], OCEAN, LATITUDE, 4)
    np.testing.assert_allclose(one.variance, two.variance)


def test_errors():
    x = anomalies(months=4)
    with pytest.raises(ValueError, match="have 4 EOFs, fewer than modes=6"):
        eof.fit_eofs([x], OCEAN, LATITUDE, 6)
    x[1, 1, 1] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        eof.fit_eofs([x], OCEAN, LATITUDE)
