"""Random-access sources of examples."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

Example = Mapping[str, np.ndarray]
Batch = Mapping[str, np.ndarray]


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

    def __getitem__(self, index: int, /) -> Example: ...
