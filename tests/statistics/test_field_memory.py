import dataclasses

import numpy as np
import pytest

from earthformer_jax.statistics import field_memory
from earthformer_jax.statistics.field_memory import (
    CANDIDATES,
    RATE,
    Choices,
    FieldMemoryModel,
    fit_field_memory,
    memory_of_cells,
)
from earthformer_jax.statistics.memory import Months, leaky_integrals

SIZE = (2, 3)
OCEAN = np.array([[True, True, True], [True, True, False]])
LATITUDE = np.array([-2.5, 2.5])
WEIGHTS = np.array([[0.25, 0.25, 0], [0.25, 0.25, 0]])
FEW = Choices(modes=3, remembered=1, ridge=1e-9)
KEPT = np.exp(-RATE / 12)


def made(months: int, seed: int = 0) -> np.ndarray:
    """Fields in which the memory of each cell pushes the next month."""
    rng = np.random.default_rng(seed)
    fields, memory = np.zeros((months, *SIZE)), np.zeros(SIZE)
    for m in range(1, months):
        noise = rng.standard_normal(SIZE) + 2 * rng.standard_normal()
        memory = KEPT * memory - fields[m - 1]
        season = 0.75 + 0.1 * np.cos(2 * np.pi * (m - 0.5) / 12)
        fields[m] = season * fields[m - 1] + 0.04 * memory + 0.3 * noise
    return np.where(OCEAN, fields, 0)


def given(fields, first_month: int = 0):
    index = np.einsum("mhw,hw->m", fields, WEIGHTS)
    return Months(fields, leaky_integrals(index), first_month), memory_of_cells(fields)


def fit(fields, choices: Choices | None = FEW, out_len: int = 3) -> FieldMemoryModel:
    months, memory = given(fields)
    return fit_field_memory(
        [months], [memory], OCEAN, LATITUDE, WEIGHTS, out_len, choices=choices
    )


class TestMemoryOfCells:
    def test_sums_the_months_before_with_decreasing_weights(self):
        fields = np.random.default_rng(0).standard_normal((5, *SIZE))
        expected = -(fields[2] + KEPT * fields[1] + KEPT**2 * fields[0])
        np.testing.assert_allclose(memory_of_cells(fields)[3], expected, rtol=1e-6)

    def test_reaches_no_further(self):
        fields = np.random.default_rng(1).standard_normal((9, *SIZE))
        late, whole = (memory_of_cells(x, reach=4)[-1] for x in (fields[4:], fields))
        np.testing.assert_allclose(whole, late, rtol=1e-5)
        assert not memory_of_cells(fields, reach=0).any()


class TestForecast:
    def test_a_later_part_is_a_system_of_its_own(self):
        model = fit(made(1600))
        assert len(model.parts) == 4
        late = fit(made(1600)[800:])
        assert len(late.parts) == 3  # a quarter of it is too short

    def test_is_better_than_without_memory_and_near_the_truth(self):
        fields = made(6000)
        model = fit(fields[:5000], Choices(modes=5, remembered=4, ridge=1e-9))
        memory, start = memory_of_cells(fields), np.arange(5000, 5900)
        forecast = model(
            fields[start][:, None, ..., None], (start + 1) % 12, memory[start]
        )[..., 0]
        season = 0.75 + 0.1 * np.cos(2 * np.pi * (start + 0.5) / 12)
        expected = season[:, None, None] * fields[start] + 0.04 * (
            KEPT * memory[start] - fields[start]
        )
        error = np.where(OCEAN, forecast[:, 0] - expected, 0)
        assert np.sqrt(np.mean(error**2)) < 0.2 * np.std(expected)

    def test_begins_with_the_last_month_only(self):
        fields = made(800)
        model, memory = fit(fields), memory_of_cells(fields)
        one = model(fields[None, 700:701, ..., None], [5], memory[None, 700])
        many = model(fields[None, 690:701, ..., None], [5], memory[None, 700])
        np.testing.assert_array_equal(one, many)
        assert one.shape == (1, 3, *SIZE, 1) and one.dtype == np.float32
        assert not one[0, :, ~OCEAN].any()

    def test_refuses_another_grid(self):
        model = fit(made(400))
        with pytest.raises(ValueError, match=r"inputs have shape \(1, 2, 5, 5, 1\)"):
            model(np.zeros((1, 2, 5, 5, 1)), [0], np.zeros((1, *SIZE)))
        with pytest.raises(ValueError, match=r"memory has shape \(2, 3\)"):
            model(np.zeros((1, 2, *SIZE, 1)), [0], np.zeros(SIZE))


class TestChoice:
    def test_is_one_of_the_candidates_and_does_not_depend_on_the_scale(self):
        fields = made(900)
        chosen = fit(fields, None).choices
        assert chosen in CANDIDATES
        assert fit(10 * fields, None).choices == chosen

    def test_a_short_record_takes_the_first_candidate(self):
        assert fit(made(170), None).choices == CANDIDATES[0]

    def test_withheld_months_do_not_matter(self, monkeypatch):
        """Errors in a block are those of systems that have not seen it."""
        seen = []
        whole = field_memory._fit_parts

        def watched(record, memory, kept, *rest):
            seen.append(kept.copy())
            return whole(record, memory, kept, *rest)

        monkeypatch.setattr(field_memory, "_fit_parts", watched)
        monkeypatch.setattr(field_memory, "CANDIDATES", (FEW,))
        monkeypatch.setattr(field_memory, "RECENT", 600)
        fit(made(900), None)
        withheld = [np.flatnonzero(~kept) for kept in seen[:-1]]
        assert [(x[0], x[-1]) for x in withheld] == [
            (300 + 120 * i, 419 + 120 * i) for i in range(5)
        ]
        assert seen[-1].all()

    def test_a_month_outside_the_fit_does_not_change_it(self):
        fields = made(900)
        months, memory = given(fields)
        changed = dataclasses.replace(months, fields=months.fields.copy())
        changed.fields[:300] += 1
        models = []
        for x in (months, changed):
            record = field_memory.Record.of([x], OCEAN, LATITUDE, WEIGHTS)
            kept = np.arange(900) >= 300
            models.append(
                field_memory._fit_part(record, memory[:, OCEAN], kept, LATITUDE, FEW)
            )
        np.testing.assert_array_equal(
            models[0].system.transition, models[1].system.transition
        )


def test_too_few_months():
    with pytest.raises(ValueError, match="months are too few"):
        fit(made(30), None)


def test_memories_of_other_months():
    months, memory = given(made(400))
    with pytest.raises(ValueError, match="memories of 399 months"):
        fit_field_memory([months], [memory[1:]], OCEAN, LATITUDE, WEIGHTS, 3)
