"""Cuts events of radar codes into the windows that a model learns from.

Code 255 marks missing pixels. It is never treated as rain: inputs have code 0 there,
and targets are not `observed`. (The reference implementation of Earthformer treats it
as the strongest rain in the few events whose missing pixels the catalog omits.)
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from earthformer_jax.data.augment import center_crop
from earthformer_jax.data.normalization import Affine
from earthformer_jax.data.reading import memory
from earthformer_jax.data.sevir import twin as twin_lib
from earthformer_jax.data.sevir.events import count_windows
from earthformer_jax.data.source import Batch, Example, Source, stacked
from earthformer_jax.data.splits import SPLITS

MISSING = 255  # code of pixels that were not observed


def code_table(normalization: Affine) -> np.ndarray:
    """Model units of every code, float32 `[256]`; missing counts as no rain."""
    codes = np.arange(MISSING + 1)
    codes[MISSING] = 0
    return normalization.encode(codes).astype(np.float32)


NORMALIZATIONS = {
    "01": Affine(255.0, 0.0),
    "sevir": Affine(47.54, 33.44),  # standard deviation and mean of SEVIR's codes
}
UNITS = {"01": "code / 255", "sevir": "(code - 33.44) / 47.54"}


def vil_kg_per_m2(code) -> np.ndarray:
    """Vertically integrated liquid in kg/m2 of codes 0 to 254; NaN for 255.

    0 up to code 5, (code - 2) / 90.66 up to 18, exp((code - 83.9) / 38.9) above.

    Reference:
        The SEVIR tutorial, https://github.com/MIT-AI-Accelerator/eie-sevir
    """
    code = np.asarray(code, np.float64)
    linear, exponential = (code - 2) / 90.66, np.exp((code - 83.9) / 38.9)
    vil = np.where(code <= 5, 0.0, np.where(code <= 18, linear, exponential))
    return np.where(code >= MISSING, np.nan, vil)


class EventSource(Protocol):
    """Events whose frames can be read selectively.

    Attributes:
        frames: `[n]`, number of frames of every event.
        size: rows and columns.
        minutes: all intervals between frames that occur.
    """

    @property
    def frames(self) -> np.ndarray: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def minutes(self) -> set[int]: ...

    def __len__(self) -> int: ...

    def read(self, index: int, frames: slice) -> dict[str, np.ndarray]:
        """ "vil" uint8 `[t, h, w]`, "time" int32 `[t]`, and further known values."""
        ...

    def times(self, index: int) -> np.ndarray:
        """Minutes since 1970-01-01 UTC of all frames of an event, int32 `[t]`."""
        ...


@dataclasses.dataclass(frozen=True)
class TwinEvents:
    """Events of the radar twin, which begin at midnight of successive days.

    Those of training begin in 1970 and go on; those of validation and test go back from
    there in turn, so that no two events have the same time.
    """

    twin: twin_lib.RadarTwin

    @property
    def frames(self) -> np.ndarray:
        return np.full(len(self.twin), self.twin.frames)

    @property
    def size(self) -> tuple[int, int]:
        side = twin_lib.DOMAIN // self.twin.space_step
        return side, side

    @property
    def minutes(self) -> set[int]:
        return {twin_lib.MINUTES * self.twin.time_step}

    def __len__(self) -> int:
        return len(self.twin)

    def read(self, index: int, frames: slice) -> dict[str, np.ndarray]:
        return {
            "vil": self.twin[index][frames],
            "time": self.times(index)[frames],
            "event": np.asarray(index, np.int32),
        }

    def times(self, index: int) -> np.ndarray:
        """Minutes since 1970-01-01 UTC of all frames of an event, int32."""
        (step,) = self.minutes
        number = SPLITS.index(self.twin.split)
        day = -(2 * index + number) if number else index
        return 24 * 60 * day + step * np.arange(self.twin.frames, dtype=np.int32)


class PreparedEvents:
    """Events of a prepared TFDS data set; each is read as a whole."""

    def __init__(self, examples: Source):
        """Makes a source of events from examples with a `vil` `[t, h, w, 1]`.

        Raises:
            ValueError: if the examples have another form.
        """
        self._examples = examples
        first = examples[0]
        if not {"vil", "time"} <= set(first):
            raise ValueError(
                f"the prepared examples contain {', '.join(first)}; expected events "
                "of SEVIR, with vil and time"
            )
        frames, *size, _ = first["vil"].shape
        self.frames = np.full(len(examples), frames)
        self.size = tuple(size)
        self.minutes = {int(np.median(np.diff(first["time"])))}

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, index: int, frames: slice) -> dict[str, np.ndarray]:
        event = self._examples[index]
        return {
            **event,
            "vil": event["vil"][frames, ..., 0],
            "time": event["time"][frames],
        }

    def times(self, index: int) -> np.ndarray:
        """Minutes since 1970-01-01 UTC of all frames of an event, int32."""
        return self._examples[index]["time"]


class Windows:
    """Examples cut from events: `in_len` input frames, then `out_len` target frames.

    In addition to `inputs`, `targets`, `observed` and `time`, an example contains
    `event`, the row of the event in the catalog (its number in the twin), and for real
    data `corners`, float32 `[4]`: latitude and longitude of the lower left, then of the
    upper right corner of the whole image in degrees; NaN if unknown.
    """

    def __init__(
        self,
        events: EventSource,
        in_len: int,
        out_len: int,
        *,
        stride: int = 12,
        time_step: int = 1,
        space_step: int = 1,
        normalization: Affine = NORMALIZATIONS["01"],
        which: np.ndarray | None = None,
        places: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        """Makes a source; the arguments are those of `Settings`, but for the last two.

        Args:
            which: the windows to use, by mask or position; None: all.
            places: numbers `[n]` of the events and of the first frames of the windows,
                instead of windows that are `stride` frames apart.

        Raises:
            ValueError: if `space_step` does not divide the size of the images.
        """
        if any(side % space_step for side in events.size):
            raise ValueError(
                f"space_step={space_step} does not divide the "
                f"{events.size[0]} x {events.size[1]} pixels of the images"
            )
        self._events = events
        self._in_len, self._out_len = in_len, out_len
        self._stride, self._time_step, self._space_step = stride, time_step, space_step
        self._units = code_table(normalization)
        self._divisor = _divisor(self._units)
        if places is not None:
            event, start = places
        else:
            frames = -(-np.asarray(events.frames) // time_step)
            counts = count_windows(frames, in_len + out_len, stride)
            event = np.repeat(np.arange(len(counts)), counts)
            number = np.arange(len(event)) - (np.cumsum(counts) - counts)[event]
            start = number * stride * time_step
        chosen = slice(None) if which is None else which
        self._event, self._start = event[chosen], start[chosen]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the fields."""
        h, w = self._events.size
        return h // self._space_step, w // self._space_step

    @property
    def in_len(self) -> int:
        """Number of input frames."""
        return self._in_len

    @property
    def of_event(self) -> np.ndarray:
        """Number of the event of every window, `[n]`."""
        return self._event

    def frames(self, index: int) -> slice:
        """The frames of its event that a window consists of."""
        start = int(self._start[index])
        length = (self._in_len + self._out_len) * self._time_step
        return slice(start, start + length, self._time_step)

    def __len__(self) -> int:
        return len(self._event)

    def __getitem__(self, index: int) -> Example:
        return {name: x[0] for name, x in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several windows, stacked."""
        shape = len(indices), self._in_len + self._out_len, *self.size, 1
        values, observed = memory.empty(shape, np.float32), memory.empty(shape, bool)
        inputs, targets = np.split(values, [self._in_len], axis=1)
        more = []
        for row, index in enumerate(indices):
            if not 0 <= index < len(self):
                raise IndexError(f"window {index} of {len(self)}")
            read = dict(self._events.read(int(self._event[index]), self.frames(index)))
            codes = block_maximum(read.pop("vil"), self._space_step)[..., None]
            self._decode(codes, values[row], observed[row])
            more.append(read)
        return {
            "inputs": inputs,
            "targets": targets,
            "observed": observed[:, self._in_len :],
            "inputs_observed": observed[:, : self._in_len],
            **stacked(more),
        }

    def _decode(self, codes: np.ndarray, values: np.ndarray, observed: np.ndarray):
        """Model units of codes, and which of them are observed, into arrays."""
        np.not_equal(codes, MISSING, out=observed)
        if self._divisor:
            np.divide(codes, self._divisor, out=values, dtype=np.float32)
            if not observed.all():
                values[~observed] = self._units[MISSING]
        else:
            np.take(self._units, codes, out=values, mode="clip")


def _divisor(units: np.ndarray) -> np.float32 | None:
    """What codes are divided by if that gives their units, which is fastest."""
    codes = np.arange(MISSING, dtype=np.float32)
    divisor = codes[-1] / units[MISSING - 1]
    same = np.array_equal(codes / divisor, units[:MISSING])
    return divisor if same else None


@dataclasses.dataclass(frozen=True)
class Cropped:
    """The middle of every example of a source."""

    source: Source
    crop: tuple[int, int]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        return center_crop(self.source[index], self.crop)


def thinned(event: Example, time_step: int, space_step: int) -> Example:
    """A whole event with every n-th frame, and the maxima of blocks of pixels.

    Args:
        event: "vil" uint8 `[t, h, w, 1]`, "time" int32 `[t]`, and further arrays.
        time_step: n keeps every n-th frame.
        space_step: n keeps the maximum of each block of n × n pixels.
    """
    vil = block_maximum(event["vil"][::time_step, ..., 0], space_step)[..., None]
    return {**event, "vil": vil, "time": event["time"][::time_step]}


def block_maximum(codes: np.ndarray, step: int) -> np.ndarray:
    """Largest code in each block of pixels; missing if the whole block is missing.

    Args:
        codes: uint8 `[t, h, w]`, 255 for missing pixels.
        step: rows and columns of a block, divisors of h and w.

    Returns:
        uint8 `[t, h / step, w / step]`.
    """
    if step == 1:
        return codes
    raised = codes + np.uint8(1)  # 255 becomes 0, below all others
    t, h, w = codes.shape
    rows = raised.reshape(t, h // step, step, w).max(axis=2)
    blocks = np.maximum.reduce([rows[:, :, k::step] for k in range(step)])
    return blocks - np.uint8(1)
