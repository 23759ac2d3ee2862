"""How physical fields become what a model sees, as arrays.

An `Encoding` has no code of its own, so that the conversion can be written into a
program together with the model (`forecast.physical`).
"""

import dataclasses

import numpy as np

from earthformer_jax.data.climatology import Climatology

CALENDARS = ("", "season", "season and day", "month")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """Model units = (value - offset - climatology) / scale, and how gaps are filled.

    Attributes:
        scale: float32 `[c]`, of the channels of the files; the targets come first.
        offset: float32 `[c]`.
        targets: number of target channels.
        counted: bool `[h, w, c]`, the cells that were observed in the training; None:
            all.
        climatology: removed from the values; None: nothing is.
        calendar: what the further input channels of the model are, one of `CALENDARS`:
            none, cosine and sine of the season, those of the time of day as well, or
            those of the calendar month.
        most_carried: frames over which a missing value is replaced by the last one;
            after them, and before the first, it is `fill`. None: no limit.
        fill: float32 `[c]` in model units; None: 0.
    """

    scale: np.ndarray
    offset: np.ndarray
    targets: int
    counted: np.ndarray | None = None
    climatology: Climatology | None = None
    calendar: str = ""
    most_carried: int | None = None
    fill: np.ndarray | None = None
