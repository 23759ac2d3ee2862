"""What a data set is: random-access sources of examples, and what belongs to them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

Example = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


class Source(Protocol):
    """A finite sequence of examples; `source[i]` depends on nothing but `i`.

    An example holds `inputs` `[t, h, w, c]` and `targets` `[k, h, w, c]`, float32 in
    the units the model sees, and whatever small arrays a data set adds.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


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
    """

    name: str
    description: str
    train: Source
    validation: Source
    test: Source
    loss_weights: np.ndarray
    metric: Any
    simulated: Source | None = None
    references: Mapping[str, Callable[[Batch], np.ndarray]] = dataclasses.field(
        default_factory=dict
    )
