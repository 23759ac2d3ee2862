"""States of any parts of the examples, merged in any order, are that of all of them."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthformer_jax.metrics import channels
from earthformer_jax.metrics.ensembles.scores import EnsembleScores, Event
from earthformer_jax.metrics.precipitation import RainScores, verification
from earthformer_jax.metrics.verification import Verification

NUMBER, BATCH = 7, 3
RNG = np.random.default_rng(0)
SHAPE = (NUMBER, 2, 12, 12, 1)
FORECAST, TRUTH = RNG.random((2, *SHAPE)).astype(np.float32)
MEMBERS = RNG.random((3, *SHAPE)).astype(np.float32)
OBSERVED = RNG.random(SHAPE) > 0.2
METRICS = {
    "cubes": channels.verification(("v",), (2.0,)),
    "verification": verification(255, 0, (74, 160), (1, 4), (1, 5), (12, 12)),
    "rain": RainScores(),
    "members": EnsembleScores(3, events=(Event(0.5),)),
}


@functools.cache
def programs(name: str):
    return jax.jit(METRICS[name].update), jax.jit(METRICS[name].merge)


def state_of(name: str, examples: list[int]):
    """State of some examples, in batches of one size, filled with padding."""
    metric, (update, _) = METRICS[name], programs(name)
    state = metric.init()
    for i in range(0, len(examples), BATCH):
        part = examples[i : i + BATCH]
        valid = np.arange(BATCH) < len(part)
        part = part + [0] * (BATCH - len(part))
        batch = {"targets": TRUTH[part], "observed": OBSERVED[part], "valid": valid}
        forecast = MEMBERS[:, part] if name == "members" else FORECAST[part]
        state = update(state, forecast, batch)
    return state


@functools.cache
def sums_of_all(name: str):
    return values(name, state_of(name, list(range(NUMBER))))


def values(name: str, state):
    metric = METRICS[name]
    if isinstance(metric, Verification):
        return metric.sums(state)
    return metric.compute(state)


@pytest.mark.parametrize("name", METRICS)
@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_partition_is_one_pass(name, data):
    order = data.draw(st.permutations(range(NUMBER)))
    cuts = data.draw(st.lists(st.integers(0, NUMBER), max_size=4).map(sorted))
    ends = [0, *cuts, NUMBER]
    states = [
        state_of(name, order[a:b]) for a, b in zip(ends[:-1], ends[1:], strict=True)
    ]
    while len(states) > 1:
        a = states.pop(data.draw(st.integers(0, len(states) - 1)))
        b = states.pop(data.draw(st.integers(0, len(states) - 1)))
        states.append(programs(name)[1](a, b))
    found, wanted = values(name, states[0]), sums_of_all(name)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if np.asarray(y).dtype.kind == "i":
            np.testing.assert_array_equal(x, y)
        else:
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-9)
