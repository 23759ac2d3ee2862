"""Sampling schedules against published numbers, and the draws from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models.recurrent import scheduled_sampling
from tests import golden_files


def test_the_forward_schedule_of_the_pytorch_code(record_property):
    data = golden_files.load("baselines/predrnn_sampling_schedules")
    c = data["config"]
    eta = jax.jit(
        lambda step: scheduled_sampling.forward_probability(
            step,
            start=c["sampling_start_value"],
            rate=c["sampling_changing_rate"],
            stop=c["sampling_stop_iter"],
        )
    )(jnp.asarray(data["output/forward_eta_iter"] - 1, jnp.int32))
    error = np.abs(eta - data["output/forward_eta"]).max()
    record_property("golden sampling schedules error", float(error))
    assert error < 1e-5


@pytest.mark.parametrize("decay", [2500, 5000])
def test_the_reverse_schedule_of_the_pytorch_code(decay, record_property):
    data = golden_files.load("baselines/predrnn_sampling_schedules")
    c = data["config"]
    context, forecast = scheduled_sampling.reverse_probabilities(
        jnp.asarray(data["input/iterations"] - 1, jnp.int32),
        begin=c["r_sampling_step_1"],
        end=c["r_sampling_step_2"],
        decay=decay,
    )
    pairs = (context, f"reverse_r_eta_alpha{decay}"), (forecast, "reverse_eta")
    for have, name in pairs:
        error = np.abs(have - data[f"output/{name}"]).max()
        record_property("golden sampling schedules error", float(error))
        assert error < 1e-5


def test_schedules_by_hand():
    """Four steps down from 0.8 by 0.3 a step: 0.5, 0.2, not below 0; then 0."""
    eta = [
        scheduled_sampling.forward_probability(step, start=0.8, rate=0.3, stop=9)
        for step in range(4)
    ]
    np.testing.assert_allclose(eta, [0.5, 0.2, 0, 0], atol=1e-6)
    stopped = scheduled_sampling.forward_probability(1, start=0.8, rate=0.1, stop=2)
    assert stopped == 0
    at_once = scheduled_sampling.reverse_probabilities(4, begin=5, end=5, decay=1.0)
    assert at_once == (1, 0)


def test_probabilities_stay_probabilities_and_go_one_way():
    steps = jnp.arange(-1, 60_000, 7)
    forward = scheduled_sampling.forward_probability(steps, start=0.9, rate=3e-5)
    context, forecast = scheduled_sampling.reverse_probabilities(steps)
    for p, sign in ((forward, -1), (context, 1), (forecast, -1)):
        assert p.dtype == jnp.float32
        assert p.min() >= 0 and p.max() <= 1
        assert (sign * jnp.diff(p)).min() >= 0


def test_draws():
    key = jax.random.key(0)
    p = jnp.array([0.0, 0.3, 1.0])
    drawn = scheduled_sampling.draw(key, p, 4000, 3)
    assert drawn.shape == (4000, 3) and drawn.dtype == bool
    np.testing.assert_allclose(drawn.mean(0), p, atol=0.03)
    again = scheduled_sampling.draw(key, p, 4000, 3)
    np.testing.assert_array_equal(drawn, again)
    one = scheduled_sampling.draw(key, 0.5, 2000, 2)
    both = jnp.mean(one[:, 0] & one[:, 1])  # steps are drawn on their own
    np.testing.assert_allclose(both, 0.25, atol=0.05)
    assert scheduled_sampling.draw(key, 0.5, 3, 0).shape == (3, 0)
