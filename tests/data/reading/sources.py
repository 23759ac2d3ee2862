"""Sources that processes of the tests read; NumPy alone."""

import dataclasses
import os
import signal

import numpy as np


class Unpicklable(Exception):
    """An error that cannot be sent to another process."""

    def __init__(self, a, b):
        super().__init__(a)
        self.b = b


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Example i is the number i, `side` times `side` times."""

    size: int = 100
    side: int = 2
    wrong: str = ""

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index == 7 and self.wrong == "value":
            raise ValueError(f"example {index} is damaged")
        if index == 7 and self.wrong == "unpicklable":
            raise Unpicklable("odd", lambda: 0)
        if index == 7 and self.wrong == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        print("between the batches")
        values = np.full((1, self.side, self.side, 1), index, np.float32)
        return {"inputs": values, "number": np.int32(index)}


class Together(Numbers):
    """The same, many at a time."""

    def batch(self, indices):
        examples = [self[i] for i in indices]
        return {name: np.stack([x[name] for x in examples]) for name in examples[0]}


def add(example, generator):
    """Changes an example at random."""
    return example | {"number": example["number"] + generator.integers(1000)}
