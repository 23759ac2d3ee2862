"""Batches from random-access sources: order, shuffling, shards and padding."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, cast

import grain
import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.reading.batches import Choice, Reader
from earthformer_jax.data.reading.workers import Workers
from earthformer_jax.data.source import NUM_THREADS, Batch, Source, read_batch

# Epochs of the training windows before the iterator ends. Grain can only append to data
# of known length, and no training run comes near this many.
EPOCHS = 1_000_000
SEED_RANGE = 2**32
_POSITION = "next_index"


def train_batches(
    data: Data,
    *,
    batch_size: int,
    seed: int,
    simulated_batches: int = 0,
    simulated_fraction: float = 0.0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = NUM_THREADS,
    num_workers: int = 0,
) -> "TrainBatches":
    """An endless, checkpointable iterator over training batches.

    The k-th batch is a pure function of the data set, `batch_size`, `seed` and the
    simulated shares; threads, workers and processes do not affect it. The training
    windows are reshuffled each epoch; `data.augment` draws anew for each position.

    Args:
        data: the splits and augmentation.
        batch_size: examples per batch over all processes.
        seed: seed of order and augmentation.
        simulated_batches: number of initial batches with only simulated examples.
        simulated_fraction: share of simulated examples after those, 0 to 1.
        process_index: index of this process.
        process_count: number of processes; must divide `batch_size`. Process p gets the
            p-th part of every batch.
        num_threads: threads that read ahead, in each worker.
        num_workers: processes that read ahead; 0: only this one.

    Returns:
        an iterator of dicts of arrays `[batch_size / process_count, ...]`.

    Raises:
        ValueError: if simulated examples are requested from a data set that has none,
            or a number is invalid.
    """
    local = _local_size(batch_size, process_count)
    if not 0 <= simulated_fraction <= 1:
        raise ValueError(
            f"simulated_fraction={simulated_fraction} is not between 0 and 1"
        )
    if simulated_batches < 0:
        raise ValueError(f"simulated_batches={simulated_batches} is negative")
    numbers = (
        grain.MapDataset.source(cast(Any, range(len(data.train))))
        .seed(seed % SEED_RANGE)
        .shuffle()
        .repeat(EPOCHS)
    )
    simulated_used = bool(simulated_batches or simulated_fraction)
    if simulated_used:
        if data.simulated is None:
            raise ValueError(
                f"data {data.name!r} ({data.description}) has no simulated "
                "examples; set simulated_batches and simulated_fraction to 0"
            )
        real = len(data.train)
        those = range(real, real + len(data.simulated))
        simulated = grain.MapDataset.source(cast(Any, those)).repeat(EPOCHS)
        first = simulated_batches * batch_size
        pure, later = simulated[:first], simulated[first:]
        if simulated_fraction == 1:
            numbers = later
        elif simulated_fraction:
            shares = [1 - simulated_fraction, simulated_fraction]
            numbers = grain.MapDataset.mix([numbers, later], weights=shares)
        if first:
            numbers = grain.MapDataset.concatenate([pure, numbers])
    if data.augment is not None:
        numbers = numbers.random_map(_with_state, seed=seed % SEED_RANGE)
    changed = data.augment is not None
    choices = Choices(numbers, batch_size, local, process_index * local, changed)
    reader = Reader(
        data.train, data.simulated if simulated_used else None, data.augment
    )
    return TrainBatches(choices, reader, num_threads, num_workers)


def _with_state(number: int, generator: np.random.Generator) -> tuple[int, dict]:
    """A number, and the state of the generator that changes its example at random."""
    return number, dict(generator.bit_generator.state)


class TrainBatches:
    """Iterator over a random-access sequence of batches that knows where it is.

    The position is one number, so training can continue with another number of
    threads, workers or processes. Workers are separate processes: `close` ends them.
    """

    def __init__(
        self, choices: "Choices", reader: Reader, num_threads: int, num_workers: int
    ):
        self._choices, self._reader = choices, reader
        self._num_threads = num_threads
        self._num_workers = num_workers
        self._next = 0
        self._iterator: grain.DatasetIterator | Workers | None = None

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._start()
        batch = next(self._iterator)
        self._next += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Where the iterator is: the number of the next batch."""
        return {_POSITION: self._next}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues with the batch that came next when `state` was taken."""
        self.close()
        self._next = int(state[_POSITION])

    def close(self) -> None:
        """Ends the workers; the next batch starts them again."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _start(self) -> "grain.DatasetIterator | Workers":
        if self._num_workers:
            return Workers(self._reader, self._choices, self._next, self._num_workers)
        options = grain.ReadOptions(
            num_threads=self._num_threads, prefetch_buffer_size=8
        )
        choices = grain.MapDataset.source(cast(Any, self._choices))[self._next :]
        return iter(choices.map(self._reader).to_iter_dataset(options))


@dataclasses.dataclass(frozen=True)
class Choices:
    """The examples of each batch of one process: `local` of every `batch_size`.

    Attributes:
        numbers: of the examples of all batches, with the states of generators if they
            are changed at random.
        batch_size: examples per batch over all processes.
        local: examples per batch of this process.
        offset: number of the first one of these in a batch.
        changed: whether examples are changed at random.
    """

    numbers: grain.MapDataset
    batch_size: int
    local: int
    offset: int
    changed: bool

    def __len__(self) -> int:
        return len(self.numbers) // self.batch_size

    def __getitem__(self, index: int) -> Choice:
        first = index * self.batch_size + self.offset
        found: list[Any] = [self.numbers[first + row] for row in range(self.local)]
        if not self.changed:
            return Choice([int(number) for number in found])
        return Choice([int(n) for n, _ in found], [state for _, state in found])


def evaluation_batches(
    source: Source,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = NUM_THREADS,
) -> "EvaluationBatches":
    """Every example of a source once, in order, in batches of equal size.

    The last batch is padded with the last example; `valid` `[b]` marks the examples
    that count. Every process gets the same number of batches, and a consecutive part of
    each.

    Args:
        source: the examples.
        batch_size: examples per batch over all processes.
        process_index: index of this process.
        process_count: number of processes; must divide `batch_size`.
        num_threads: threads that read ahead; 0: none.

    Returns:
        batches of `batch_size / process_count` examples; they can be iterated
        repeatedly.
    """
    local = _local_size(batch_size, process_count)
    return EvaluationBatches(
        source, batch_size, local, process_index * local, num_threads
    )


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """Batches `[offset, offset + local)` of each `batch_size` examples of a source."""

    source: Source
    batch_size: int
    local: int
    offset: int
    num_threads: int

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        size = len(self.source)
        positions = index * self.batch_size + self.offset + np.arange(self.local)
        valid = positions < size
        found = read_batch(self.source, positions[valid].tolist() or [size - 1])
        padding = [(0, self.local - max(1, int(valid.sum())))]
        batch = {
            name: np.pad(x, padding + [(0, 0)] * (x.ndim - 1), mode="edge")
            if padding[0][1]
            else x
            for name, x in found.items()
        }
        return batch | {"valid": valid}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        options = grain.ReadOptions(
            num_threads=self.num_threads, prefetch_buffer_size=self.num_threads
        )
        return iter(grain.MapDataset.source(self).to_iter_dataset(options))


def _local_size(batch_size: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} must be a positive multiple of the number of "
            f"processes ({process_count})"
        )
    return batch_size // process_count
