"""What a data set is: random-access sources of examples, and what belongs to them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

Example = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]
Forecast = Callable[[Batch], np.ndarray]


class Source(Protocol):
    """A finite sequence of examples; `source[i]` depends on nothing but `i`.

    An example holds `inputs` `[t, h, w, c]` and `targets` `[k, h, w, c]`, float32 in
    the units the model sees, without NaN, and where a data set has them

    - `observed`: bool, like `targets`; False where the target is unknown (it holds any
      finite number there). Loss and scores leave those values out;
    - `time`: int32 `[t + k]`, minutes since 1970-01-01 UTC of every frame;
    - whatever small numeric arrays the data set adds.

    Sources can be pickled, for workers in other processes, and read by many threads.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclasses.dataclass(frozen=True)
class Channel:
    """How people look at one channel of the targets.

    Attributes:
        name: "vil", "t2m".
        units: of what is shown; "" if it has none.
        scale: shown value = scale * model value + offset.
        offset: see `scale`.
        limits: lowest and highest shown value of the colours; None: from the data.
        colormap: a name matplotlib knows.
    """

    name: str = "value"
    units: str = ""
    scale: float = 1.0
    offset: float = 0.0
    limits: tuple[float, float] | None = None
    colormap: str = "viridis"

    def shown(self, x):
        """Physical values of model values."""
        return np.asarray(x, np.float64) * self.scale + self.offset


@dataclasses.dataclass(frozen=True)
class Display:
    """How people look at a data set.

    Attributes:
        channels: one for each channel of the targets.
        frame: what a frame is apart from the next, "5 min", "day"; "" if unknown.
        south_first: whether row 0 is the southernmost (it is drawn at the bottom).
    """

    channels: tuple[Channel, ...] = (Channel(),)
    frame: str = ""
    south_first: bool = False


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Three splits of one data set, and what training and reports need beside them.

    Attributes:
        name: short name, "enso".
        description: one line: which data, which period, how many examples.
        train: examples to learn from.
        validation: examples to choose by.
        test: examples to report on.
        loss_weights: broadcastable to a target `[k, h, w, c]`; zero where nothing is
            observed (land); the mean over the other values is 1.
        metric: streaming score of forecasts, used for validation (`metrics`).
        simulated: a practically endless source for pre-training, or None.
        references: reference forecasts by name; each maps a batch to
            `[b, k, h, w, c]` in the units the model sees.
        augment: changes training examples at random, `(example, generator) ->
            example`, or None.
        display: how people look at the fields.
        mse_units: the units "mse" is reported in.
        coordinates: of the grid, for example `latitude` `[h]` and `longitude` `[w]`.
        report: the module of `reports` that scores and draws.
        whole: the whole series in windows for embeddings, or None, see
            `data.cubes.windows.WholeSeries`.
    """

    name: str
    description: str
    train: Source
    validation: Source
    test: Source
    loss_weights: np.ndarray
    metric: Any
    simulated: Source | None = None
    references: Mapping[str, Forecast] = dataclasses.field(default_factory=dict)
    augment: Callable[[Example, np.random.Generator], Example] | None = None
    display: Display = Display()
    mse_units: str = "(model units)^2"
    coordinates: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    report: str = "frames"
    whole: Source | None = None

    def example(self) -> Example:
        """An example of the size a model sees, which `augment` may have yet to cut.

        Raises:
            ValueError: if there is none to validate with.
        """
        if not len(self.validation):
            raise ValueError("the validation split is empty: nothing to validate with")
        return self.validation[0]


def persistence(out_len: int, channels: int) -> Forecast:
    """The forecast that nothing changes: the last input frame, again and again.

    Args:
        out_len: target frames.
        channels: of the targets; they are the first channels of the inputs.
    """

    def forecast(batch: Batch) -> np.ndarray:
        last = np.asarray(batch["inputs"])[:, -1:, ..., :channels]
        return np.repeat(last, out_len, axis=1)

    return forecast
