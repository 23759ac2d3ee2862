"""A data set: the data, and the task that models are trained for."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from earthformer_jax.data import leaks
from earthformer_jax.data.leaks import Spans
from earthformer_jax.data.normalization import Affine, Normalization
from earthformer_jax.data.source import Example, Source
from earthformer_jax.data.splits import SPLITS
from earthformer_jax.data.state import DataState, Layout
from earthformer_jax.data.task import Task
from earthformer_jax.settings import UINT32_MOST, at_least, setting


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What the settings of all data sets have in common.

    Attributes:
        seed: of everything drawn at random: generated sequences, twins, simulated
            months. The seed of the model and of the order of examples is another.
    """

    seed: int = setting(0, at_least(0, UINT32_MOST))


Augmentation = Callable[[Example, np.random.Generator], Example]


@dataclasses.dataclass(frozen=True)
class Channel:
    """How one channel of the targets is shown.

    Attributes:
        name: "vil", "t2m".
        units: of the shown values; "" if they have none.
        scale: shown value = scale * model value + offset.
        offset: see `scale`.
        limits: lowest and highest shown value of the colours; None: from the data.
        colormap: name of a matplotlib colormap, or "vil", see `plotting.fields`.
    """

    name: str = "value"
    units: str = ""
    scale: float = 1.0
    offset: float = 0.0
    limits: tuple[float, float] | None = None
    colormap: str = "viridis"

    def shown(self, x):
        """The values to show for model values `x`."""
        return np.asarray(x, np.float64) * self.scale + self.offset


@dataclasses.dataclass(frozen=True)
class Display:
    """How the fields of a data set are shown.

    Attributes:
        channels: one for each channel of the targets.
        frame: time from one frame to the next, "5 min", "day"; "" if unknown.
        south_first: whether row 0 is the southernmost (it is drawn at the bottom).
    """

    channels: tuple[Channel, ...] = (Channel(),)
    frame: str = ""
    south_first: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Three splits of examples and their metadata.

    Attributes:
        name: short name, "enso".
        description: one line with the data, the period and the number of examples.
        train: examples to train on.
        validation: examples for selecting models and settings.
        test: examples for the final scores.
        simulated: a practically endless source for pre-training, or None.
        loss_weights: broadcastable to a target `[k, h, w, c]`; zero where nothing is
            observed (land); the mean over the other values is 1.
        normalization: converts between physical values and model units.
        coordinates: of the grid, for example `latitude` `[h]` and `longitude` `[w]`.
        augment: changes training examples at random, `(example, generator) ->
            example`, or None.
        display: how the fields are shown.
        state: returns what is kept of the data in the workdir, which reads some of the
            values; None: what `data.load` finds out by itself.
        spans: when and where the windows of each split are; empty if every example is
            drawn independently of the others.
        bases: by name, simple forecasts that a network can correct (`models.bases`).
            Each function returns the arrays of one, in model units, as learned from the
            training period. Those that learn nothing need no entry.

    Raises:
        ValueError: if a target of validation or test is also in a window of an earlier
            split.
    """

    name: str
    description: str
    train: Source
    validation: Source
    test: Source
    loss_weights: np.ndarray
    simulated: Source | None = None
    normalization: Normalization = Affine()
    coordinates: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    augment: Augmentation | None = None
    display: Display = Display()
    state: Callable[[], DataState] | None = None
    spans: Mapping[str, Spans] = dataclasses.field(default_factory=dict)
    bases: Mapping[str, Callable[[], Mapping[str, np.ndarray]]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        if self.spans:
            leaks.check_apart(self.name, self.spans)

    def example(self) -> Example:
        """An example of the size a model sees; `augment` may crop training examples.

        Raises:
            ValueError: if there are neither validation nor test examples.
        """
        for source in (self.validation, self.test):
            if len(source):
                return source[0]
        raise ValueError(
            "the validation split is empty: there is nothing to validate on"
        )

    def described(self, layout: Layout, **more: Any) -> DataState:
        """What is kept of these data in the workdir.

        Args:
            layout: what a model is fed with.
            **more: fields of `DataState` that do not follow from the examples.
        """
        example = self.example()
        return DataState(
            name=self.name,
            description=self.description,
            layout=layout,
            input_shape=example["inputs"].shape,
            target_shape=example["targets"].shape,
            examples={split: len(getattr(self, split)) for split in SPLITS},
            **more,
        )


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Data, and the task that models are trained for and evaluated on.

    Attributes:
        data: splits, weights, coordinates and normalisation.
        task: metric and reference forecasts; its type determines the report.
    """

    data: Data
    task: Task
