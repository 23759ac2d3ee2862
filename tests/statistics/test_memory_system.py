import numpy as np
import pytest

from earthformer_jax.data.enso import gridded_sst
from earthformer_jax.data.splits import Dates
from earthformer_jax.statistics.linear_system import annual_factor
from earthformer_jax.statistics.memory import RATES, Months, leaky_integrals
from earthformer_jax.statistics.memory_system import fit_memory_system
from earthformer_jax.statistics.oscillator import fit_oscillator
from earthformer_jax.statistics.seasonal_fit import Choices
from tests import golden_files
from tests.statistics import small_ocean

OCEAN = small_ocean.OCEAN, small_ocean.LATITUDE, small_ocean.WEIGHTS
TWO = Choices(modes=2, ridge=1e-8, rate=small_ocean.RATE)


def fit(months, choices: Choices | None = TWO, out_len=6):
    return fit_memory_system(months, *OCEAN, out_len, choices=choices)


class TestFixedChoices:
    def test_recovers_a_known_system(self):
        record = small_ocean.months(40000, 0)
        model, some = fit([record]), np.arange(1000, 1012)
        index = np.einsum("nhw,hw->n", model.patterns, small_ocean.WEIGHTS)
        states = model.states(record.fields[some], record.memory[some])
        steps = model.system.transition[some % 12]
        found = np.einsum("mij,mj->mi", steps, states) @ index
        now = np.einsum("mhw,hw->m", record.fields[some], small_ocean.WEIGHTS)
        known = record.memory[some, RATES.index(small_ocean.RATE)]
        expected = small_ocean.SEASON[some % 12] * now + small_ocean.FEEDBACK * known
        np.testing.assert_allclose(found, expected, atol=0.03)

    def test_the_memory_follows_its_definition(self):
        """h' = exp(-rate / 12) h - T is fitted, and is found without being told."""
        record = small_ocean.months(3000, 1)
        model = fit([record])
        states = model.states(record.fields, record.memory)
        after = np.einsum(
            "mij,mj->mi", model.system.transition[np.arange(2999) % 12], states[:-1]
        )
        found = after[:, -1] * model.memory_std + model.memory_mean
        expected = record.memory[1:, RATES.index(small_ocean.RATE)]
        np.testing.assert_allclose(found, expected, atol=0.05)

    def test_the_noise_is_that_of_the_truth(self):
        model = fit([small_ocean.months(40000, 2, noise=0.3)])
        index = np.einsum("nhw,hw->n", model.patterns, small_ocean.WEIGHTS)
        variance = np.einsum("i,mij,j->m", index, model.system.noise, index)
        np.testing.assert_allclose(np.sqrt(variance), 0.3, rtol=0.05)

    def test_a_forecast_is_a_product_of_transitions(self):
        record = small_ocean.months(600, 3)
        model = fit([record])
        inputs = record.fields[200:203][None, ..., None]
        memory = record.memory[202][None]
        found = model(inputs, np.array([11]), memory)
        state = model.states(record.fields[202], record.memory[202])
        for lead in range(6):
            state = model.system.transition[(10 + lead) % 12] @ state
            expected = np.tensordot(state, model.patterns, 1)
            np.testing.assert_allclose(found[0, lead, ..., 0], expected, atol=1e-6)
        assert found.dtype == np.float32 and not found[:, :, ~OCEAN[0]].any()

    def test_gaps_between_series_are_no_steps(self):
        record = small_ocean.months(240, 4)
        halves = [
            Months(record.fields[:100], record.memory[:100], 0),
            Months(record.fields[100:], record.memory[100:], 100 % 12),
        ]
        jumped = [halves[1], halves[0]]
        one, other = fit(halves), fit(jumped)
        np.testing.assert_allclose(
            one.system.noise, other.system.noise, rtol=1e-6, atol=1e-12
        )

    def test_growth_is_damped(self):
        months = np.arange(600.0)
        fields = months[:, None, None] / 100 * small_ocean.patterns()[0]
        fields = fields + np.random.default_rng(5).normal(size=fields.shape)
        record = Months(fields, leaky_integrals(-months / 100), 0)
        model = fit([record], Choices(modes=4, ridge=1e-6, rate=0.5))
        assert annual_factor(model.system.transition) < 0.981


class TestErrors:
    def test_shapes_of_a_forecast_are_checked(self):
        model = fit([small_ocean.months(300, 0)])
        inputs = np.zeros((2, 3, 3, 6, 1))
        with pytest.raises(ValueError, match=r"memory has shape \(2, 1\)"):
            model(inputs, np.zeros(2, int), np.zeros((2, 1)))
        with pytest.raises(ValueError, match="inputs have shape"):
            model(inputs[..., 0], np.zeros(2, int), np.zeros((2, 4)))

    def test_months_are_checked(self):
        record = small_ocean.months(300, 0)
        with pytest.raises(ValueError, match="no months"):
            fit([])
        with pytest.raises(ValueError, match="no months"):
            fit([Months(record.fields[:0], record.memory[:0], 0)])
        with pytest.raises(ValueError, match="index is 0 K in all 300 months"):
            fit([Months(0 * record.fields, record.memory, 0)])
        with pytest.raises(ValueError, match="3 months are too few"):
            fit([Months(record.fields[:2], record.memory[:2], 0)] * 3, choices=None)
        with pytest.raises(ValueError, match="the memory is the same"):
            fit([Months(record.fields, np.zeros_like(record.memory), 0)])
        with pytest.raises(ValueError, match="must be finite"):
            fit([Months(record.fields * np.nan, record.memory, 0)])
        with pytest.raises(ValueError, match="do not match an ocean"):
            fit([Months(record.fields[:, :2], record.memory, 0)])
        springs = [small_ocean.months(6, i, first_month=2) for i in range(30)]
        with pytest.raises(ValueError, match="calendar months 1, 9, 10, 11, 12"):
            fit(springs)


class TestObservations:
    """Kaplan's analysis, trained to 1979-12, targets 1985-2014."""

    @pytest.fixture(scope="class")
    @classmethod
    def observed(cls):
        path = golden_files.shared_file(
            "data", "sst", "kaplan_pacific_ssta_1856_2014.nc"
        )
        dates = Dates(train_until="1979-12", validate_until="1984-12")
        data = gridded_sst.load(str(path), dates, in_len=12, out_len=14)
        fields = data.cube.frames.read(0, data.cube.frames.shape[0])[..., 0]
        fields = fields.astype(np.float64)
        index = np.einsum("mhw,hw->m", fields, data.nino_weights)
        return data, fields, index, leaky_integrals(index)

    def skill(self, observed, model):
        """Correlation of Nino3.4 by lead, and mean squared error of the map in K^2."""
        data, fields, index, memory = observed
        first, stop = data.periods["test"]
        starts = np.arange(first - 1, stop - 14)
        targets = starts[:, None] + np.arange(1, 15)
        inputs = fields[starts][:, None, ..., None]
        forecast = model(inputs, (starts + 1) % 12, memory[starts])[..., 0]
        found = np.einsum("bkhw,hw->bk", forecast, data.nino_weights)
        r = [
            np.corrcoef(a, b)[0, 1]
            for a, b in zip(found.T, index[targets].T, strict=True)
        ]
        error = (forecast - fields[targets])[..., data.grid.ocean]
        return np.array(r), np.mean(error**2)

    def train(self, observed):
        data, fields, _, memory = observed
        months = [Months(fields[:1488], memory[:1488], 0)]
        return months, data.grid, data.nino_weights

    def test_fixed_choices_have_the_skill_of_their_restatement(self, observed):
        """Correlations of an independent implementation, fitted from 1900."""
        months, grid, weights = self.train(observed)
        choices = Choices(modes=16, ridge=0.01, rate=1.0, skip=528)
        model = fit_memory_system(
            months, grid.ocean, grid.latitude, weights, 14, choices=choices
        )
        r, error = self.skill(observed, model)
        np.testing.assert_allclose(
            r[[2, 5, 8, 11]], [0.85, 0.64, 0.42, 0.32], atol=0.006
        )
        assert r[:12].mean() == pytest.approx(0.613, abs=0.002)
        assert error == pytest.approx(0.2970, abs=0.0005)

    def test_chosen_inside_the_training_period(self, observed):
        months, grid, weights = self.train(observed)
        model = fit_memory_system(months, grid.ocean, grid.latitude, weights, 14)
        r, error = self.skill(observed, model)
        assert r[:12].mean() > 0.60 and error < 0.94 * 0.328

    def test_oscillator(self, observed):
        months, grid, weights = self.train(observed)
        choices = Choices(ridge=0.01, rate=1.0, skip=1128)
        model = fit_oscillator(
            months,
            grid.ocean,
            grid.latitude,
            grid.longitude,
            weights,
            14,
            choices=choices,
        )
        r, _ = self.skill(observed, model)
        assert r[:12].mean() == pytest.approx(0.69, abs=0.01)
