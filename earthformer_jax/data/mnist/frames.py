"""Frames of moving digits as examples, in NumPy alone."""

from collections.abc import Sequence
from typing import Any

import einops
import numpy as np

from earthformer_jax.data.source import Batch, Example

SIZE = 28  # pixels of the image of a digit, along each side
WHITE = 255  # in stored frames; 1 in examples


def example(frames: np.ndarray, in_len: int, space_step: int = 1) -> Example:
    """Inputs and targets of frames `[t, h, w]`: uint8, or float32 in 0..1.

    Args:
        frames: of one sequence.
        in_len: number of input frames, which come first.
        space_step: n × n pixels are averaged into one.
    """
    batch = examples(np.asarray(frames)[None], in_len, space_step)
    return {name: values[0] for name, values in batch.items()}


def examples(frames: np.ndarray, in_len: int, space_step: int = 1) -> Batch:
    """The same for several sequences `[b, t, h, w]`."""
    if frames.dtype == np.uint8:
        frames = frames.astype(np.float32) / np.float32(WHITE)
    if space_step > 1:
        frames = einops.reduce(
            frames, "b t (h a) (w c) -> b t h w", "mean", a=space_step, c=space_step
        )
    frames = frames[..., None]
    return {"inputs": frames[:, :in_len], "targets": frames[:, in_len:]}


def stored(example: Example) -> Example:
    """All frames of an example as grey values: {"frames": uint8 `[t, h, w, 1]`}."""
    frames = np.concatenate([example["inputs"], example["targets"]])
    return {"frames": np.round(WHITE * frames).astype(np.uint8)}


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
