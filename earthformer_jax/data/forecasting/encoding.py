"""How physical fields become what a model sees, as arrays.

An `Encoding` has no code of its own, so that the conversion can be written into a
program together with the model (`forecast.physical`).
"""

import dataclasses

import numpy as np

from earthformer_jax.data.climatology import Climatology

CALENDARS = ("", "season", "season and day", "month")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """A leaky integral of the frames before each input frame, as an input channel.

        memory[t] = -sum over j = 1 .. reach of kept^(j - 1) anomaly[t - j] / scale

    Attributes:
        reach: frames that are remembered.
        before: how many of them are given in addition to the input frames; others count
            as 0.
        kept: share that is kept from frame to frame.
        scale: physical value of the integral per model unit.
    """

    reach: int
    before: int
    kept: float
    scale: float


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
        memory: a last input channel with the memory of the first one; None: there is
            none.
    """

    scale: np.ndarray
    offset: np.ndarray
    targets: int
    counted: np.ndarray | None = None
    climatology: Climatology | None = None
    calendar: str = ""
    most_carried: int | None = None
    fill: np.ndarray | None = None
    memory: Memory | None = None

    def __post_init__(self) -> None:
        """Rejects arrays that do not fit together.

        Raises:
            ValueError: with the reason.
        """
        channels = len(self.scale)
        if self.calendar not in CALENDARS:
            raise ValueError(f"calendar={self.calendar!r}: expected one of {CALENDARS}")
        if len(self.offset) != channels or not 1 <= self.targets <= channels:
            raise ValueError(
                f"an encoding of {channels} channels with {len(self.offset)} offsets "
                f"and {self.targets} targets"
            )
        if self.fill is not None and len(self.fill) != channels:
            raise ValueError(f"an encoding of {channels} channels with {self.fill=}")
        fields = [] if self.counted is None else [self.counted.shape]
        if self.climatology is not None:
            fields.append(self.climatology.coefficients.shape[1:])
        if any(len(s) != 3 or s[2] != channels or s != fields[0] for s in fields):
            raise ValueError(
                f"an encoding of {channels} channels with fields of the shapes "
                f"{', '.join(map(str, fields))}"
            )

    @property
    def before(self) -> int:
        """Frames before the inputs of a model that are needed for their memory."""
        return 0 if self.memory is None else self.memory.before

    @property
    def needs_minutes(self) -> bool:
        """Whether conversion depends on the time."""
        cycle = self.climatology
        return bool(self.calendar) or (cycle is not None and cycle.has_cycles)

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns; None: any."""
        if self.counted is not None:
            return self.counted.shape[:2]
        if self.climatology is not None:
            return self.climatology.coefficients.shape[1:3]
        return None
