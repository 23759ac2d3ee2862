"""What a training batch consists of, and how it is read. NumPy alone."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from earthformer_jax.data.source import Batch, Example, Source, read_batch, stacked


@dataclasses.dataclass(frozen=True)
class Choice:
    """The examples of one batch.

    Attributes:
        numbers: of the examples; those of the simulated ones come after all others.
        random: state of the random generator that changes each of them; empty if
            nothing is changed at random.
    """

    numbers: Sequence[int]
    random: Sequence[dict[str, Any]] = ()


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads batches; it can be pickled, for other processes.

    Attributes:
        train: training examples.
        simulated: simulated examples, or None.
        augment: changes an example at random, see `Data.augment`, or None.
    """

    train: Source
    simulated: Source | None = None
    augment: Callable[[Example, np.random.Generator], Example] | None = None

    def __call__(self, choice: Choice) -> Batch:
        """The examples of a choice, stacked in its order."""
        numbers, count = np.asarray(choice.numbers), len(self.train)
        if self.augment is None and numbers.max() < count:
            return read_batch(self.train, numbers.tolist())
        examples: list[Example] = [{}] * len(numbers)
        for source, first in ((self.train, 0), (self.simulated, count)):
            where = np.flatnonzero((numbers >= count) == bool(first))
            if source is None or not len(where):
                continue
            chosen = (numbers[where] - first).tolist()
            for place, example in zip(where, _examples(source, chosen), strict=True):
                examples[place] = example
        if self.augment is not None:
            examples = [
                self.augment(example, _generator(state))
                for example, state in zip(examples, choice.random, strict=True)
            ]
        return stacked(examples)


def _examples(source: Source, indices: Sequence[int]) -> list[Example]:
    """Examples one by one; they may share memory."""
    if not hasattr(source, "batch"):
        return [source[i] for i in indices]
    batch = read_batch(source, indices)
    return [{name: x[k] for name, x in batch.items()} for k in range(len(indices))]


def _generator(state: dict[str, Any]) -> np.random.Generator:
    bits = getattr(np.random, state["bit_generator"])()
    bits.state = state
    return np.random.Generator(bits)
