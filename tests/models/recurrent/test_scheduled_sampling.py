"""Sampling schedules against published numbers, and the draws from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from earthformer_jax.models import contract
from earthformer_jax.models.persistence import Persistence
from earthformer_jax.models.recurrent import scheduled_sampling
from earthformer_jax.models.recurrent.e3d_lstm import E3DLSTM
from earthformer_jax.models.recurrent.phydnet import PhyDNet
from earthformer_jax.models.recurrent.predrnn import PredRNN
from tests import golden_files

SHAPE = (2, 8, 8, 1)


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


@pytest.mark.parametrize("total", [1, 4, 800, 10_000, 80_000, 1_000_000])
def test_schedules_follow_the_training(total):
    """At least half of it without true frames, however short it is."""
    models = [
        PredRNN(SHAPE, SHAPE),
        PredRNN(SHAPE, SHAPE, reverse_sampling=True),
        E3DLSTM(SHAPE, SHAPE),
        PhyDNet(SHAPE, SHAPE),
    ]
    for model in models:
        assert contract.final_teaching(model, total) == 0
        half = float(model.teaching_probability(total // 2, total))
        assert half == 0, type(model).__name__
        first = float(model.teaching_probability(0, total))
        assert total < 800 or first > 0.49, type(model).__name__
    published = scheduled_sampling.forward_schedule(1_000_000, 1.0, None, None)
    assert published == pytest.approx(dict(start=1.0, rate=2e-5, stop=50_000))
    published = scheduled_sampling.reverse_schedule(1_000_000, None, None, None)
    assert published == dict(begin=25_000, end=50_000, decay=5_000)


def test_schedules_of_the_user_are_kept():
    model = E3DLSTM(SHAPE, SHAPE, sampling_rate=1e-3, sampling_stop=300)
    assert float(model.teaching_probability(99, 10)) == pytest.approx(0.9)
    assert float(model.teaching_probability(299, 10)) == 0
    assert contract.final_teaching(model, 200) == pytest.approx(0.8)
    assert contract.final_teaching(model, 300) == 0
    model = PredRNN(SHAPE, SHAPE, sampling_stop=10)  # the rate fits the end
    assert float(model.teaching_probability(4, None)) == pytest.approx(0.5)
    model = PredRNN(SHAPE, SHAPE, reverse_sampling=True, reverse_begin=600)
    assert contract.final_teaching(model, 1000) == 0
    assert contract.final_teaching(model, 500) == 0.5
    model = PhyDNet(SHAPE, SHAPE, teacher_steps=100)
    assert contract.final_teaching(model, 51) == pytest.approx(0.5)
    assert contract.final_teaching(PhyDNet(SHAPE, SHAPE, teacher_steps=0), 1) == 0
    assert contract.final_teaching(Persistence(SHAPE, SHAPE), 1) == 0
