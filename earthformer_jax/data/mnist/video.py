"""Code shared by the data sets of moving digits: frames in 0..1, scores, display."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any

import numpy as np

from earthformer_jax.data import leaks
from earthformer_jax.data.dataset import Channel, Data, Dataset, Display
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.references import persistence
from earthformer_jax.data.source import Source
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.task import ForecastFrames
from earthformer_jax.metrics import frames as frame_metrics

MSE_UNITS = "sum over the pixels of a frame"


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
