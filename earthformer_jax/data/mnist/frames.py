"""Frames of moving digits as examples, in NumPy alone."""

import einops
import numpy as np

from earthformer_jax.data.source import Batch, Example

SPLITS = ("train", "validation", "test")
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
