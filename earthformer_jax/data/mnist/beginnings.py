"""What forecasts of sequences of digits begin from: frames without dates.

"last" is the last frame of the last sequence, and "all" every frame of every sequence
that has enough before it, with `every` counted within each sequence. Files are used as
a whole. Where there are splits, also of generated sequences, they are those of the
test.
"""

import dataclasses

import numpy as np

from earthformer_jax.data.dataset import DataSettings
from earthformer_jax.data.forecasting.beginnings import Beginnings, Starts, Variable
from earthformer_jax.data.forecasting.encoding import Encoding
from earthformer_jax.data.source import Example, Source
from earthformer_jax.data.state import DataState

BRIGHTNESS = Variable("brightness", "1", "", "brightness, 0 to 1")


def find(
    sequences: Source,
    label: str,
    in_len: int,
    state: DataState,
    starts: Starts,
    *,
    allow_other_grid: bool,
) -> Beginnings:
    """The input windows that forecasts begin from.

    Args:
        sequences: examples with the whole sequences as `inputs`, all equally long and
            of at least `in_len` frames.
        label: of the files.
        in_len: number of input frames.
        state: of the data that the model was trained on.
        starts: which windows.
        allow_other_grid: whether the frames may have another size.

    Raises:
        ValueError: if the frames do not fit the state, or there are no such windows;
            the message says why.
    """
    frames, h, w, _ = sequences[0]["inputs"].shape
    rows, columns = state.layout.size
    if (h, w) != (rows, columns) and not allow_other_grid:
        raise ValueError(
            f"the frames of {label} have {h} x {w} pixels, those that the model was "
            f"trained on {rows} x {columns} (see `space_step`; some models take other "
            "sizes with allow_other_grid=True)"
        )
    if starts.stop or starts.first not in ("last", "all"):
        name = "stop" if starts.stop else "start"
        raise ValueError(
            f"{name}={starts.stop or starts.first}: {label} has no dates; use "
            "start=last or all"
        )
    count = len(sequences)
    sequence, last = np.array([count - 1]), np.array([frames - 1])
    if starts.first == "all":
        ends = np.arange(in_len - 1, frames, starts.every)
        sequence, last = np.repeat(np.arange(count), len(ends)), np.tile(ends, count)
    return Beginnings(
        label=label,
        windows=Windows(sequences, sequence, last - in_len + 1, in_len),
        last=last,
        reference=None,
        following=None,
        variables=(BRIGHTNESS,),
        decode=lambda values, minutes: values,
        advance=_advance,
        coordinates={"sequence": sequence},
    )


def encoding(settings: DataSettings, state: DataState) -> Encoding:
    """How brightness becomes model units: it is what a model sees."""
    del settings, state
    return Encoding(
        scale=np.ones(1, np.float32), offset=np.zeros(1, np.float32), targets=1
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """Stretches of whole sequences.

    Attributes:
        sequences: as in `find`.
        sequence: `[n]`, number of the sequence of each window.
        first: `[n]`, its first frame.
        length: number of frames.
    """

    sequences: Source
    sequence: np.ndarray
    first: np.ndarray
    length: int

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, index: int) -> Example:
        whole = self.sequences[int(self.sequence[index])]["inputs"]
        first = int(self.first[index])
        inputs = whole[first : first + self.length]
        return {"inputs": inputs, "filled": np.zeros((), np.float32)}


def _advance(
    inputs: np.ndarray, forecast: np.ndarray, minutes: np.ndarray | None
) -> np.ndarray:
    """The latest inputs after a forecast, whose brightness is kept within 0..1."""
    del minutes
    bright = np.clip(forecast, 0, 1).astype(inputs.dtype)
    return np.concatenate([inputs, bright])[-len(inputs) :]
