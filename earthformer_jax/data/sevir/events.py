"""Events of SEVIR's catalog, once they are read. NumPy alone."""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Events:
    """Some events of a catalog, as columns of equal length.

    Attributes:
        id: `[n]` names.
        file_name: `[n]`, relative to the folder of the data.
        file_index: int64 `[n]`, the event's number in its file.
        time: datetime64[s] `[n]` UTC.
        offsets: int32 arrays, one per event: minutes from `time` to every frame; empty
            if the catalog has none.
        corners: float32 `[n, 4]` degrees: latitude and longitude of the lower left
            corner, then of the upper right one; NaN if the catalog has none.
        pct_missing: `[n]`, the catalog's measure of missing pixels.
        row: int32 `[n]`, number of the catalog's row, from 0.
        episode: `[n]` names of the storms that events belong to; "" if unknown.
        projection: `[n]` of the images, in the words of PROJ; "" if unknown.
    """

    id: np.ndarray
    file_name: np.ndarray
    file_index: np.ndarray
    time: np.ndarray
    offsets: Sequence[np.ndarray]
    corners: np.ndarray
    pct_missing: np.ndarray
    row: np.ndarray
    episode: np.ndarray
    projection: np.ndarray

    def __len__(self) -> int:
        return len(self.id)

    def take(self, which: np.ndarray) -> "Events":
        """The events of a boolean mask or of positions, in that order."""
        positions = np.arange(len(self))[which]
        columns = {
            field.name: getattr(self, field.name)[positions]
            for field in dataclasses.fields(self)
            if field.name != "offsets"
        }
        return Events(**columns, offsets=[self.offsets[i] for i in positions])


def count_windows(frames, span: int, stride: int):
    """Number of windows of `span` frames, `stride` apart, in an event.

    Args:
        frames: number of frames in the event; an integer or an array.
        span: frames in a window.
        stride: frames from the start of one window to the start of the next.

    Returns:
        1 + (frames - span) // stride, or 0 if not even one fits.
    """
    frames = np.asarray(frames)
    return np.where(frames < span, 0, 1 + (frames - span) // stride)
