"""Persistence, damped or not."""

import numpy as np

from earthformer_jax.data import references


def batch():
    rng = np.random.default_rng(0)
    return {"inputs": rng.standard_normal((2, 4, 3, 5, 2)).astype(np.float32)}


def test_persistence_repeats_the_last_frame():
    x = batch()
    forecast = references.persistence(3, 1)(x)
    assert forecast.dtype == np.float32
    np.testing.assert_array_equal(
        forecast, np.repeat(x["inputs"][:, -1:, ..., :1], 3, 1)
    )


def test_damped_persistence_goes_from_the_last_frame_to_climatology():
    """At every lead a share of the departure is left; it may depend on the cell."""
    x = batch()
    now, later = np.full((2, 1, 3, 5, 1), 0.5), np.arange(3.0)[:, None, None, None]
    factors = np.random.default_rng(1).random((3, 3, 5, 1))
    factors[0] = 1
    forecast = references.damped_persistence(
        3, 1, lambda: factors, lambda batch: (now, later)
    )(x)
    assert forecast.shape == (2, 3, 3, 5, 1) and forecast.dtype == np.float32
    last = x["inputs"][:, -1, ..., :1]
    np.testing.assert_allclose(forecast[:, 0], last - 0.5, atol=1e-6)
    for lead in (1, 2):
        expected = lead + factors[lead] * (last - 0.5)
        np.testing.assert_allclose(forecast[:, lead], expected, atol=1e-6)
