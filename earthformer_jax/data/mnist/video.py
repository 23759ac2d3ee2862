"""Code shared by the data sets of moving digits: frames in 0..1, scores, display."""

import copy
import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from earthformer_jax.data import leaks
from earthformer_jax.data.dataset import Channel, Data, Dataset, Display
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.mnist.frames import SPLITS, example
from earthformer_jax.data.references import persistence
from earthformer_jax.data.source import Example, Source
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.data.tfds_source import TfdsSource
from earthformer_jax.metrics import frames as frame_metrics

__all__ = ["SPLITS"]

MSE_UNITS = "sum over the pixels of a frame"


def check_space_step(settings: Any, size: Sequence[int]) -> None:
    """Rejects a step that does not divide the frames.

    Raises:
        ValueError: if it does not; the message gives the step and the frame size.
    """
    if any(side % settings.space_step for side in size):
        raise ValueError(
            f"space_step={settings.space_step} does not divide frames of "
            f"{' x '.join(map(str, size))} pixels"
        )


@dataclasses.dataclass(frozen=True)
class Unrepeated:
    """The sequences to use of files: those that no earlier split has.

    Attributes:
        which: positions `[n]` among the sequences of each split.
        spans: of these sequences.
        text: "; left out: 2 sequences ...", or "".
    """

    which: Mapping[str, np.ndarray]
    spans: Mapping[str, Spans]
    text: str


def without_repeats(keys: Mapping[str, np.ndarray], path: object) -> Unrepeated:
    """Leaves out sequences that have a frame of a sequence of an earlier split.

    Args:
        keys: int64 `[n, t]` of the frames of each split's sequences, or `[n, 1]` of
            whole sequences (`leaks.key`).
        path: the file or folder, for the message.

    Raises:
        ValueError: if a split is then empty.
    """
    kept = leaks.unrepeated(keys)
    for split, which in kept.items():
        if not which.any():
            raise ValueError(
                f"path={path}: all {len(which)} sequences of the {split} split are "
                "also in an earlier split, so their scores would mean nothing. Are the "
                "files copies of each other?"
            )
    dropped = sum(int(np.sum(~which)) for which in kept.values())
    text = f"; left out: {dropped} sequences that repeat frames of an earlier split"
    return Unrepeated(
        {split: np.flatnonzero(which) for split, which in kept.items()},
        {split: leaks.of_keys(keys[split][which]) for split, which in kept.items()},
        text if dropped else "",
    )


def frame_keys(frames: np.ndarray) -> np.ndarray:
    """int64 `[n]`, equal for equal frames `[n, h, w]`; 0 for those of one value."""
    flat = frames.reshape(len(frames), -1)
    varies = flat.min(axis=1) < flat.max(axis=1)
    keys = [leaks.key(flat[i].tobytes()) if varies[i] else 0 for i in range(len(flat))]
    return np.array(keys, np.int64)


def dataset(
    settings: Any,
    sources: Mapping[str, Source],
    origin: str,
    spans: Mapping[str, Spans] = types.MappingProxyType({}),
) -> Dataset:
    """A data set of one grey channel.

    Args:
        settings: with name, in_len and out_len.
        sources: by split.
        origin: the origin of the frames, for the description.
        spans: of the sequences; empty if they are drawn independently.
    """
    height, width = sources["train"][0]["targets"].shape[1:3]
    sizes = ", ".join(f"{split} {len(sources[split]):,}" for split in SPLITS)
    data = Data(
        name=settings.name,
        description=(
            f"{origin}; {settings.in_len} -> {settings.out_len} frames of {height} x "
            f"{width}, grey values 0..1; {sizes} sequences"
        ),
        train=sources["train"],
        validation=sources["validation"],
        test=sources["test"],
        loss_weights=np.ones((1, 1, 1, 1), np.float32),
        display=Display(
            (Channel("brightness", "", limits=(0.0, 1.0), colormap="gray"),)
        ),
        spans=spans,
    )
    task = ForecastFrames(
        metric=frame_metrics.FrameScores(),
        verification=frame_metrics.verification(frame=(height, width)),
        references={"persistence": persistence(settings.out_len, channels=1)},
        mse_units=MSE_UNITS,
    )
    return Dataset(data, task)


def check_lengths(settings: Any, frames: int, place: str) -> None:
    """Rejects lengths that need more frames than there are.

    Raises:
        ValueError: if they do; the message gives both numbers.
    """
    if settings.in_len + settings.out_len > frames and not settings.out_len:
        raise ValueError(
            f"in_len={settings.in_len} frames are needed; the sequences of {place} "
            f"have {frames}"
        )
    if settings.in_len + settings.out_len > frames:
        raise ValueError(
            f"in_len={settings.in_len} and out_len="
            f"{settings.out_len} need {settings.in_len + settings.out_len} frames; the "
            f"sequences of {place} have {frames}"
        )


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
        check_lengths(settings, len(frames), settings.path)
        self._stored = len(frames)
        check_space_step(settings, frames.shape[1:3])
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
        return example(frames[: self._frames, ..., 0], self._in_len, self._space_step)
