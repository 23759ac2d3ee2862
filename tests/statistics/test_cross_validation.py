import dataclasses

import numpy as np
import pytest

from earthformer_jax.statistics import cross_validation, memory_system
from earthformer_jax.statistics.cross_validation import blocks
from earthformer_jax.statistics.memory import Months
from earthformer_jax.statistics.memory_system import fit_memory_system
from earthformer_jax.statistics.oscillator import fit_oscillator
from earthformer_jax.statistics.record import Record
from earthformer_jax.statistics.seasonal_fit import Choices, Sums
from tests.statistics import small_ocean

OCEAN = small_ocean.OCEAN, small_ocean.LATITUDE, small_ocean.WEIGHTS
LONGITUDE = np.array([185.0, 195.0, 210.0, 225.0, 240.0, 255.0])


def record_of(*months) -> Record:
    return Record.of(months, *OCEAN)


def noisy(length: int, seed: int, first_month: int = 0) -> Months:
    """The small ocean, with noise in every cell, so that no cell is redundant."""
    months = small_ocean.months(length, seed, first_month=first_month)
    noise = 0.2 * np.random.default_rng(seed).normal(size=months.fields.shape)
    fields = np.where(OCEAN[0], months.fields + noise, np.nan)
    return dataclasses.replace(months, fields=fields)


def part(months: Months, first: int, stop: int) -> Months:
    month = (months.first_month + first) % 12
    return Months(months.fields[first:stop], months.memory[first:stop], month)


class TestBlocks:
    def test_a_long_series_ends_with_sixteen_of_five_years(self):
        found = blocks(record_of(small_ocean.months(1488, 0)))
        assert found[0] == (528, 588) and found[-1] == (1428, 1488)
        assert len(found) == 16

    def test_shorter_ones_have_fewer_and_shorter(self):
        assert len(blocks(record_of(small_ocean.months(360, 0)))) == 5
        found = blocks(record_of(small_ocean.months(180, 0)))
        assert [b - a for a, b in found] == [30] * 5 and found[-1][1] == 180
        assert blocks(record_of(small_ocean.months(143, 0))) == []

    def test_of_many_series_whole_ones_are_withheld(self):
        record = record_of(*(small_ocean.months(30 + i % 3, i) for i in range(25)))
        found = blocks(record)
        assert len(found) == 10 and found[0][0] == 0 and found[-1][1] == len(record)
        for first, stop in found[:-1]:
            assert record.series[stop - 1] != record.series[stop]
            assert first < stop

    def test_of_a_few_each_one_is(self):
        record = record_of(*(small_ocean.months(40, i) for i in range(6)))
        assert blocks(record) == [(40 * i, 40 * i + 40) for i in range(6)]

    def test_no_forecast_leaves_its_block_or_series(self):
        record = record_of(small_ocean.months(40, 0), small_ocean.months(50, 1))
        starts = cross_validation._starts(record, 20, 80, 12)
        assert starts.tolist() == [*range(20, 28), *range(40, 68)]

    def test_early_years_may_be_left_out_of_few_series_alone(self):
        long = record_of(small_ocean.months(1488, 0))
        assert cross_validation._skips(long) == [0, 528, 888, 1128]
        assert cross_validation._skips(record_of(small_ocean.months(360, 0))) == [0]
        many = record_of(*(small_ocean.months(120, i) for i in range(5)))
        assert cross_validation._skips(many) == [0]
        simulation = record_of(small_ocean.months(2412, 0))
        assert cross_validation._skips(simulation) == [0]


class TestErrors:
    @pytest.mark.parametrize("few_months", (False, True))
    def test_are_those_of_a_model_fitted_without_the_block(self, few_months):
        """Sums, sub-blocks and shared transitions give what plain forecasts give."""
        months, (first, stop), leads = noisy(300, 1, first_month=4), (100, 150), 9
        record = record_of(months)
        kept = np.ones(300, bool)
        kept[first:stop] = False
        coordinates, index = memory_system._coordinates(record)
        if few_months:  # as of a grid with more cells than months: any directions do
            turn = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
            coordinates, index = coordinates @ turn, index @ turn
        space = memory_system._eof_spaces(record, coordinates, index, (3, 5))(kept)
        starts = np.arange(first, stop - leads)
        square = np.sum((record.cells * record.root_area) ** 2, axis=1)
        found = dict(
            cross_validation._errors(record, space, kept, starts, leads, square)
        )
        assert len(found) == 2 * 4 * 5
        for choices in (Choices(0.03, 0.75, modes=3), Choices(0.3, 1.5, modes=5)):
            pieces = [part(months, 0, first), part(months, stop, 300)]
            model = fit_memory_system(pieces, *OCEAN, leads, choices=choices)
            states = model.states(months.fields[starts], months.memory[starts])
            ahead = model.system.forecast(states, (starts + 5) % 12, leads)
            forecast = model.fields(ahead)[..., OCEAN[0]]
            truth = record.cells[starts[:, None] + np.arange(1, leads + 1)]
            wrong = forecast - truth
            expected = [
                np.sum((wrong @ record.index_weights) ** 2),
                np.sum((wrong * record.root_area) ** 2),
            ]
            np.testing.assert_allclose(found[choices], expected, rtol=1e-9)

    def test_a_withheld_month_changes_nothing_that_is_fitted(self):
        months = noisy(300, 2)
        kept = np.ones(300, bool)
        kept[100:150] = False
        fitted = []
        for factor in (1.0, -3.0):
            fields = months.fields.copy()
            fields[100:150] *= factor
            record = record_of(dataclasses.replace(months, fields=fields))
            coordinates, index = memory_system._coordinates(record)
            space = memory_system._eof_spaces(record, coordinates, index, (4,))(kept)
            sums = Sums.of(space.states, record.calendar, record.pairs(kept))
            fitted.append((sums.gram, sums.cross, space.candidates[0].index))
        for one, other in zip(*fitted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


class TestRule:
    def test_the_best_is_taken_if_the_blocks_are_sure(self):
        losses = {
            Choices(0.3, 1.0): np.array([0.11, 0.21, 0.31]),
            Choices(0.01, 1.0): np.array([0.10, 0.20, 0.30]),
        }
        assert cross_validation._within_one_error(losses).ridge == 0.01

    def test_otherwise_the_one_that_fits_least_closely(self):
        best = np.array([0.1, 0.2, 0.3])
        losses = {
            Choices(0.01, 1.0, 60, 6): best,
            Choices(0.01, 1.0, 0, 12): best + [0.05, -0.04, 0.0],
            Choices(0.10, 1.0, 0, 12): best + [0.05, -0.04, 0.0],
            Choices(0.10, 1.0, 0, 8): best + [0.05, 0.04, 0.06],
        }
        chosen = cross_validation._within_one_error(losses)
        assert chosen == Choices(0.10, 1.0, 0, 12)


class TestChosen:
    def test_one_series(self):
        model = fit_memory_system([noisy(500, 3)], *OCEAN, 6)
        assert model.choices["modes"] in memory_system.MODES
        assert model.choices["ridge"] in cross_validation.RIDGES
        assert model.choices["skip"] in (0, 140)

    def test_many_short_series(self):
        series = [noisy(36, seed) for seed in range(12)]
        model = fit_memory_system(series, *OCEAN, 12)
        assert model.choices["skip"] == 0
        again = fit_memory_system(series, *OCEAN, 12)
        np.testing.assert_array_equal(model.system.transition, again.system.transition)

    def test_series_shorter_than_the_forecast_are_not_verified(self):
        series = [noisy(12, seed) for seed in range(12)]
        choices = fit_memory_system(series, *OCEAN, 12).choices
        assert choices["ridge"] == max(cross_validation.RIDGES)

    def test_few_months_are_fitted_with_caution(self):
        choices = fit_memory_system([noisy(100, 6)], *OCEAN, 6).choices
        assert choices["ridge"] == max(cross_validation.RIDGES)
        assert choices["modes"] == min(memory_system.MODES)

    def test_too_few_are_refused(self):
        with pytest.raises(ValueError, match="41 months are too few for 21 coeff"):
            fit_memory_system([noisy(42, 7)], *OCEAN, 6)

    def test_fewer_eofs_than_candidates(self):
        model = fit_memory_system([small_ocean.months(300, 8)], *OCEAN, 6)
        assert model.choices["modes"] == 2
        assert model.patterns.shape == (3, 3, 6)

    def test_oscillator(self):
        ocean, latitude, weights = OCEAN
        args = ocean, latitude, LONGITUDE, weights, 6
        choices = fit_oscillator([noisy(500, 9)], *args).choices
        assert choices["modes"] == 0
        short = fit_oscillator([noisy(60, 9)], *args).choices
        assert short["ridge"] == max(cross_validation.RIDGES)
        with pytest.raises(ValueError, match="too few"):
            fit_oscillator([noisy(12, 9)], *args)

    def test_of_very_many_series_some_are_enough(self):
        record = record_of(*(small_ocean.months(24, i) for i in range(30)))
        thinned = record.thinned(240)
        assert len(thinned) == 240 and set(thinned.series) == set(range(10))
        np.testing.assert_array_equal(thinned.cells[24:48], record.cells[72:96])
        assert record_of(small_ocean.months(700, 0)).thinned(240).series[-1] == 0


def test_the_largest_eigenvectors_are_those_of_all():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, memory_system.DENSE + 30)) * np.linspace(3, 0.1, 90)
    values, vectors = memory_system._leading(x.T @ x, 5)
    all_values, all_vectors = np.linalg.eigh(x.T @ x)
    np.testing.assert_allclose(values, all_values[::-1][:5], rtol=1e-9)
    overlap = np.abs(np.sum(vectors * all_vectors[:, ::-1][:, :5], axis=0))
    np.testing.assert_allclose(overlap, 1, rtol=1e-8)


def test_coordinates_of_few_months_hold_the_fields():
    wide = noisy(300, 0)
    record = record_of(part(wide, 0, 10))
    coordinates, index = memory_system._coordinates(record)
    assert coordinates.shape == (10, 10)
    cells = record.cells * record.root_area
    np.testing.assert_allclose(coordinates @ coordinates.T, cells @ cells.T)
    np.testing.assert_allclose(coordinates @ index, record.index, atol=1e-10)
