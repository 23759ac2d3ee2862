"""Batches from random-access sources: order, shuffling, shards and padding."""

import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any, cast

import grain
import jax
import numpy as np
from absl import flags

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.source import NUM_THREADS, Batch, Example, Source

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
    examples = (
        grain.MapDataset.source(cast(Any, data.train))
        .seed(seed % SEED_RANGE)
        .shuffle()
        .repeat(EPOCHS)
    )
    if simulated_batches or simulated_fraction:
        if data.simulated is None:
            raise ValueError(
                f"data {data.name!r} ({data.description}) has no simulated "
                "examples; set simulated_batches and simulated_fraction to 0"
            )
        simulated = grain.MapDataset.source(cast(Any, data.simulated)).repeat(EPOCHS)
        first = simulated_batches * batch_size
        pure, later = simulated[:first], simulated[first:]
        if simulated_fraction == 1:
            examples = later
        elif simulated_fraction:
            shares = [1 - simulated_fraction, simulated_fraction]
            examples = grain.MapDataset.mix([examples, later], weights=shares)
        if first:
            examples = grain.MapDataset.concatenate([pure, examples])
    if data.augment is not None:
        examples = examples.random_map(data.augment, seed=seed % SEED_RANGE)
    part = ProcessPart(examples, batch_size, local, process_index * local)
    batches = grain.MapDataset.source(part).batch(local, drop_remainder=True)
    return TrainBatches(batches, num_threads, num_workers)


class TrainBatches:
    """Iterator over a random-access sequence of batches that knows where it is.

    The position is one number, so training can continue with another number of
    threads, workers or processes. Workers are separate processes: `close` ends them.
    """

    def __init__(self, batches: grain.MapDataset, num_threads: int, num_workers: int):
        self._batches = batches
        self._num_threads = num_threads
        self._num_workers = num_workers
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None

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

    def _start(self) -> grain.DatasetIterator:
        options = grain.ReadOptions(
            num_threads=self._num_threads, prefetch_buffer_size=8
        )
        batches = self._batches[self._next :].to_iter_dataset(options)
        if self._num_workers:
            if not flags.FLAGS.is_parsed():  # Grain's workers read them
                flags.FLAGS.mark_as_parsed()
            batches = batches.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=self._num_workers, per_worker_buffer_size=2
                ),
                worker_init_fn=_prepare_worker,
            )
        return iter(batches)


def _prepare_worker(index: int, count: int) -> None:
    """Reserves the accelerators for the process that trains, and ends with it.

    A terminal or a queue sends its signals to all processes. The one that trains
    decides when to stop, and needs its workers until then.
    """
    del index, count
    jax.config.update("jax_platforms", "cpu")
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


@dataclasses.dataclass(frozen=True)
class ProcessPart:
    """The examples of one process: `local` of every `batch_size`, from `offset`."""

    examples: grain.MapDataset
    batch_size: int
    local: int
    offset: int

    def __len__(self) -> int:
        return len(self.examples) // self.batch_size * self.local

    def __getitem__(self, index: int) -> Example:
        batch, row = divmod(index, self.local)
        position = batch * self.batch_size + self.offset + row
        return cast(Example, self.examples[position])


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
        examples = [self.source[int(i)] for i in positions[positions < size]]
        examples = examples or [self.source[size - 1]]
        examples += [examples[-1]] * (self.local - len(examples))
        names = examples[0].keys()
        batch = {name: np.stack([x[name] for x in examples]) for name in names}
        return batch | {"valid": positions < size}

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
