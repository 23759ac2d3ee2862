"""The linear base against the linear systems of `statistics`."""

import jax
import numpy as np
import pytest

from earthformer_jax.models import create_model
from earthformer_jax.models.bases.linear import STATES, LinearBase, month_of
from earthformer_jax.statistics.linear_system import LinearSystem

SHAPES = (3, 4, 5, 4), (14, 4, 5, 1)
SCALE, OFFSET = 0.8, 0.3


def make_system(rng, n=6):
    seasons = 1 + 0.3 * np.cos(2 * np.pi * np.arange(12) / 12)[:, None, None]
    transition = 0.9 * np.eye(n) + 0.03 * seasons * rng.normal(size=(12, n, n))
    return LinearSystem(transition, np.broadcast_to(np.eye(n), (12, n, n)))


def make_arrays(rng, system):
    n = system.transition.shape[-1]
    projection, patterns = rng.normal(size=(4, 5, n)) / 5, rng.normal(size=(n, 4, 5))
    arrays = {
        "transition": np.zeros((12, STATES, STATES)),
        "projection": np.zeros((4, 5, STATES)),
        "patterns": np.zeros((STATES, 4, 5)),
        "memory_gain": np.zeros(STATES),
        "scale": np.array(SCALE),
        "offset": np.array(OFFSET),
    }
    arrays["transition"][:, :n, :n] = system.transition
    arrays["projection"][..., :n] = projection
    arrays["patterns"][:n] = patterns
    arrays["memory_gain"][:n] = rng.normal(size=n)
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def make_inputs(rng, month):
    """Inputs whose last month is `month`, one for each example."""
    inputs = rng.normal(size=(len(month), *SHAPES[0]))
    angle = 2 * np.pi * (month[:, None] + np.arange(-2, 1)) / 12
    inputs[..., 1], inputs[..., 2] = (
        f(angle)[..., None, None] for f in (np.cos, np.sin)
    )
    inputs[..., 3] = inputs[:, :, :1, :1, 3]
    return inputs.astype(np.float32)


@pytest.mark.parametrize("uses_memory", [False, True])
def test_the_system(uses_memory):
    """Every start month; leads of more than a year."""
    rng = np.random.default_rng(0)
    system, month = make_system(rng), np.arange(12)
    arrays, inputs = make_arrays(rng, system), make_inputs(rng, month)
    n = system.transition.shape[-1]
    kelvin = inputs[:, -1, ..., 0].astype(np.float64) * SCALE + OFFSET
    state = np.einsum("bhw,hwn->bn", kelvin, arrays["projection"])[:, :n]
    if uses_memory:
        state += inputs[:, -1, 0, 0, 3, None] * arrays["memory_gain"][:n]
    states = system.forecast(state, month + 1, SHAPES[1][0])
    wanted = np.einsum("bkn,nhw->bkhw", states, arrays["patterns"][:n])
    base = LinearBase(*SHAPES, uses_memory=uses_memory)
    forecast = jax.jit(base.apply)({"batch_stats": arrays}, inputs)
    assert forecast.shape == (12, *SHAPES[1]) and forecast.dtype == np.float32
    kelvin = np.asarray(forecast, np.float64)[..., 0] * SCALE + OFFSET
    np.testing.assert_allclose(kelvin, wanted, atol=1e-5)


def test_months():
    month = np.arange(-12, 24)
    angle = (2 * np.pi * month / 12).astype(np.float32)
    found = month_of(np.cos(angle), np.sin(angle))
    np.testing.assert_array_equal(found, month % 12)


@pytest.mark.parametrize(
    "channels, base, message",
    [
        ((1, 1), "lim", "base='lim': reads the month .*data.calendar=True"),
        ((3, 1), "lim_memory", "base='lim_memory': reads the memory .*data.memory"),
        ((3, 1), "oscillator", "base='oscillator': reads the memory"),
        ((4, 2), "lim", "base='lim': forecasts one channel; the targets have 2"),
    ],
)
def test_what_is_missing_is_named(channels, base, message):
    shapes = [(2, 16, 16, c) for c in channels]
    with pytest.raises(ValueError, match=message):
        create_model("unet", *shapes, base=base)
