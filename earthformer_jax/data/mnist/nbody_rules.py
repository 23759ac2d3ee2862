"""The rules of N-body MNIST, its draws, and what both of its generators share.

`nbody_generator` explains the rules and follows them in JAX, `nbody_sequences` in
NumPy. Pure functions of NumPy arrays.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import numpy as np

from earthformer_jax.data.mnist.frames import SIZE as DIGIT

POWERS = {"r0": 1, "r1": 2, "r2": 3}  # p, by mode
MARGIN = 10.0  # pixels between the edge and the centre of a digit
LIT = 5 / 255  # on a scale of 0 .. 255; brighter pixels belong to the digit
CUBIC = -0.75  # the parameter of the bicubic kernel
WHITE = 255.0


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

    Arrays of NumPy or JAX.

    Attributes:
        digits: `[n]` int32, indices of the images.
        place: `[n, 2]`, corner as a share, 0 to 1, of its range of positions.
        angle: `[n]`, direction of the velocity, from x towards y.
        speed: `[n]`, pixels per step.
    """

    digits: Any
    place: Any
    angle: Any
    speed: Any


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
