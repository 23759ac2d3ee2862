"""Random-access sources of examples."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

NUM_THREADS = 2  # that read ahead

Example = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


class Source(Protocol):
    """A finite sequence of examples; `source[i]` depends only on `i`.

    An example holds `inputs` `[t, h, w, c]` and `targets` `[k, h, w, c]`, float32 in
    the units the model sees, without NaN. If the data set has them, it also holds

    - `observed`: bool, like `targets`; False where the target is unknown (it may be any
      finite number there). Loss and scores ignore those values;
    - `time`: int32 `[t + k]`, minutes since 1970-01-01 UTC of every frame;
    - further small numeric arrays.

    Sources can be pickled, for workers in other processes, and read by many threads.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Selected:
    """Some of the examples of a source.

    Attributes:
        source: of all examples.
        numbers: int `[n]`, positions of the selected ones in it.
    """

    source: Source
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> Example:
        return self.source[int(self.numbers[index])]
