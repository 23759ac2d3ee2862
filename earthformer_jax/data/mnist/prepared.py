"""Sequences that TFDS prepared. NumPy alone."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from earthformer_jax.data.mnist import frames as frames_lib
from earthformer_jax.data.source import Example
from earthformer_jax.data.tfds_source import TfdsSource


class PreparedSequences:
    """Sequences prepared by TFDS: frames 0 .. in_len + out_len - 1 of each.

    Args:
        source: a split.
        feature: name of the frames, uint8 `[t, h, w, 1]`.
        positions: the examples to use, in order.
        settings: with in_len, out_len and space_step.

    Raises:
        ValueError: if the examples have another form or are too short.
    """

    def __init__(
        self, source: TfdsSource, feature: str, positions: Sequence[int], settings: Any
    ):
        first = {name: np.asarray(x) for name, x in source[0].items()}
        frames = first.get(feature, np.empty(0))
        if frames.ndim != 4 or frames.shape[-1] != 1 or frames.dtype != np.uint8:
            found = {name: (x.dtype.name, x.shape) for name, x in first.items()}
            raise ValueError(
                f"path={settings.path}: expected examples with "
                f"{feature!r}, uint8 [time, height, width, 1]; found {found}"
            )
        frames_lib.check_lengths(settings, len(frames), settings.path)
        self._stored = len(frames)
        frames_lib.check_space_step(settings, frames.shape[1:3])
        self._source, self._feature = source, feature
        self._positions = np.asarray(positions)
        self._in_len = settings.in_len
        self._frames = settings.in_len + settings.out_len
        self._space_step = settings.space_step

    def whole(self) -> "PreparedSequences":
        """The sequences with all of their frames as inputs."""
        whole = copy.copy(self)
        whole._in_len = whole._frames = self._stored
        return whole

    def take(self, which: np.ndarray) -> "PreparedSequences":
        """Some of the sequences, by their positions."""
        taken = copy.copy(self)
        taken._positions = self._positions[which]
        return taken

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        frames = self._source[int(self._positions[index])][self._feature]
        return frames_lib.example(
            frames[: self._frames, ..., 0], self._in_len, self._space_step
        )
