"""The linear base against the linear systems of `statistics`."""

import jax
import numpy as np
import pytest

from earthformer_jax.models import create_model
from earthformer_jax.models.bases.linear import STATES, LinearBase, month_of
from earthformer_jax.statistics.linear_system import LinearSystem

SHAPES = (3, 4, 5, 4), (14, 4, 5, 1)
SCALE, OFFSET, MEMORY_SCALE = 0.8, 0.3, 4.0


def make_system(rng, n=6):
    seasons = 1 + 0.3 * np.cos(2 * np.pi * np.arange(12) / 12)[:, None, None]
    transition = 0.9 * np.eye(n) + 0.03 * seasons * rng.normal(size=(12, n, n))
    return LinearSystem(transition, np.broadcast_to(np.eye(n), (12, n, n)))


def make_arrays(rng, systems):
    """Arrays of systems of different sizes."""
    made = {
        "transition": (12, STATES, STATES),
        "projection": (4, 5, STATES),
        "memory_projection": (4, 5, STATES),
        "patterns": (STATES, 4, 5),
        "start": (STATES,),
    }
    arrays = {k: np.zeros((len(systems), *shape)) for k, shape in made.items()}
    for i, system in enumerate(systems):
        n = system.transition.shape[-1]
        arrays["transition"][i, :, :n, :n] = system.transition
        arrays["projection"][i, ..., :n] = rng.normal(size=(4, 5, n)) / 5
        arrays["memory_projection"][i, ..., :n] = rng.normal(size=(4, 5, n)) / 5
        arrays["patterns"][i, :n] = rng.normal(size=(n, 4, 5))
        arrays["start"][i, :n] = rng.normal(size=n)
    arrays |= {"scale": SCALE, "offset": OFFSET, "memory_scale": MEMORY_SCALE}
    return {name: np.asarray(x, np.float32) for name, x in arrays.items()}


def make_inputs(rng, month):
    """Inputs whose last month is `month`, one for each example."""
    inputs = rng.normal(size=(len(month), *SHAPES[0]))
    angle = 2 * np.pi * (month[:, None] + np.arange(-2, 1)) / 12
    inputs[..., 1], inputs[..., 2] = (
        f(angle)[..., None, None] for f in (np.cos, np.sin)
    )
    return inputs.astype(np.float32)


@pytest.mark.parametrize("uses_memory", [False, True])
def test_the_sum_of_systems(uses_memory):
    """Every start month; leads of more than a year."""
    rng = np.random.default_rng(0)
    systems, month = [make_system(rng, n) for n in (6, 4)], np.arange(12)
    arrays, inputs = make_arrays(rng, systems), make_inputs(rng, month)
    last = inputs[:, -1].astype(np.float64)
    wanted = 0
    for i, system in enumerate(systems):
        field, memory = last[..., 0] * SCALE + OFFSET, last[..., 3] * MEMORY_SCALE
        state = arrays["start"][i] + np.einsum(
            "bhw,hwn->bn", field, arrays["projection"][i]
        )
        if uses_memory:
            onto = arrays["memory_projection"][i]
            state = state + np.einsum("bhw,hwn->bn", memory, onto)
        n = system.transition.shape[-1]
        states = system.forecast(state[:, :n], month + 1, SHAPES[1][0])
        patterns = arrays["patterns"][i, :n]
        wanted = wanted + np.einsum("bkn,nhw->bkhw", states, patterns)
    base = LinearBase(*SHAPES, systems=2, uses_memory=uses_memory)
    forecast = jax.jit(base.apply)({"batch_stats": arrays}, inputs)
    assert forecast.shape == (12, *SHAPES[1]) and forecast.dtype == np.float32
    kelvin = np.asarray(forecast, np.float64)[..., 0] * SCALE + OFFSET
    np.testing.assert_allclose(kelvin, wanted, atol=2e-5)


def test_months():
    month = np.arange(-12, 24)
    angle = (2 * np.pi * month / 12).astype(np.float32)
    found = month_of(np.cos(angle), np.sin(angle))
    np.testing.assert_array_equal(found, month % 12)


@pytest.mark.parametrize(
    "channels, base, message",
    [
        ((1, 1), "lim", "base='lim': reads the month .*data.calendar=True"),
        ((3, 1), "lim_field_memory", "reads the memory .*data.memory=True"),
        ((3, 1), "lim_hidden", "reads the memory .*data.memory=True"),
        ((4, 2), "lim", "base='lim': forecasts one channel; the targets have 2"),
    ],
)
def test_what_is_missing_is_named(channels, base, message):
    shapes = [(2, 16, 16, c) for c in channels]
    with pytest.raises(ValueError, match=message):
        create_model("unet", *shapes, base=base)
