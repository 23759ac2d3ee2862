import functools

import numpy as np
import pytest

from earthformer_jax.statistics import linear_system
from earthformer_jax.statistics.linear_system import LinearSystem, generator


@functools.cache
def random_system(hidden: bool = True) -> LinearSystem:
    """Four states, seasonal; with `hidden`, two noisy combinations are observed."""
    rng = generator(0)
    season = linear_system.harmonics_of(np.arange(12), 1)
    parts = rng.normal(size=(3, 4, 4)) * np.array([0.25, 0.1, 0.1])[:, None, None]
    transition = 0.6 * np.eye(4) + np.einsum("mb,bij->mij", season, parts)
    roots = rng.normal(size=(12, 4, 4)) * 0.4
    noise = roots @ roots.swapaxes(1, 2) + 0.1 * np.eye(4)
    if not hidden:
        return LinearSystem(transition, noise)
    return LinearSystem(
        transition, noise, rng.normal(size=(2, 4)), np.array([[0.3, 0.1], [0.1, 0.2]])
    )


def kalman_forecast(system, y, start_month, out_len):
    """Textbook recursion: predict and correct month by month, then predict on."""
    month = (start_month - len(y)) % 12
    mean, cov = np.zeros(system.transition.shape[-1]), system.covariance[month]
    h = system.observation
    for i, seen in enumerate(y):
        gain = cov @ h.T @ np.linalg.inv(h @ cov @ h.T + system.observation_noise)
        mean = mean + gain @ (seen - h @ mean)
        cov = cov - gain @ h @ cov
        a = system.transition[(month + i) % 12]
        mean, cov = a @ mean, a @ cov @ a.T + system.noise[(month + i) % 12]
    means = []
    for i in range(out_len):
        means.append(h @ mean)
        mean = system.transition[(start_month + i) % 12] @ mean
    return np.array(means)


class TestLaws:
    def test_stationary_covariance_is_carried_from_month_to_month(self):
        s = random_system()
        carried = s.transition @ s.covariance @ s.transition.swapaxes(1, 2) + s.noise
        np.testing.assert_allclose(carried, np.roll(s.covariance, -1, 0), atol=1e-12)

    def test_stationary_covariance_is_that_of_a_simulation(self):
        s = random_system()
        x = s.simulate(generator(1), 4, 14, count=40000)
        for i in (0, 5, 13):
            found = np.cov(x[:, i].T)
            expected = s.covariance[(4 + i) % 12]
            np.testing.assert_allclose(
                found, expected, atol=0.03 * expected.diagonal().max()
            )

    def test_window_covariance_is_that_of_a_simulation(self):
        s = random_system()
        y = s.observe(s.simulate(generator(2), 10, 5, count=40000))
        found = np.cov(y.reshape(len(y), -1).T)
        expected = s.window_covariance(10, 5)
        np.testing.assert_allclose(
            found, expected, atol=0.03 * expected.diagonal().max()
        )
        np.testing.assert_allclose(expected, expected.T, rtol=1e-12)

    @pytest.mark.parametrize("start_month", (0, 5))
    def test_conditional_forecast_is_the_kalman_forecast(self, start_month):
        s = random_system()
        y = generator(3).normal(size=(2, 7, 2))
        found = s.conditional_forecast(y, np.full(2, start_month), 6)
        for i in range(2):
            expected = kalman_forecast(s, y[i], start_month, 6)
            np.testing.assert_allclose(found[i], expected, atol=1e-10)

    def test_no_other_linear_forecast_is_better(self):
        s, q, past, future = random_system(), 2, 6, 4
        joint = s.window_covariance(2, past + future)
        joint[: past * q, : past * q] += np.kron(np.eye(past), s.observation_noise)
        seen, cross = joint[: past * q, : past * q], joint[past * q :, : past * q]
        best = s.regression((2 + past) % 12, past, future).reshape(future * q, -1)

        def error(operator):
            spread = joint[past * q :, past * q :] + operator @ seen @ operator.T
            return np.diag(spread - operator @ cross.T - cross @ operator.T)

        rng = generator(4)
        for size in (1e-3, 1e-1, 1.0):
            other = best + size * rng.normal(size=best.shape)
            assert np.all(error(other) > error(best))
        np.testing.assert_allclose(best @ seen, cross, atol=1e-10)

    def test_errors_of_the_best_forecast_have_the_covariance_that_is_known(self):
        s = random_system()
        rng = generator(6)
        states = s.simulate(rng, 3, 9, count=40000)
        seen = s.observe(states[:, :5], rng)
        start = np.full(len(seen), 8)
        errors = s.observe(states[:, 5:]) - s.conditional_forecast(seen, start, 4)
        expected = s.error_covariance(8, 5, 4)
        for k in range(4):
            limit = 0.03 * expected[k].diagonal().max()
            np.testing.assert_allclose(np.cov(errors[:, k].T), expected[k], atol=limit)

    def test_a_visible_state_needs_no_history(self):
        s = random_system(hidden=False)
        x = generator(5).normal(size=(3, 8, 4))
        month = np.array([0, 7, 11])
        np.testing.assert_allclose(
            s.conditional_forecast(x, month, 5),
            s.forecast(x[:, -1], month, 5),
            atol=1e-9,
        )

    def test_forecast_follows_a_noise_free_path(self):
        s = random_system()
        quiet = LinearSystem(s.transition, np.zeros_like(s.noise))
        path = [np.array([1.0, -2.0, 0.5, 3.0])]
        for i in range(14):
            path.append(s.transition[(9 + i) % 12] @ path[-1])
        found = quiet.forecast(path[0][None], np.array([10]), 14)
        np.testing.assert_allclose(found[0], path[1:], rtol=1e-12)

    def test_directions_without_variance_are_allowed(self):
        noise = np.broadcast_to(np.diag([1.0, 0.0]), (12, 2, 2))
        a = np.broadcast_to(np.diag([0.5, 0.5]), (12, 2, 2))
        operator = LinearSystem(a, noise).regression(0, 3, 1)
        np.testing.assert_allclose(operator[0, 0, -1], [0.5, 0.0], atol=1e-9)
        np.testing.assert_allclose(operator[0, 1], 0.0, atol=1e-9)

    def test_simulation_depends_on_the_key_alone(self):
        s = random_system()
        first = s.simulate(generator(0, 1, 7), 3, 9)
        s.simulate(generator(0, 1, 8), 3, 9)
        again = s.simulate(generator(0, 1, 7), 3, 9)
        np.testing.assert_array_equal(first, again)
        assert np.any(first != s.simulate(generator(0, 1, 8), 3, 9))
        assert np.any(first != s.simulate(generator(1, 1, 7), 3, 9))

    def test_observation_noise_has_its_covariance(self):
        s = random_system()
        noise = s.observe(np.zeros((60000, 4)), generator(6))
        np.testing.assert_allclose(np.cov(noise.T), s.observation_noise, atol=0.01)


class TestFit:
    def test_recovers_the_plain_system_from_its_covariances(self):
        a = np.array([[0.9, 0.2], [-0.2, 0.8]])
        q = np.array([[0.5, 0.1], [0.1, 0.3]])
        truth = LinearSystem(np.stack([a] * 12), np.stack([q] * 12))
        z = truth.simulate(generator(0), 0, 60000)[0]
        fitted = LinearSystem.fit(z, 0, lags=1, harmonics=0)
        np.testing.assert_allclose(fitted.transition[3], a, atol=0.01)
        np.testing.assert_allclose(fitted.noise[3], q, atol=0.02)

    def test_recovers_seasons_and_memory(self):
        rng = generator(1)
        season = linear_system.harmonics_of(np.arange(12), 1)
        a = np.zeros((12, 4, 4))
        parts = np.stack([0.5 * np.eye(2), *(0.15 * rng.normal(size=(2, 2, 2)))])
        a[:, :2, :2] = np.einsum("mb,bij->mij", season, parts)
        a[:, :2, 2:] = 0.3 * np.eye(2)
        a[:, 2:, :2] = np.eye(2)
        q = np.zeros((12, 4, 4))
        q[:, :2, :2] = np.eye(2)
        truth = LinearSystem(a, q, np.eye(2, 4))
        z = truth.observe(truth.simulate(generator(2), 5, 120000)[0])
        fitted = LinearSystem.fit(
            z, 5, lags=2, harmonics=1, seasonal_ridge=0, lag_ridge=0
        )
        np.testing.assert_allclose(fitted.transition, a, atol=0.02)
        np.testing.assert_allclose(fitted.noise, q, atol=0.05)
        np.testing.assert_allclose(
            fitted.covariance, truth.covariance, rtol=0.05, atol=0.05
        )

    def test_the_ridge_shrinks_what_it_should(self):
        z = generator(3).normal(size=(600, 3))
        free = LinearSystem.fit(z, 0, seasonal_ridge=0, lag_ridge=0)
        ridged = LinearSystem.fit(z, 0, seasonal_ridge=1e6, lag_ridge=1e6)
        flat = LinearSystem.fit(z, 0, lags=1, harmonics=0)
        assert np.abs(free.transition[:, :3, 3:]).max() > 0.01
        np.testing.assert_allclose(ridged.transition[:, :3, 3:], 0, atol=1e-4)
        np.testing.assert_allclose(
            ridged.transition[:, :3, :3], flat.transition, atol=5e-3
        )

    def test_no_pair_reaches_across_series(self):
        z = generator(4).normal(size=(200, 2))
        whole = LinearSystem.fit(z, 0, lags=1, harmonics=0)
        far = z[100:] + 0.0
        parted = LinearSystem.fit([z[:100], far], 0, lags=1, harmonics=0)
        x = np.delete(np.arange(199), 99)
        expected = np.linalg.lstsq(z[x], z[x + 1], rcond=None)[0].T
        np.testing.assert_allclose(parted.transition[0], expected, atol=1e-12)
        assert np.any(whole.transition != parted.transition)

    def test_a_trend_does_not_make_it_grow(self):
        months = np.arange(600.0)
        z = np.stack([months, np.sin(months)], 1) + generator(5).normal(size=(600, 2))
        fitted = LinearSystem.fit(z, 0)
        limit = linear_system.MAX_ANNUAL_FACTOR
        assert linear_system.annual_factor(fitted.transition) <= limit + 1e-9

    def test_noise_is_definite(self):
        z = generator(6).normal(size=(400, 1)) * np.array([1.0, 2.0])
        noise = LinearSystem.fit(z, 0, lags=1, harmonics=0, lag_ridge=0).noise
        assert np.linalg.eigvalsh(noise).min() > 0


class TestErrors:
    def test_a_growing_system_is_refused(self):
        a = np.stack([1.01 * np.eye(2)] * 12)
        with pytest.raises(ValueError, match="grows by 1.127 a year"):
            LinearSystem(a, np.zeros_like(a))

    def test_shapes_are_checked(self):
        a = np.zeros((12, 2, 2))
        with pytest.raises(ValueError, match=r"noise has shape \(12, 3, 3\)"):
            LinearSystem(a, np.zeros((12, 3, 3)))
        with pytest.raises(ValueError, match="observation has shape"):
            LinearSystem(a, a, np.zeros((1, 3)))

    def test_values_are_checked(self):
        a = np.zeros((12, 2, 2))
        with pytest.raises(ValueError, match="not finite"):
            LinearSystem(a, a * np.nan)
        with pytest.raises(ValueError, match="months that are not finite"):
            LinearSystem.fit(np.full((100, 2), np.nan), 0)

    def test_short_series_are_refused(self):
        with pytest.raises(ValueError, match="series of 3 months"):
            LinearSystem.fit(np.zeros((3, 2)), 0, lags=3)
        with pytest.raises(ValueError, match="29 months are too few for 20 free"):
            LinearSystem.fit(np.ones((30, 20)), 0, lags=1, harmonics=0)
