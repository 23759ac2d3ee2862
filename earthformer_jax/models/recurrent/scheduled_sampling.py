"""Scheduled sampling: whether a model in training reads true frames or its own.

Early in training a recurrent forecaster is given the true frames, later more and more
of its own forecasts. All functions are pure; `step` is the number of optimiser steps
taken so far, 0 at the first one, and may be traced. The published schedules count
iterations from 1: their iteration is step + 1.

Reference:
    Bengio et al. 2015, Scheduled Sampling for Sequence Prediction with Recurrent Neural
    Networks. https://arxiv.org/abs/1506.03099 (the idea); Wang et al. 2022, PredRNN: A
    Recurrent Neural Network for Spatiotemporal Predictive Learning.
    https://arxiv.org/abs/2103.09504 (the reverse schedule)
"""

import jax
import jax.numpy as jnp


def forward_probability(
    step: jax.Array | int, *, start: float = 1.0, rate: float = 2e-5, stop: int = 50_000
) -> jax.Array:
    """Probability that the true frame is read in place of its forecast.

    It falls from `start` by `rate` per iteration, the first one included, and is 0 from
    iteration `stop` on. Frames of the context are always true.

    Args:
        step: optimiser steps taken so far, int32.
        start: probability before the first iteration, in [0, 1].
        rate: decrease per iteration.
        stop: first iteration without true frames.

    Returns:
        float32, the shape of `step`, in [0, 1].
    """
    iteration = _iteration(step)
    falling = jnp.clip(start - rate * iteration, 0.0, 1.0)
    return jnp.where(iteration < stop, falling, 0.0)


def reverse_probabilities(
    step: jax.Array | int, *, begin: int = 25_000, end: int = 50_000, decay: float = 5e3
) -> tuple[jax.Array, jax.Array]:
    """Probabilities of true frames (in the context, among those to be forecast).

    Reverse scheduled sampling starts with both at one half. From iteration `begin` to
    `end` the context's approaches 1, as 1 - exp(-(iteration - begin) / decay) / 2, and
    the other falls to 0 linearly, so that training ends the way forecasts are made.

    Args:
        step: optimiser steps taken so far, int32.
        begin: iteration up to which both are one half.
        end: first iteration with the final values 1 and 0.
        decay: iterations in which the context's distance from 1 falls by a factor e.

    Returns:
        Two float32 of the shape of `step`.
    """
    since = _iteration(step) - begin
    done = since >= end - begin
    elapsed = jnp.maximum(since, 0.0)
    context = jnp.where(done, 1.0, 1.0 - 0.5 * jnp.exp(-elapsed / decay))
    forecast = jnp.where(done, 0.0, 0.5 - 0.5 * elapsed / max(end - begin, 1))
    return context, forecast


def draw(
    key: jax.Array, probability: jax.Array | float, batch: int, steps: int
) -> jax.Array:
    """bool `[batch, steps]`: True where the true frame is read.

    Args:
        key: of the random numbers.
        probability: of True, a scalar or one for every step `[steps]`.
        batch: examples, each drawn on its own.
        steps: frames.
    """
    return jax.random.bernoulli(key, probability, (batch, steps))


def _iteration(step):
    return jnp.asarray(step, jnp.float32) + 1
