"""Scheduled sampling: whether a model in training reads true frames or its own.

Early in training a recurrent forecaster is given the true frames, later more and more
of its own forecasts. All functions are pure; `step` is the number of optimiser steps
taken so far, 0 at the first one, and may be traced. The published schedules count
iterations from 1: their iteration is step + 1.

A model that has never read its own forecasts drifts when it has to. The published
trainings therefore end with tens of thousands of steps without true frames, and here
the schedules follow the planned number of steps (`taught_steps`).

A value that was not observed is never read in place of a forecast, and never compared
with one: its weight is 0.

Reference:
    Bengio et al. 2015, Scheduled Sampling for Sequence Prediction with Recurrent Neural
    Networks. https://arxiv.org/abs/1506.03099 (the idea); Wang et al. 2022, PredRNN: A
    Recurrent Neural Network for Spatiotemporal Predictive Learning.
    https://arxiv.org/abs/2103.09504 (the reverse schedule)
"""

import einops
import jax
import jax.numpy as jnp

from earthformer_jax.layers import frame_coder
from earthformer_jax.ops.devices import examples
from earthformer_jax.ops.patches import reshape_patch

PUBLISHED_STOP = 50_000  # first iteration without true frames, of 80,000


def taught_steps(total_steps: int | None, published: int = PUBLISHED_STOP) -> int:
    """Number of the first iteration without true frames, if nobody has chosen one.

    Args:
        total_steps: planned length of the training; None: unknown.
        published: number in the published training.

    Returns:
        Half of the training, but not more than the published number.
    """
    return published if total_steps is None else min(published, total_steps // 2)


def forward_schedule(
    total_steps: int | None, start: float, rate: float | None, stop: int | None
) -> dict[str, float]:
    """Arguments of `forward_probability`; those that are None fit the training.

    Args:
        total_steps: planned length of the training; None: unknown.
        start: probability before the first iteration.
        rate: decrease per iteration; None: 0 is reached at `stop`.
        stop: first iteration without true frames; None: `taught_steps`.
    """
    stop = taught_steps(total_steps) if stop is None else stop
    rate = start / max(stop, 1) if rate is None else rate
    return dict(start=start, rate=rate, stop=stop)


def reverse_schedule(
    total_steps: int | None, begin: int | None, end: int | None, decay: float | None
) -> dict[str, float]:
    """Arguments of `reverse_probabilities`; those that are None fit the training.

    Args:
        total_steps: planned length of the training; None: unknown.
        begin: see `reverse_probabilities`; None: half of `end`.
        end: None: `taught_steps`.
        decay: None: a tenth of `end`.
    """
    if end is None:
        end = max(taught_steps(total_steps), begin or 0)
    begin = end // 2 if begin is None else begin
    decay = max(end, 1) / 10 if decay is None else decay
    return dict(begin=begin, end=end, decay=decay)


def forward_probability(
    step: jax.Array | int,
    *,
    start: float = 1.0,
    rate: float = 2e-5,
    stop: float = 50_000,
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
    step: jax.Array | int,
    *,
    begin: float = 25_000,
    end: float = 50_000,
    decay: float = 5e3,
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
        key: of the random numbers, the same on all devices.
        probability: of True, a scalar or one for every step `[steps]`.
        batch: examples, each drawn on its own; of this device, under `jax.shard_map`.
        steps: frames.
    """
    return examples.draw(
        lambda count: jax.random.bernoulli(key, probability, (count, steps)), batch
    )


def readable(
    targets: jax.Array, weights: jax.typing.ArrayLike | None, last: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    """True frames without values that are unknown, and where they are known.

    Args:
        targets: `[b, k, h, w, c]`.
        weights: of the targets in the loss, broadcastable to them, 0 where one is
            unknown; None: all are known.
        last: `[b, 1, h, w, c]`, what unknown values are replaced with.

    Returns:
        The frames, and bool of the same shape, or None if all are known.
    """
    if weights is None:
        return targets, None
    known = jnp.broadcast_to(jnp.asarray(weights) > 0, targets.shape)
    return jnp.where(known, targets, last.astype(targets.dtype)), known


def known_patches(known: jax.Array, patch: int, downsampling: int = 1) -> jax.Array:
    """Where frames are known, as a network sees them that reads patches or latents.

    Args:
        known: bool `[b, t, h, w, c]`. What is added to planes that are not divisible
            counts as known.
        patch: side of the patches.
        downsampling: a latent is known if all pixels that it stands for are.

    Returns:
        bool, `[b, t, h', w', c']` as the patches, or those of the latents.
    """
    whole = patch * downsampling
    grow = [(0, -size % whole) for size in known.shape[2:4]]
    known = jnp.pad(known, ((0, 0), (0, 0), *grow, (0, 0)), constant_values=True)
    if downsampling > 1:
        sides: dict[str, int] = dict(i=downsampling, j=downsampling)
        blocks = "b t (h i) (w j) c -> b t h w 1"
        known = einops.reduce(known, blocks, "min", **sides)
        known = jnp.repeat(known, frame_coder.LATENT_FEATURES, axis=-1)
    return reshape_patch(known, patch)


def known_error(
    forecast: jax.Array, truth: jax.Array, weights: jax.typing.ArrayLike | None
) -> jax.Array:
    """forecast - truth, and 0 where the truth has no weight, even if it is NaN.

    Args:
        forecast: any shape.
        truth: of the same shape.
        weights: broadcastable to that shape; None: everything is known.
    """
    error = forecast - truth
    return error if weights is None else jnp.where(jnp.asarray(weights) > 0, error, 0)


def weighted(penalty: jax.Array, weights: jax.typing.ArrayLike | None) -> jax.Array:
    """The penalty of every value times its weight, or as it is if there are none."""
    return penalty if weights is None else penalty * jnp.asarray(weights, jnp.float32)


def _iteration(step):
    return jnp.asarray(step, jnp.float32) + 1
