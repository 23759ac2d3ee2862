import dataclasses

import numpy as np
import pytest

from earthformer_jax.reports.probabilities import dressing
from earthformer_jax.reports.probabilities.dressing import Habits, dress

SHAPE = (2, 4, 5, 1)
ONES = np.ones((1, 1, 1, 1))


@dataclasses.dataclass(frozen=True)
class Examples:
    """Targets that miss a known forecast by what `errors` draws."""

    errors: object
    count: int = 60
    seed: int = 0
    gap: bool = False

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        rng = np.random.default_rng((self.seed, i))
        forecast = rng.integers(0, 2, size=SHAPE).astype(np.float32)
        error = self.errors(rng, forecast)  # pyright: ignore
        example = {"inputs": forecast, "targets": (forecast + error).astype(np.float32)}
        if self.gap:
            example["observed"] = np.ones(SHAPE, bool)
            example["observed"][0] = False
            example["targets"][0] = np.nan
        return example


def known(batch):
    return batch["inputs"]


def by_lead(rng, forecast):
    """N(0.5, 0.3) at the first lead, N(-1, 2) at the second."""
    mean, std = np.array([0.5, -1.0]), np.array([0.3, 2.0])
    return (mean + std * rng.normal(size=(*SHAPE[1:], 2))).transpose(3, 0, 1, 2)


def dressed(errors, quantiles=19, count=60, gap=False, weights=ONES, **habits):
    examples = Examples(errors, count, gap=gap)
    learned_from = Habits(weights, **habits)
    return dress({"known": known}, examples, learned_from, 7, quantiles)["known"]


def test_quantiles_are_those_of_the_errors_at_each_lead():
    found = dressed(by_lead).quantiles
    assert found.shape == (19, 1, 2, 1)
    assert found[9, 0, :, 0] == pytest.approx([0.5, -1.0], abs=0.1)
    spread = found[:, 0, :, 0].std(axis=0)
    assert spread == pytest.approx([0.3, 2.0], rel=0.08)


def test_values_are_as_often_above_as_below_each_quantile():
    forecast = dressed(by_lead)
    examples = Examples(by_lead, 80, seed=1)
    batch = {k: np.stack([examples[i][k] for i in range(80)]) for k in examples[0]}
    values = forecast(batch)
    assert values.shape == (19, 80, *SHAPE) and values.dtype == np.float32
    below = np.mean(batch["targets"] < values, axis=(1, 2, 3, 4, 5))
    np.testing.assert_allclose(below, (np.arange(19) + 0.5) / 19, atol=0.04)


def test_errors_can_depend_on_the_forecast_and_on_the_cell():
    def errors(rng, forecast):  # larger where 1 is forecast
        return (0.1 + forecast) * rng.normal(size=SHAPE)

    found = dressed(errors, edges=(0.5,), count=200)
    spread = found.quantiles[..., 0].std(axis=0)
    assert spread[0] == pytest.approx([0.1, 0.1], rel=0.1)
    assert spread[1] == pytest.approx([1.1, 1.1], rel=0.1)
    inputs = np.zeros((1, *SHAPE), np.float32)
    inputs[:, :, 0] = 1
    values = found({"inputs": inputs}).std(axis=0)
    assert values[0, 0, 0].min() > 8 * values[0, 0, 1].max()

    size = np.linspace(0.2, 1, 20).reshape(4, 5, 1)
    found = dressed(lambda rng, _: size * rng.normal(size=SHAPE), by_cell=True)
    np.testing.assert_allclose(found.scale / found.scale[-1, -1], size, rtol=0.35)


def test_few_errors_of_a_kind_are_not_a_kind_of_their_own():
    def errors(rng, forecast):
        return rng.normal(size=SHAPE)

    found = dressed(errors, edges=(5.0,)).quantiles  # nothing above 5 is forecast
    np.testing.assert_array_equal(found[:, 0], found[:, 1])


def test_what_is_not_observed_or_has_no_weight_is_not_learned_from():
    weights = np.ones((1, 4, 5, 1))
    weights[:, 0] = 0

    def errors(rng, forecast):
        error = rng.normal(size=SHAPE)
        error[:, 0] = 1e6
        return error

    found = dressed(errors, weights=weights, gap=True, by_cell=True)
    assert np.abs(found.quantiles).max() < 5  # the first lead has those of the second
    assert np.isfinite(found.scale).all()


def test_values_stay_within_their_limits_and_samples_are_enough(monkeypatch):
    batch = {"inputs": np.zeros((1, *SHAPE), np.float32)}
    values = dressed(by_lead, limits=(0.0, 1.0))(batch)
    assert values.min() == 0 and values.max() == 1
    monkeypatch.setattr(dressing, "SAMPLED", 300)  # of 60 * 20
    found = dressed(by_lead).quantiles
    assert found[9, 0, :, 0] == pytest.approx([0.5, -1.0], abs=0.4)


def test_a_forecast_that_is_not_always_there_is_learned_from_where_it_is():
    def sometimes(batch):
        return np.where(batch["inputs"] > 0, batch["inputs"], np.nan)

    forecasts = {
        "known": known,
        "sometimes": sometimes,
        "never": lambda b: known(b) * np.nan,
    }
    found = dress(forecasts, Examples(by_lead), Habits(ONES), 7, 19)
    assert list(found) == ["known", "sometimes"]
    middle = found["sometimes"].quantiles[9, 0, :, 0]
    assert middle == pytest.approx([0.5, -1.0], abs=0.2)
