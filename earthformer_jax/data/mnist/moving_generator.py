"""MovingMNIST: digits that move at constant speed and bounce off the walls.

Positions are the top left corners of the 28 x 28 images, velocities are per frame, both
in pixels, `[n, 2]` with x (columns) before y (rows). Pure functions of NumPy arrays.

Reference:
    Srivastava et al. 2015, Unsupervised Learning of Video Representations using LSTMs,
    https://arxiv.org/abs/1502.04681, section 4.1, and the authors' generator: a step is
    a tenth of the way from wall to wall, a digit that would leave is put on the wall,
    corners are rounded down to whole pixels.
"""

from typing import NamedTuple

import numpy as np

from earthformer_jax.data.mnist.digits import SIZE as DIGIT

STEP = 0.1  # way per frame, of the distance between the walls


class Start(NamedTuple):
    """What a sequence follows from.

    Attributes:
        digits: `[n]`, which images.
        position: `[n, 2]`, x and y of their top left corners in the first frame.
        velocity: `[n, 2]`, pixels per frame.
    """

    digits: np.ndarray
    position: np.ndarray
    velocity: np.ndarray


def draw(generator: np.random.Generator, count: int, num_digits: int, size: int):
    """A random `Start`: any digits, any place, any direction, one speed.

    Args:
        generator: source of randomness.
        count: how many images there are to choose from.
        num_digits: digits per sequence.
        size: pixels of a frame, along each side.
    """
    room = size - DIGIT
    digits = generator.integers(count, size=num_digits)
    position = generator.uniform(0, room, (num_digits, 2))
    angle = generator.uniform(0, 2 * np.pi, num_digits)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return Start(digits, position, STEP * room * direction)


def trajectory(
    position: np.ndarray, velocity: np.ndarray, frames: int, size: int
) -> np.ndarray:
    """Corners of the digits in every frame, `[t, n, 2]`, the first as given.

    Args:
        position: `[n, 2]`, between the walls, 0 and size - 28.
        velocity: `[n, 2]`.
        frames: how many.
        size: pixels of a frame, along each side.
    """
    room = size - DIGIT
    position, velocity = np.array(position, float), np.array(velocity, float)
    corners = np.empty((frames, *position.shape))
    for t in range(frames):
        corners[t] = position
        position += velocity
        velocity[(position <= 0) | (position >= room)] *= -1
        np.clip(position, 0, room, out=position)
    return corners


def render(images: np.ndarray, corners: np.ndarray, size: int) -> np.ndarray:
    """uint8 `[t, size, size]`: the brightest of the digits at every pixel.

    Args:
        images: uint8 `[n, 28, 28]`.
        corners: `[t, n, 2]`, x and y.
        size: pixels of a frame, along each side.
    """
    frames = np.zeros((len(corners), size, size), np.uint8)
    for frame, places in zip(frames, np.asarray(corners).astype(int), strict=True):
        for image, (x, y) in zip(images, places.tolist(), strict=True):
            window = frame[y : y + DIGIT, x : x + DIGIT]
            np.maximum(window, image, out=window)
    return frames


def generate(images: np.ndarray, start: Start, frames: int, size: int) -> np.ndarray:
    """The sequence that follows from a start, uint8 `[t, size, size]`.

    Args:
        images: uint8 `[m, 28, 28]`, of which `start.digits` are shown.
        start: digits, places and velocities, drawn (`draw`) or given.
        frames: how many.
        size: pixels of a frame, along each side.

    Raises:
        ValueError: if a digit starts outside the walls.
    """
    room = size - DIGIT
    if np.any(np.asarray(start.position) < 0) or np.any(
        np.asarray(start.position) > room
    ):
        raise ValueError(
            f"position={np.asarray(start.position).tolist()}: the corners of digits "
            f"must be between 0 and {room} in frames of {size} pixels"
        )
    corners = trajectory(start.position, start.velocity, frames, size)
    return render(images[start.digits], corners, size)
