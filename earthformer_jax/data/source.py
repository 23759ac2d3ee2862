"""Random-access sources of examples."""

import dataclasses
from collections.abc import Mapping, Sequence
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
    One that makes many examples faster than one by one also has a function
    `batch(indices)`, see `read_batch`.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


def read_batch(source: Source, indices: Sequence[int]) -> dict[str, np.ndarray]:
    """Some examples of a source, stacked: `[b, ...]` for each of their arrays.

    Args:
        source: the examples. If it has a function `batch`, that makes them; its rows
            are the examples, bit for bit.
        indices: of the examples, at least one.
    """
    batch = getattr(source, "batch", None)
    if batch is not None:
        return dict(batch(indices))
    return stacked([source[int(index)] for index in indices])


def stacked(examples: Sequence[Example]) -> dict[str, np.ndarray]:
    """Examples with the same arrays, one batch."""
    return {name: np.stack([x[name] for x in examples]) for name in examples[0]}


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

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several of the examples, stacked."""
        return read_batch(self.source, [int(self.numbers[i]) for i in indices])
