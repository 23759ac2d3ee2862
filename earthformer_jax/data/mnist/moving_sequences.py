"""Sequences of MovingMNIST, generated or of a file. NumPy alone."""

from pathlib import Path
from typing import Any

import numpy as np

from earthformer_jax.data.mnist import frames as frames_lib
from earthformer_jax.data.mnist import moving_generator
from earthformer_jax.data.readers import unchanged
from earthformer_jax.data.readers.arrays import NpyArray
from earthformer_jax.data.source import Example
from earthformer_jax.data.splits import SPLITS


class GeneratedSequences:
    """Generated sequences: number i depends only on seed, split and i.

    Args:
        images: uint8 `[m, 28, 28]` digits.
        count: number of sequences.
        settings: with num_digits, size, space_step, in_len, out_len and seed.
        split: "train", "validation" or "test".
    """

    def __init__(self, images: np.ndarray, count: int, settings: Any, split: str):
        self._images = images
        self._count = count
        self._num_digits, self._size = settings.num_digits, settings.size
        self._in_len, self._space_step = settings.in_len, settings.space_step
        self._frames = settings.in_len + settings.out_len
        self._key = (settings.seed, SPLITS.index(split))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._count:
            raise IndexError(f"sequence {index} of {self._count}")
        start = moving_generator.draw(
            np.random.default_rng((*self._key, index)),
            len(self._images),
            self._num_digits,
            self._size,
        )
        frames = moving_generator.generate(
            self._images, start, self._frames, self._size
        )
        return frames_lib.example(frames, self._in_len, self._space_step)


class FileSequences:
    """Sequences of a .npy file, uint8 `[t, n, h, w]`, read one by one.

    Args:
        path: the file.
        numbers: the sequences to use, in order.
        settings: with in_len, out_len and space_step.
    """

    def __init__(self, path: Path, numbers: np.ndarray, settings: Any):
        self._path, self._numbers = path, numbers
        self._in_len, self._space_step = settings.in_len, settings.space_step
        self._frames = settings.in_len + settings.out_len
        self._stamp = unchanged.stamp(path)
        self._file: NpyArray | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        file = self._file
        unchanged.check(self._path, self._stamp)
        if file is None:
            file = self._file = NpyArray(self._path)
        frames = file[: self._frames, int(self._numbers[index])]
        unchanged.check(self._path, self._stamp)
        return frames_lib.example(frames, self._in_len, self._space_step)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}
