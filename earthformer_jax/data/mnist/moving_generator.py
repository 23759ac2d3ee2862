"""MovingMNIST: digits that move at constant speed and bounce off the walls.

Positions are the top left corners of the 28 x 28 images, velocities are per frame, both
in pixels, `[n, 2]` with x (columns) before y (rows). Pure functions of NumPy arrays.

Reference:
    Srivastava et al. 2015, Unsupervised Learning of Video Representations using LSTMs,
    https://arxiv.org/abs/1502.04681, section 4.1, and the authors' generator: a step is
    a tenth of the distance between the walls, a digit that would leave the frame is put
    on the wall, and corners are rounded down to whole pixels.
"""

from typing import NamedTuple

import numpy as np

from earthformer_jax.data.mnist.frames import SIZE as DIGIT

STEP = 0.1  # distance per frame, as a share of that between the walls


class Start(NamedTuple):
    """The initial state, which determines a sequence.

    Attributes:
        digits: `[n]`, indices of the images.
        position: `[n, 2]`, x and y of their top left corners in the first frame.
        velocity: `[n, 2]`, pixels per frame.
    """

    digits: np.ndarray
    position: np.ndarray
    velocity: np.ndarray


def draw(generator: np.random.Generator, count: int, num_digits: int, size: int):
    """A random `Start`: uniform digits, positions and directions, and a fixed speed.

    Args:
        generator: source of randomness.
        count: number of images to choose from.
        num_digits: digits per sequence.
        size: side of a frame in pixels.
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
    """Corners of the digits in every frame, `[t, n, 2]`, starting at `position`.

    Args:
        position: `[n, 2]`, between the walls at 0 and size - 28.
        velocity: `[n, 2]`.
        frames: number of frames.
        size: side of a frame in pixels.
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
        size: side of a frame in pixels.
    """
    frames = np.zeros((len(corners), size, size), np.uint8)
    for frame, places in zip(frames, np.asarray(corners).astype(int), strict=True):
        for image, (x, y) in zip(images, places.tolist(), strict=True):
            window = frame[y : y + DIGIT, x : x + DIGIT]
            np.maximum(window, image, out=window)
    return frames


def generate(images: np.ndarray, start: Start, frames: int, size: int) -> np.ndarray:
    """The sequence that a start determines, uint8 `[t, size, size]`.

    Args:
        images: uint8 `[m, 28, 28]`, of which `start.digits` are shown.
        start: digits, positions and velocities, for example from `draw`.
        frames: number of frames.
        size: side of a frame in pixels.

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
