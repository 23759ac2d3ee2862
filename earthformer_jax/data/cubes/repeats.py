"""Leaves out windows of undated sequences whose frames an earlier split has.

Several sequences without dates may overlap, as events cut from one record do, or come
twice. Their frames are then equal, to the last bit. A series with dates has every frame
once.
"""

from collections.abc import Mapping

import numpy as np

from earthformer_jax.data import leaks
from earthformer_jax.data.readers.frames import ArrayFrames
from earthformer_jax.data.readers.series import Cube


def without_repeats(
    cube: Cube, starts: Mapping[str, np.ndarray], in_len: int, out_len: int
) -> tuple[dict[str, np.ndarray], str]:
    """Windows whose targets are in no window of an earlier split.

    Args:
        cube: the series; others than undated sequences in memory are not examined.
        starts: first frames of the windows of each split.
        in_len: number of input frames; 0: the inputs are the target frames.
        out_len: number of target frames.

    Returns:
        the windows to use, and what was left out, "" if nothing was.

    Raises:
        ValueError: if a split is then empty.
    """
    if cube.minutes is not None or len(cube.segments) < 2:
        return dict(starts), ""
    if not isinstance(cube.frames, ArrayFrames):
        return dict(starts), "too large to look for frames that occur twice"
    keys = _keys(cube.frames.values)
    seen, kept, dropped = np.zeros(0, np.int64), {}, 0
    for split in leaks.ORDER:
        windows = keys[starts[split][:, None] + np.arange(in_len + out_len)]
        targets = windows[:, in_len:]
        new = ~np.any(np.isin(targets, seen) & (targets != 0), axis=1)
        if len(new) and not new.any():
            raise ValueError(
                f"{cube.label}: the targets of all {len(new)} {split} windows are "
                "in an earlier split as well: sequences overlap or come twice. Leave "
                "the repeated ones out of the file, or give the frames dates"
            )
        kept[split] = starts[split][new]
        dropped += int(np.sum(~new))
        seen = np.union1d(seen, windows[new])
    text = f"{dropped} windows left out whose targets are also in an earlier split"
    return kept, text if dropped else ""


def _keys(frames: np.ndarray) -> np.ndarray:
    """int64 `[t]`, equal for equal frames; 0 for frames of one value."""
    flat = frames.reshape(len(frames), -1)
    keys = np.zeros(len(flat), np.int64)
    for i, frame in enumerate(flat):
        known = frame[np.isfinite(frame)]
        if known.size and known.min() < known.max():
            keys[i] = leaks.key(frame.tobytes())
    return keys
