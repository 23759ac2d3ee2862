import functools

import numpy as np
import pytest

from earthformer_jax.data.enso import twin
from earthformer_jax.statistics import linear_system, references

IN_LEN, OUT_LEN = 12, 14


@functools.cache
def windows(count: int = 500):
    source = twin.TwinSource("test", count, IN_LEN, OUT_LEN)
    examples = [source[i] for i in range(count)]
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


@functools.cache
def reference(name: str) -> np.ndarray:
    inputs, start_month = windows()["inputs"], windows()["start_month"]
    if name == "ceiling":
        return twin.ceiling_forecast(inputs, start_month, OUT_LEN)
    last = np.repeat(inputs[:, -1:], OUT_LEN, axis=1)
    if name == "persistence":
        return last
    series, ocean = twin.training_series(0, 2400), twin.OCEAN_MASK
    if name == "damped_persistence":
        return references.damping_factors([series], ocean, OUT_LEN)[..., None] * last
    fitted = references.fit_lim(series, ocean, 0, OUT_LEN, latitude=twin.LATITUDE)
    return fitted(inputs, start_month)


def monthly_index(fields) -> np.ndarray:
    return fields[..., twin.NINO34_ROWS, twin.NINO34_COLUMNS, 0].mean((-2, -1))


def skill(fields) -> np.ndarray:
    """Correlation of the three-month index at leads 1..12."""

    def index(x):
        n = monthly_index(x)
        return (n[:, :-2] + n[:, 1:-1] + n[:, 2:]) / 3

    pairs = zip(index(fields).T, index(windows()["targets"]).T, strict=True)
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in pairs])


@functools.cache
def exact_skill() -> tuple[float, float]:
    """Mean correlation of ceiling and persistence over leads, from covariances."""
    system = twin.system()
    cells = np.zeros(twin.OCEAN_MASK.shape)
    cells[twin.NINO34_ROWS, twin.NINO34_COLUMNS] = 1 / 33
    weights = twin.patterns() @ cells[twin.OCEAN_MASK]
    q = len(weights)
    three = sum(np.eye(12, OUT_LEN, k) for k in range(3)) / 3
    explained, total, with_last, last = np.zeros((4, 12))
    for month in range(12):
        joint = system.window_covariance(month - IN_LEN, IN_LEN + OUT_LEN)
        index = np.einsum("iajb,a,b->ij", joint.reshape(26, q, 26, q), weights, weights)
        operator = system.regression(month, IN_LEN, OUT_LEN)
        operator = np.einsum("kqtp,q->ktp", operator, weights).reshape(OUT_LEN, -1)
        # Cov(forecast, truth) = Var(forecast) for a conditional expectation.
        future = joint[: IN_LEN * q, IN_LEN * q :].reshape(-1, OUT_LEN, q) @ weights
        explained += np.diag(three @ operator @ future @ three.T)
        total += np.diag(three @ index[IN_LEN:, IN_LEN:] @ three.T)
        with_last += three @ index[IN_LEN:, IN_LEN - 1]
        last += index[IN_LEN - 1, IN_LEN - 1]
    ceiling = np.sqrt(explained / total)
    return ceiling.mean(), (with_last / np.sqrt(total * last)).mean()


class TestClimate:
    def test_nino34_varies_as_observed(self):
        w = windows()
        fields = np.concatenate([w["inputs"], w["targets"]], axis=1)
        months = (w["start_month"][:, None] - IN_LEN + np.arange(26)) % 12
        index = monthly_index(fields)
        std = np.array([index[months == m].std() for m in range(12)])
        assert 0.7 < std.mean() < 0.95
        assert std.argmax() in (10, 11, 0)  # November to January
        assert std.argmin() in (3, 4, 5)  # April to June
        assert std.max() > 1.4 * std.min()

    def test_period_is_that_of_el_nino(self):
        covariance = twin.system().window_covariance(0, 61)
        q = len(twin.patterns())
        lagged = covariance[::q, 0][1:]
        assert 20 < lagged.argmin() + 1 < 36  # half a period
        assert lagged.min() < -0.25 * covariance[0, 0]

    def test_other_basins_follow_el_nino(self):
        system, names = twin.system(), list(twin.MODES)
        for name, sign in (("tropical_north_atlantic", 1), ("indian_dipole", -1)):
            i = 2 + names.index(name)
            s = system.covariance
            correlation = s[:, 0, i] / np.sqrt(s[:, 0, 0] * s[:, i, i])
            assert np.max(sign * correlation) > 0.25

    def test_volume_leads_temperature_and_is_hidden(self):
        system = twin.system()
        assert not system.observation[:, 1].any()
        joint = linear_system.LinearSystem(
            system.transition, system.noise
        ).window_covariance(0, 13)
        n = system.transition.shape[-1]
        assert joint[9 * n, 1] > 0.3 * np.sqrt(joint[1, 1] * joint[9 * n, 9 * n])


class TestForecasts:
    def test_exact_skill_is_like_that_of_the_literature(self):
        ceiling, persistence = exact_skill()
        assert 0.70 < ceiling < 0.80
        assert 0.35 < persistence < 0.45

    def test_measured_skill_agrees_with_the_exact_one(self):
        ceiling, persistence = exact_skill()
        assert abs(skill(reference("ceiling")).mean() - ceiling) < 0.06
        assert abs(skill(reference("persistence")).mean() - persistence) < 0.12

    def test_references_are_ordered(self):
        persistence, lim, ceiling = (
            skill(reference(n)) for n in ("persistence", "lim", "ceiling")
        )
        assert ceiling.mean() > lim.mean() + 0.1 > persistence.mean() + 0.15
        assert np.all(ceiling[2:] > lim[2:])
        assert np.all(lim[2:] > persistence[2:])

    def test_ceiling_has_the_smallest_error(self):
        truth = windows()["targets"]
        errors = {
            name: np.mean((reference(name) - truth) ** 2)
            for name in ("persistence", "damped_persistence", "lim", "ceiling")
        }
        assert min(errors, key=errors.get) == "ceiling"
        best = reference("ceiling")
        for factor in (0.8, 1.2):
            assert np.mean((factor * best - truth) ** 2) > errors["ceiling"]

    def test_errors_of_the_ceiling_have_the_spread_that_is_known(self):
        w, box = windows(), np.zeros(twin.OCEAN_MASK.shape)
        box[twin.NINO34_ROWS, twin.NINO34_COLUMNS] = 1 / 33
        error = (w["targets"] - reference("ceiling"))[..., 0]
        spread = twin.ceiling_spread(w["start_month"], IN_LEN, OUT_LEN)[..., 0]
        assert not spread[..., ~twin.OCEAN_MASK].any()
        ratio = (error / np.where(spread > 0, spread, 1))[..., twin.OCEAN_MASK]
        np.testing.assert_allclose(ratio.std(axis=(0, 2)), 1, atol=0.05)
        index = np.einsum("bkhw,hw->bk", error, box)
        expected = twin.ceiling_spread(w["start_month"], IN_LEN, OUT_LEN, box)
        np.testing.assert_allclose((index / expected).std(axis=0), 1, atol=0.12)

    def test_history_matters(self):
        w = windows()
        one = twin.ceiling_forecast(w["inputs"][:, -1:], w["start_month"], OUT_LEN)
        assert skill(reference("ceiling")).mean() > skill(one).mean() + 0.05


class TestSource:
    def test_grid(self):
        assert twin.OCEAN_MASK.shape == (24, 48)
        assert twin.LATITUDE[[0, -1]].tolist() == [-55, 60]
        assert twin.LONGITUDE[[0, -1]].tolist() == [95, 330]
        assert twin.LATITUDE[twin.NINO34_ROWS].tolist() == [-5, 0, 5]
        assert twin.LONGITUDE[twin.NINO34_COLUMNS][[0, -1]].tolist() == [190, 240]
        assert twin.OCEAN_MASK[twin.NINO34_ROWS, twin.NINO34_COLUMNS].all()
        north_pacific, brazil = (19, 20), (9, 42)
        assert twin.OCEAN_MASK[north_pacific] and not twin.OCEAN_MASK[brazil]

    def test_a_window_is_a_function_of_seed_split_and_index(self):
        def inputs(split="train", seed=0, index=3, size=10):
            return twin.TwinSource(split, size, 3, 3, seed)[index]["inputs"]

        np.testing.assert_array_equal(inputs(), inputs(size=99))
        for other in ({"split": "test"}, {"seed": 1}, {"index": 4}):
            assert np.any(inputs() != inputs(**other))

    def test_shapes_units_and_land(self):
        example = twin.TwinSource("train", 1, 5, 2)[0]
        assert example["inputs"].shape == (5, 24, 48, 1)
        assert example["targets"].shape == (2, 24, 48, 1)
        assert example["inputs"].dtype == np.float32
        assert not example["inputs"][:, ~twin.OCEAN_MASK].any()
        assert 0 <= example["start_month"] < 12

    def test_errors(self):
        with pytest.raises(ValueError, match="'dev' is unknown; use one of train"):
            twin.TwinSource("dev", 1, 1, 1)
        with pytest.raises(ValueError, match="out_len=0 must be positive"):
            twin.TwinSource("test", 1, 1, 0)
        with pytest.raises(IndexError):
            twin.TwinSource("test", 1, 1, 1)[1]
