import dataclasses

import numpy as np
import pytest

from earthformer_jax.data.enso import twin
from earthformer_jax.statistics.field_memory import memory_of_cells
from earthformer_jax.statistics.hidden import model as hidden
from earthformer_jax.statistics.linear_system import LinearSystem
from earthformer_jax.statistics.memory import Months, leaky_integrals
from tests.statistics.small_ocean import LATITUDE, OCEAN, WEIGHTS, months

CELLS = OCEAN.shape


@pytest.fixture(scope="module")
def given() -> Months:
    return months(720, seed=3)


@pytest.fixture(scope="module")
def model(given) -> hidden.HiddenStateModel:
    return hidden.fit_hidden_states([given], OCEAN, LATITUDE, WEIGHTS, 4)


def test_gains_are_the_best_forecast(model):
    """Of the input months alone, where nothing before them is known."""
    part, rng = model.parts[0], np.random.default_rng(0)
    q = part.projection.shape[-1]
    amplitudes, start = rng.normal(size=(12, 9, q)), np.arange(12)
    expected = part.system.conditional_forecast(amplitudes, start, 3)
    gains = part.gains(9, 8)[(start - 1) % 12]
    assert not gains[:, :, -1].any()
    state = np.einsum("bntq,btq->bn", gains[:, :, :-1], amplitudes)
    found = part.system.forecast(state, start, 3)[..., :q]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_memory_of_one_month_is_that_month(model):
    part = model.parts[0]
    two, one = part.gains(2, 1), part.gains(1, 1)
    np.testing.assert_allclose(one[:, :, 0], two[:, :, 1], atol=1e-9)
    np.testing.assert_allclose(one[:, :, 1], -two[:, :, 0], atol=1e-9)


def test_the_memory_adds_months_before_the_inputs(given, model):
    """The state is the expectation given the inputs and a sum of earlier months."""
    part, t, before = model.parts[0], 3, 5
    q = part.projection.shape[-1]
    a, n = part.system.transition, part.system.transition.shape[-1]
    covariance = LinearSystem(a, part.system.noise).window_covariance(0, before + t)
    covariance = covariance.reshape(before + t, n, before + t, n)
    values = given.fields[12 : 12 + before + t] * 1.0
    z = np.tensordot(values, part.projection, 2)
    seen = covariance[:, :q, :, :q] + np.einsum(
        "ij,pq->ipjq", np.eye(before + t), part.system.observation_noise
    )
    memory = memory_of_cells(values, before + t - 1)
    # What the memory of the last month holds of each month before the inputs.
    weights = memory_of_cells(np.eye(before + t)[:, None], before + t - 1)[-1, 0]
    sums = np.eye(before + t)[before - 1 :]
    sums[0] = np.where(np.arange(before + t) < before, weights, 0)
    known = np.tensordot(sums, z, 1).ravel()
    left = np.einsum("ai,ipjq,bj->apbq", sums, seen, sums).reshape(len(known), -1)
    right = np.einsum("nip,ai->nap", covariance[-1, :, :, :q], sums).reshape(n, -1)
    expected = right @ np.linalg.solve(left, known)
    inputs = np.concatenate([z[before:], np.tensordot(memory[-1:], part.projection, 2)])
    last = (before + t - 1) % 12
    found = np.einsum("ntq,tq->n", part.gains(t, before + t - 1)[last], inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_later_part_is_a_system_of_its_own(given, model):
    assert len(model.parts) == 2
    late = dataclasses.replace(
        given, fields=given.fields[:600], memory=given.memory[:600]
    )
    assert len(hidden.fit_hidden_states([late], OCEAN, LATITUDE, WEIGHTS, 4).parts) == 1


def test_the_forecast(model):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(2, 6, *CELLS, 1)) * OCEAN[..., None]
    forecast = model(inputs, [0, 11], np.zeros((2, *CELLS)))
    assert forecast.shape == (2, 4, *CELLS, 1) and forecast.dtype == np.float32
    assert np.isfinite(forecast).all() and not forecast[:, :, ~OCEAN].any()


def test_refuses_another_grid(model):
    with pytest.raises(ValueError, match=r"inputs have shape \(1, 2, 5, 5, 1\)"):
        model(np.zeros((1, 2, 5, 5, 1)), [0], np.zeros((1, *CELLS)))
    with pytest.raises(ValueError, match=r"memory has shape \(3, 6\)"):
        model(np.zeros((1, 2, *CELLS, 1)), [0], np.zeros(CELLS))


def test_too_few_months():
    with pytest.raises(ValueError, match="months are too few"):
        hidden.fit_hidden_states([months(20, 0)], OCEAN, LATITUDE, WEIGHTS, 3)


def test_is_near_the_best_forecast_of_the_twin():
    """Within 5 % at every lead; windows that no test or training of a model has."""
    series = twin.training_series(0, 4800)
    box = np.zeros(twin.OCEAN_MASK.shape)
    box[twin.NINO34_ROWS, twin.NINO34_COLUMNS] = 1 / 33
    index = np.einsum("mhw,hw->m", series, box)
    given = [Months(series, leaky_integrals(index), 0)]
    fitted = hidden.fit_hidden_states(
        given, twin.OCEAN_MASK, twin.LATITUDE, box, 12, reach=11
    )
    source = twin.TwinSource("validation", 200, 12, 12, seed=91)
    inputs, targets, start = (
        np.stack([x[name] for x in map(source.__getitem__, range(200))])
        for name in ("inputs", "targets", "start_month")
    )
    memory = np.stack([memory_of_cells(x[..., 0], 11)[-1] for x in inputs])
    ours = fitted(inputs, start, memory)
    best = twin.ceiling_forecast(inputs, start, 12)

    def correlation(forecast):
        a, b = (np.einsum("bkhwc,hw->kb", x, box) for x in (forecast, targets))
        return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)])

    assert (correlation(ours) > 0.95 * correlation(best)).all()
