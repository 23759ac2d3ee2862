"""N-body MNIST in NumPy, many sequences at a time: what readers of examples run.

It follows the rules of `nbody_generator` and equals it up to rounding. Sequence i does
not depend on which other sequences it is made with: every sum has a fixed order.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from earthformer_jax.data.mnist import counter_random, frames
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
from earthformer_jax.data.reading import memory
from earthformer_jax.data.source import Batch, Example
from earthformer_jax.data.splits import SPLITS

SEED_RANGE = 2**32
EDGE = DIGIT + 1  # pixels around the canvas that digits may extend over
_BLOCK = 16  # pixels that are computed at a time


class Sequences:
    """Rendered sequences.

    Args:
        draws: the random numbers that determine each sequence.
        images: uint8 `[m, 28, 28]` digits.
        rules: how digits move and are drawn.
        in_len: number of input frames; the others are targets.
        space_step: see `nbody_mnist.Settings`.
    """

    def __init__(
        self,
        draws: "RandomDraws | SavedDraws",
        images: np.ndarray,
        rules: Rules,
        in_len: int,
        space_step: int = 1,
    ):
        self._draws, self._images = draws, images
        self._rules, self._in_len, self._space_step = rules, in_len, space_step

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> Example:
        return {name: x[0] for name, x in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several sequences, stacked."""
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"sequence {index} of {len(self)}")
        draws = self._draws.at(np.asarray(indices))
        images, boxes = cropped(self._images[draws.digits.ravel()])
        shape = draws.digits.shape
        images = images.reshape(*shape, *images.shape[1:])
        videos = video(images, boxes.reshape(*shape, 2), draws, self._rules)
        return frames.examples(videos, self._in_len, self._space_step)


@dataclasses.dataclass(frozen=True)
class RandomDraws:
    """Draws from a seed: number i depends only on seed, split and i.

    They are those of `nbody_generator.draw` with the key of (seed, split, i).

    Attributes:
        seed: of the data set.
        split: "train", "validation" or "test".
        length: number of draws.
        images: number of digits to choose from.
        rules: the number of digits and the largest speed.
    """

    seed: int
    split: str
    length: int
    images: int
    rules: Rules

    def __len__(self) -> int:
        return self.length

    def at(self, indices: np.ndarray) -> Draw:
        """The draws of some numbers `[b]`, stacked."""
        n = self.rules.num_digits
        split_key = counter_random.fold_in(
            counter_random.key(self.seed % SEED_RANGE), SPLITS.index(self.split)
        )
        keys = counter_random.split(counter_random.fold_in(split_key, indices), 4)
        digits, place, angle, speed = np.moveaxis(keys, -2, 0)
        higher, lower = np.moveaxis(counter_random.split(digits, 2), -2, 0)
        uniform = np.stack([higher, lower, angle, speed])
        higher, lower, angle, speed = counter_random.bits(uniform, n)
        place = counter_random.bits(place, 2 * n).reshape(-1, n, 2)
        return Draw(
            digits=counter_random.as_integer(higher, lower, self.images),
            place=counter_random.as_uniform(place),
            angle=counter_random.as_uniform(angle, 2 * np.pi),
            speed=counter_random.as_uniform(speed, self.rules.max_speed),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class SavedDraws:
    """Draws from one of the authors' files.

    Attributes:
        arrays: of all sequences.
    """

    arrays: Draw

    def __len__(self) -> int:
        return len(self.arrays.digits)

    def take(self, which: np.ndarray) -> "SavedDraws":
        """The draws at some positions."""
        return SavedDraws(self.at(which))

    def at(self, indices: np.ndarray) -> Draw:
        """The draws at some positions `[b]`, stacked."""
        return Draw(*(array[indices] for array in self.arrays))


def start(draw: Draw, boxes: np.ndarray, rules: Rules):
    """Initial position and velocity float32 `[..., n, 2]` of boxes `[..., n, 2]`."""
    direction = np.stack([np.cos(draw.angle), np.sin(draw.angle)], axis=-1)
    room = (rules.canvas - boxes).astype(np.float32)
    return draw.place * room, draw.speed[..., None] * direction


def simulate(position, velocity, boxes, rules: Rules) -> np.ndarray:
    """Positions of the digits in every frame, float32 `[t, ..., n, 2]`.

    Args:
        position: `[..., n, 2]`, in the first frame.
        velocity: `[..., n, 2]`.
        boxes: `[..., n, 2]`.
        rules: how they move.
    """
    x, v = np.array(position, np.float32), np.array(velocity, np.float32)
    half = np.asarray(boxes, np.float32) / 2
    low, high = np.float32(MARGIN), np.float32(rules.canvas - MARGIN)
    fastest, pull = np.float32(rules.max_speed), np.float32(rules.G)
    softened = np.float32(rules.softening**2)
    positions = np.empty((rules.frames, *x.shape), np.float32)
    for step in range((rules.frames - 1) * rules.every + 1):
        frame, rest = divmod(step, rules.every)
        if not rest:
            positions[frame] = x
        apart = x[..., None, :, :] - x[..., :, None, :]
        squares = apart * apart
        distance = squares[..., 0] + squares[..., 1]
        distance += softened
        np.sqrt(distance, out=distance)
        divisor = distance
        for _ in range(POWERS[rules.mode] - 1):
            divisor = divisor * distance
        apart /= divisor[..., None]
        v += pull * _sum_of(apart)
        np.minimum(np.maximum(v, -fastest, out=v), fastest, out=v)
        x += v
        x += half
        inside = np.minimum(np.maximum(x, low), high)
        np.negative(v, out=v, where=inside != x)
        np.subtract(inside, half, out=x)
    return positions


def _sum_of(pulls: np.ndarray) -> np.ndarray:
    """Sum `[..., n, 2]` over the second `n` of `[..., n, n, 2]`, in its order."""
    total = pulls[..., 0, :].copy()
    for other in range(1, pulls.shape[-2]):
        total += pulls[..., other, :]
    return total


def paint(images: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
    """Paints the brightest of shifted digits at every pixel of dark canvases.

    Args:
        images: `[n, h, w]`.
        positions: `[t, n, 2]` of their top left corners, x and y, from -28 to the side
            of the canvas; digits between whole pixels are interpolated linearly.
        out: float32 `[t, side, side]`, canvases with an edge of `EDGE` pixels around
            each, to paint on.
    """
    whole = np.floor(positions)
    right, down = np.moveaxis(positions - whole, -1, 0)
    framed = np.pad(images.astype(np.float32), [(0, 0), (1, 1), (1, 1)])
    upper, here = framed[:, :-1], framed[:, 1:]
    rows = (upper - here) * down[..., None, None]
    rows += here
    digits = rows[..., :-1] - rows[..., 1:]
    digits *= right[..., None, None]
    digits += rows[..., 1:]
    windows = _windows(whole, digits.shape[-2:], out)
    for window, digit in zip(
        windows, digits.reshape(-1, *digits.shape[-2:]), strict=True
    ):
        np.maximum(window, digit, out=window)


def erase(images: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
    """Darkens what `paint` has painted with the same arguments."""
    height, width = images.shape[1:]
    for window in _windows(np.floor(positions), (height + 1, width + 1), out):
        window.fill(0)


def _windows(corners, size, out: np.ndarray) -> Iterator[np.ndarray]:
    """The parts of canvases at corners `[t, n, 2]`, one after the other."""
    height, width = size
    places = (corners.astype(np.int64) + EDGE).tolist()
    for frame, of_frame in zip(out, places, strict=True):
        for x, y in of_frame:
            yield frame[y : y + height, x : x + width]


def shrink(x: np.ndarray, size: int) -> np.ndarray:
    """Resamples `[t, h, h]` to `[t, size, size]` as `nbody_generator.shrink` does.

    A pixel depends on four pixels along each axis, so a few are computed at a time from
    those that they depend on.
    """
    weights = bicubic_weights(x.shape[-1], size)
    rows = np.empty((len(x), size, x.shape[-1]), np.float32)
    shrunk = np.empty((len(x), size, size), np.float32)
    parts = []
    for first in range(0, size, _BLOCK):
        part = slice(first, first + _BLOCK)
        used = np.flatnonzero(weights[part].any(axis=0))
        parts.append((part, slice(int(used[0]), int(used[-1]) + 1)))
    for part, used in parts:
        np.matmul(weights[part, used], x[:, used], out=rows[:, part])
    for part, used in parts:
        np.matmul(rows[..., used], weights[part, used].T, out=shrunk[..., part])
    return shrunk


def video(images, boxes, draw: Draw, rules: Rules) -> np.ndarray:
    """The sequences of draws, float32 `[b, frames, size, size]`, 0 to 1.

    Args:
        images: uint8 `[b, n, 28, 28]`, the digits of the draws, cropped.
        boxes: `[b, n, 2]`, their bounding boxes.
        draw: their initial positions and velocities.
        rules: how they move and are drawn.
    """
    positions = simulate(*start(draw, boxes, rules), boxes, rules)
    positions = positions.clip(-DIGIT, rules.canvas)  # farther away is outside, too
    side = rules.canvas + 2 * EDGE
    canvas = np.zeros((rules.frames, side, side), np.float32)
    inside = slice(EDGE, EDGE + rules.canvas)
    shape = len(images), rules.frames, rules.size, rules.size
    videos = memory.empty(shape, np.float32)
    for number, (digits, sizes) in enumerate(zip(images, boxes, strict=True)):
        width, height = sizes.max(axis=0)
        digits = digits[:, :height, :width]
        paint(digits, positions[:, number], canvas)
        shown = shrink(canvas[:, inside, inside], rules.size)
        erase(digits, positions[:, number], canvas)
        np.minimum(np.maximum(shown, 0, out=shown), np.float32(WHITE), out=shown)
        np.divide(shown, np.float32(WHITE), out=videos[number])
    return videos
