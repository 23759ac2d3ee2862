"""N-body MNIST: digits that attract each other, which makes their motion chaotic.

Digits of equal mass move on a canvas of 128 x 128 pixels. Every step their velocity v
and position x (the top left corner of the digit's bounding box) change by

    v_i <- clip(v_i + G sum_j (x_j - x_i) / r_ij^p, -2, 2),    x_i <- x_i + v_i
    r_ij = sqrt(|x_j - x_i|^2 + softening^2)

with p = 1, 2, 3 in the modes "r0", "r1", "r2": a force that does not depend on the
distance, or decreases with its first or second power. A digit whose centre comes within
10 pixels of the edge is put at that distance and reflected. Every fifth step is drawn:
digits are shifted bilinearly, each pixel shows the brightest digit, and the canvas is
shrunk bicubically to 64 x 64.

All functions are pure functions of JAX arrays that can be jitted and mapped. Positions
and velocities are `[n, 2]` with x (columns) before y (rows), in pixels of the canvas
and pixels per step.

    images, boxes = cropped(digits)
    draws = jax.vmap(lambda key: draw(key, len(images), rules))(keys)
    show = lambda d: video(images[d.digits], boxes[d.digits], d, rules)
    videos = jax.vmap(show)(draws)

Reference:
    Gao et al. 2022, Earthformer, https://arxiv.org/abs/2207.05833, section 4.1 and
    appendix D; rules and numbers are those of the authors' generator. It draws without
    a seed, so its data set cannot be drawn again, but its saved draws can be rendered
    (`data.mnist.nbody_mnist`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.data.mnist.frames import SIZE as DIGIT
from earthformer_jax.data.mnist.nbody_rules import (
    MARGIN,
    POWERS,
    WHITE,
    Draw,
    Rules,
    bicubic_weights,
    cropped,
)

__all__ = ["POWERS", "Draw", "Rules", "bicubic_weights", "cropped"]

UNROLL = 5  # steps per iteration of the simulation's loop
_EXACT = jax.lax.Precision.HIGHEST  # no TF32


def draw(key: jax.Array, count: int, rules: Rules) -> Draw:
    """Random digits at random positions with random velocities.

    Args:
        key: of this sequence.
        count: number of images to choose from.
        rules: the number of digits and the largest speed.
    """
    n = rules.num_digits
    digits, place, angle, speed = jax.random.split(key, 4)
    return Draw(
        digits=jax.random.randint(digits, (n,), 0, count),
        place=jax.random.uniform(place, (n, 2)),
        angle=jax.random.uniform(angle, (n,), maxval=2 * np.pi),
        speed=jax.random.uniform(speed, (n,), maxval=rules.max_speed),
    )


def start(draw: Draw, boxes, rules: Rules) -> tuple[jax.Array, jax.Array]:
    """Initial position and velocity `[n, 2]` of digits with boxes `[n, 2]`."""
    direction = jnp.stack([jnp.cos(draw.angle), jnp.sin(draw.angle)], axis=-1)
    return draw.place * (rules.canvas - boxes), draw.speed[:, None] * direction


def acceleration(position, rules: Rules) -> jax.Array:
    """Attraction of each digit by all others, `[n, 2]` pixels per step squared."""
    apart = position[None, :] - position[:, None]
    distance = jnp.sqrt(jnp.sum(apart**2, axis=-1) + rules.softening**2)
    pull = apart / distance[..., None] ** POWERS[rules.mode]
    return rules.G * jnp.sum(pull, axis=1)


def step(position, velocity, boxes, rules: Rules) -> tuple[jax.Array, jax.Array]:
    """Position and velocity one step later; all arguments `[n, 2]`."""
    velocity = jnp.clip(
        velocity + acceleration(position, rules), -rules.max_speed, rules.max_speed
    )
    centre = position + velocity + boxes / 2
    low, high = MARGIN, rules.canvas - MARGIN
    velocity = jnp.where((centre < low) | (centre > high), -velocity, velocity)
    return jnp.clip(centre, low, high) - boxes / 2, velocity


def simulate(position, velocity, boxes, rules: Rules) -> jax.Array:
    """Positions at every step, `[frames * every, n, 2]`, starting at `position`."""

    def advance(state, _):
        position, velocity = state
        return step(position, velocity, boxes, rules), position

    state = jnp.asarray(position, jnp.float32), jnp.asarray(velocity, jnp.float32)
    steps = rules.frames * rules.every
    return jax.lax.scan(advance, state, length=steps, unroll=UNROLL)[1]


def paint(images, position, canvas: int) -> jax.Array:
    """The brightest of shifted digits at every pixel of a canvas.

    Args:
        images: `[n, 28, 28]`.
        position: `[n, 2]` of their top left corners, x and y; digits between whole
            pixels are interpolated linearly, and parts outside are cut off.
        canvas: side of the canvas in pixels.

    Returns:
        float32 `[canvas, canvas]`.
    """
    apart = np.arange(canvas)[:, None] - np.arange(DIGIT)[None, :]
    shift = jnp.asarray(position, jnp.float32)[:, :, None, None]
    weights = jnp.maximum(0, 1 - jnp.abs(apart - shift))  # [n, 2, canvas, 28]
    shown = jnp.zeros((canvas, canvas), jnp.float32)
    for image, (columns, rows) in zip(images, weights, strict=True):
        digit = jnp.matmul(rows, image.astype(jnp.float32), precision=_EXACT)
        digit = jnp.matmul(digit, columns.T, precision=_EXACT)
        shown = jnp.maximum(shown, digit)
    return shown


def shrink(x, size: int) -> jax.Array:
    """Resamples `[..., h, h]` to `[..., size, size]`, bicubically, without smoothing.

    Pixels are areas (the corners of input and output coincide), and the edge is
    repeated beyond the image, as in PyTorch with align_corners=False, antialias=False.
    """
    weights = bicubic_weights(x.shape[-1], size)
    return jnp.einsum("ij,...jk,lk->...il", weights, x, weights, precision=_EXACT)


def render(images, positions, rules: Rules) -> jax.Array:
    """Frames of digits at positions `[t, n, 2]`: float32 `[t, size, size]`, 0 to 1."""

    def frame(position):
        return shrink(paint(images, position, rules.canvas), rules.size)

    return jnp.clip(jax.lax.map(frame, positions), 0, WHITE) / WHITE


def video(images, boxes, draw: Draw, rules: Rules) -> jax.Array:
    """The sequence of a draw, float32 `[frames, size, size]`, 0 to 1.

    Args:
        images: `[n, 28, 28]`, the digits of the draw, cropped.
        boxes: `[n, 2]`, their bounding boxes.
        draw: their initial positions and velocities.
        rules: how they move and are drawn.
    """
    positions = simulate(*start(draw, boxes, rules), boxes, rules)
    return render(images, positions[:: rules.every], rules)
