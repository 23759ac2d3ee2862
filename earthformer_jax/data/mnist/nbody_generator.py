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

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from earthformer_jax.data.mnist.digits import SIZE as DIGIT

POWERS = {"r0": 1, "r1": 2, "r2": 3}  # p, by mode
MARGIN = 10.0  # pixels between the edge and the centre of a digit
LIT = 5 / 255  # on a scale of 0 .. 255; brighter pixels belong to the digit
CUBIC = -0.75  # the parameter of the bicubic kernel
WHITE = 255.0
UNROLL = 5  # steps per iteration of the simulation's loop
_EXACT = jax.lax.Precision.HIGHEST  # no TF32


@dataclasses.dataclass(frozen=True)
class Rules:
    """How digits move and are drawn; hashable, so that it can be a static argument.

    Attributes:
        num_digits: number of digits in a sequence.
        frames: number of frames in a sequence.
        size: side of a frame in pixels.
        canvas: side of the canvas in pixels.
        every: steps from frame to frame.
        mode: "r0", "r1" or "r2".
        G: strength of the attraction.
        softening: length in pixels that keeps the force finite.
        max_speed: largest component of a velocity, and largest initial speed, pixels
            per step.
    """

    num_digits: int = 3
    frames: int = 20
    size: int = 64
    canvas: int = 128
    every: int = 5
    mode: str = "r0"
    G: float = 0.05
    softening: float = 10.0
    max_speed: float = 2.0


class Draw(NamedTuple):
    """The random numbers that determine a sequence.

    Attributes:
        digits: `[n]` int32, indices of the images.
        place: `[n, 2]`, corner as a share, 0 to 1, of its range of positions.
        angle: `[n]`, direction of the velocity, from x towards y.
        speed: `[n]`, pixels per step.
    """

    digits: jax.Array
    place: jax.Array
    angle: jax.Array
    speed: jax.Array


def cropped(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Digits moved to the top left corner, and the size of their bounding boxes.

    Args:
        images: uint8 `[m, 28, 28]`.

    Returns:
        uint8 `[m, 28, 28]` and int32 `[m, 2]`, width and height.
    """
    moved, boxes = np.zeros_like(images), np.empty((len(images), 2), np.int32)
    lit = np.asarray(images > LIT)
    rows, columns = np.any(lit, axis=2), np.any(lit, axis=1)
    tops, lefts = rows.argmax(axis=1), columns.argmax(axis=1)
    bottoms = DIGIT - rows[:, ::-1].argmax(axis=1)
    rights = DIGIT - columns[:, ::-1].argmax(axis=1)
    edges = np.stack([tops, bottoms, lefts, rights], axis=1).tolist()
    for i, (top, bottom, left, right) in enumerate(edges):
        boxes[i] = right - left, bottom - top
        moved[i, : bottom - top, : right - left] = images[i, top:bottom, left:right]
    return moved, boxes


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


@functools.lru_cache
def bicubic_weights(old: int, new: int) -> np.ndarray:
    """float32 `[new, old]` matrix of bicubic resampling along one axis."""
    weights = np.zeros((new, old), np.float64)
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    for tap in range(-1, 3):
        pixels = np.floor(centres).astype(int) + tap
        apart = np.abs(centres - pixels)
        near = ((CUBIC + 2) * apart - (CUBIC + 3)) * apart**2 + 1
        far = ((CUBIC * apart - 5 * CUBIC) * apart + 8 * CUBIC) * apart - 4 * CUBIC
        weight = np.where(apart <= 1, near, np.where(apart < 2, far, 0))
        np.add.at(weights, (np.arange(new), pixels.clip(0, old - 1)), weight)
    return weights.astype(np.float32)


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
