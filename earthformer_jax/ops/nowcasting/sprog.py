"""S-PROG: rain moves on, and what is too small to be predicted fades.

The fair rival of networks that are trained on squared errors: where nothing can be
known it forecasts a mean, and is as smooth as they are.

In the frame that moves with the rain, each band of wave numbers follows the
auto-regressive process that the last three frames show (`cascade`), without shocks.
The forecast has the mean of the last frame and nowhere less than its least value, which
is no rain; among all such fields it is the nearest to that of the processes. (Pysteps
keeps the rainy area instead, with larger squared errors.) Nothing depends on the units,
which should be logarithmic: codes of vertically integrated liquid, dBZ or dBR.

Reference:
    Seed 2003, "A dynamic and spatial scaling approach to advection forecasting";
    Pulkkinen et al. 2019, "Pysteps", section 2.
"""

import jax
import jax.numpy as jnp

from earthformer_jax.ops.nowcasting.cascade import decompose, expected
from earthformer_jax.ops.nowcasting.semi_lagrangian import shifted, trajectories

FRAMES = 3  # that two lagged correlations need
# Bands of wave numbers. Of 5 to 8, 6 had the least squared errors on training events of
# the radar twin.
BANDS = 6
HALVINGS = 24  # of the interval of what is subtracted to keep the mean


def s_prog(
    frames: jax.Array, flow: jax.Array, steps: int, number: int = BANDS
) -> jax.Array:
    """The expected rain of the next frames.

    Args:
        frames: `[t, h, w, c]` with t of at least 3, of which the last three count, in
            logarithmic units; 0 mm/h is a finite value. Channels are independent.
        flow: `[h, w, 2]`, rows and columns per frame, the motion of all channels.
        steps: number of frames to make.
        number: of bands.

    Returns:
        `[steps, h, w, c]`. Values at the edge stay where something flows in.

    Raises:
        ValueError: for fewer than 3 frames.
    """
    fields = moving_frame(frames, flow)

    def one(fields: jax.Array) -> jax.Array:
        last = fields[-1]
        following = expected(decompose(fields, number), last.shape, steps)
        return jax.lax.map(lambda x: keep_mean(x, last), following)

    return carried(jax.vmap(one, -1, -1)(fields), flow)


def moving_frame(frames: jax.Array, flow: jax.Array) -> jax.Array:
    """The last three of `[t, h, w, c]`, each moved to where the last one is.

    Raises:
        ValueError: for fewer than 3 frames.
    """
    if len(frames) < FRAMES:
        raise ValueError(
            f"{len(frames)} frames do not show how rain changes; expected at least "
            f"{FRAMES}"
        )
    earlier, previous, last = frames[-FRAMES:]
    one, two = trajectories(flow, 2)
    return jnp.stack([shifted(earlier, -two), shifted(previous, -one), last])


def carried(fields: jax.Array, flow: jax.Array) -> jax.Array:
    """Forecasts `[steps, h, w, c]` in the moving frame, moved to where they will be."""
    ways = trajectories(flow, len(fields))
    return jax.lax.map(lambda pair: shifted(pair[0], -pair[1]), (fields, ways))


def keep_mean(field: jax.Array, last: jax.Array) -> jax.Array:
    """The nearest field with the mean of `last` and nowhere less than its least value.

    It is the projection: a number is subtracted everywhere, and what is then less than
    no rain becomes no rain.

    Args:
        field: `[h, w]` with a mean that is not less than that of `last`, or equal to it
            but for rounding.
        last: `[h, w]`.
    """
    dry = last.min()
    rain, mean = field - dry, (last - dry).mean()

    def halve(_, ends):
        middle = ends.mean()
        is_more = jnp.maximum(rain - middle, 0).mean() > mean
        return jnp.where(is_more, ends.at[0].set(middle), ends.at[1].set(middle))

    # Some number within these ends keeps the mean: the rain itself is more than it, or
    # as much, and nothing is left of it at the other end.
    ends = jnp.stack([jnp.zeros_like(mean), jnp.maximum(rain.max(), 0)])
    less = jax.lax.fori_loop(0, HALVINGS, halve, ends).mean()
    less = jax.lax.stop_gradient(less)
    # One step of Newton's method, which also gives the gradient of the projection.
    is_wet = rain > less
    over = jnp.where(is_wet, rain - less, 0).mean() - mean
    less = less + over / jnp.maximum(is_wet.mean(), 1 / is_wet.size)
    return dry + jnp.maximum(rain - less, 0)
