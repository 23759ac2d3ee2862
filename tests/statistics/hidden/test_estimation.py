"""Expectation maximisation against systems that are known."""

import numpy as np
import pytest

from earthformer_jax.statistics.hidden import estimation
from earthformer_jax.statistics.hidden.estimation import MARGIN, Blocks, Gains
from earthformer_jax.statistics.linear_system import LinearSystem, generator

SEASON = np.cos(2 * np.pi * (np.arange(12) + 0.5) / 12)


def system(push: float = 0.2, noise: float = 0.1, forgets: float = 0.0) -> LinearSystem:
    """An oscillator of which the first of two states is seen, with seasons."""
    a = np.tile(np.array([[0.9, push], [-0.15, 0.95]]), (12, 1, 1))
    a[:, 0, 0] += 0.08 * SEASON
    a *= 1 - forgets
    q = np.tile(np.diag([0.3, 0.05]), (12, 1, 1))
    return LinearSystem(a, q, np.eye(1, 2), noise * np.eye(1))


def record(months: int, seed: int = 0):
    rng, truth = generator(seed, 1), system()
    states = truth.simulate(rng, 0, months)[0]
    return states, truth.observe(states, rng)


def blocks(seen, kept=None, first_month: int = 0) -> Blocks:
    months = np.arange(len(seen))
    kept = np.ones(len(seen), bool) if kept is None else kept
    return Blocks.of(seen, (first_month + months) % 12, 0 * months, kept)


class TestBlocks:
    def test_hold_every_month_once_between_their_margins(self):
        seen = 1.0 + np.arange(250)[:, None]
        kept = np.arange(250) != 77
        made = blocks(seen, kept, first_month=5)
        assert made.values.shape == (192, 3, 1)
        inner = made.values[MARGIN:-MARGIN].swapaxes(0, 1).ravel()
        np.testing.assert_array_equal(inner[5:255], np.where(kept, seen[:, 0], 0))
        np.testing.assert_array_equal(made.known, made.values[..., 0] > 0)
        np.testing.assert_array_equal(made.values[:-120, 1], made.values[120:, 0])

    def test_keep_series_apart(self):
        seen, series = np.ones((60, 1)), np.repeat([0, 1], 30)
        made = Blocks.of(seen, np.arange(60) % 12, series, np.ones(60, bool))
        assert made.known.shape == (192, 2)
        np.testing.assert_array_equal(made.known.sum(axis=0), [30, 30])


@pytest.mark.parametrize("gap", [False, True])
def test_the_smoother_is_the_conditional_expectation(gap):
    """Of all months, by solving for the joint normal distribution."""
    truth, (_, seen) = system(forgets=0.3), record(120)
    kept = np.ones(120, bool)
    if gap:
        kept[50:55] = False
    made = blocks(seen, kept)
    states = estimation.smoothed(truth, Gains.of(truth), made)[MARGIN:-MARGIN, 0]
    whole = LinearSystem(truth.transition, truth.noise).window_covariance(0, 120)
    rows = 2 * np.flatnonzero(kept)
    covariance = whole[np.ix_(rows, rows)] + 0.1 * np.eye(len(rows))
    expected = whole[:, rows] @ np.linalg.solve(covariance, seen[kept, 0])
    expected = expected.reshape(120, 2)
    # Gains of an endless record are not exact at its start and in gaps.
    inner, error = (slice(0, 120), 0.25) if gap else (slice(36, 120), 1e-5)
    np.testing.assert_allclose(states[inner], expected[inner], rtol=0, atol=error)


def test_a_hidden_state_is_found():
    """The estimate forecasts as well as the truth, from a start that knows little."""
    truth, (_, seen) = system(), record(9600)
    start = system(push=0.05, noise=0.5)
    start = LinearSystem(
        start.transition - 0.1 * np.eye(2), 2 * start.noise, start.observation, [[0.5]]
    )
    found = estimation.improved(start, blocks(seen[:4800]), 1e-6, 60)
    begins = np.arange(4800, 9500, 7)
    inputs = seen[begins[:, None] + np.arange(-12, 0)]
    targets = seen[begins[:, None] + np.arange(6)]

    def error(x: LinearSystem) -> float:
        return float(
            np.mean((x.conditional_forecast(inputs, begins % 12, 6) - targets) ** 2)
        )

    best, first, ours = error(truth), error(start), error(found)
    assert first > 1.1 * best
    assert ours < 1.02 * best
    assert found.observation_noise[0, 0] == pytest.approx(0.1, rel=0.5)


def test_months_that_are_not_kept_do_not_matter():
    _, seen = record(600)
    kept = np.arange(600) // 100 != 2
    changed = np.where(kept[:, None], seen, 99.0)
    first, second = (
        estimation.improved(system(), blocks(x, kept), 1e-3, 2) for x in (seen, changed)
    )
    np.testing.assert_array_equal(first.transition, second.transition)
    np.testing.assert_array_equal(first.noise, second.noise)
