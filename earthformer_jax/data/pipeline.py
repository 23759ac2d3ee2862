"""From random-access sources to batches: order, shuffling, shards, padding."""

import dataclasses
from collections.abc import Iterator

import grain
import numpy as np

from earthformer_jax.data.source import Dataset, Source

# Epochs of the training windows before the iterator ends; Grain can only append data
# of known length, and no training comes near this many.
EPOCHS = 1_000_000
SEED_RANGE = 2**32


def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    simulated_batches: int = 0,
    simulated_fraction: float = 0.0,
    process_index: int = 0,
    process_count: int = 1,
    num_threads: int = 2,
) -> grain.DatasetIterator:
    """An endless, checkpointable iterator over training batches.

    The k-th batch is a pure function of the arguments. The training windows are
    reshuffled each epoch. Together the processes see the same global batches whatever
    their number.

    Args:
        dataset: the data set.
        batch_size: examples per batch over all processes.
        seed: seed of the order.
        simulated_batches: the first batches hold simulated examples only.
        simulated_fraction: share of simulated examples after those, 0 to 1.
        process_index: which of the processes this is.
        process_count: number of processes; divides `batch_size`.
        num_threads: threads that read ahead.

    Returns:
        a Grain iterator of dicts of arrays `[batch_size / process_count, ...]`, with
        `get_state` and `set_state`.

    Raises:
        ValueError: if simulated examples are asked of a data set that has none, or the
            numbers do not fit.
    """
    local = _local_size(batch_size, process_count)
    if not 0 <= simulated_fraction <= 1:
        raise ValueError(
            f"simulated_fraction={simulated_fraction} is not between 0 and 1"
        )
    if simulated_batches < 0:
        raise ValueError(f"simulated_batches={simulated_batches} is negative")
    examples = (
        grain.MapDataset.source(dataset.train)
        .seed(seed % SEED_RANGE)
        .shuffle()
        .repeat(EPOCHS)
    )
    if simulated_batches or simulated_fraction:
        if dataset.simulated is None:
            raise ValueError(
                f"data {dataset.name!r} ({dataset.description}) has no simulated "
                "examples; set config.train.simulated_steps and simulated_fraction to 0"
            )
        simulated = grain.MapDataset.source(dataset.simulated).repeat(EPOCHS)
        first = simulated_batches * batch_size
        pure, later = simulated[:first], simulated[first:]
        if simulated_fraction == 1:
            examples = later
        elif simulated_fraction:
            shares = [1 - simulated_fraction, simulated_fraction]
            examples = grain.MapDataset.mix([examples, later], weights=shares)
        if first:
            examples = grain.MapDataset.concatenate([pure, examples])
    batches = examples[process_index::process_count].batch(local, drop_remainder=True)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=8)
    return iter(batches.to_iter_dataset(options))


def evaluation_batches(
    source: Source, batch_size: int, process_index: int = 0, process_count: int = 1
) -> "EvaluationBatches":
    """Every example of a source once, in order, in batches of one size.

    The last batch repeats the last example; `valid` `[b]` marks what counts. Every
    process gets the same number of batches, and a consecutive part of each.

    Args:
        source: the examples.
        batch_size: examples per batch over all processes.
        process_index: which of the processes this is.
        process_count: number of processes; divides `batch_size`.

    Returns:
        batches of `batch_size / process_count` examples, any number of times.
    """
    local = _local_size(batch_size, process_count)
    return EvaluationBatches(source, batch_size, local, process_index * local)


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
    """Batches `[offset, offset + local)` of each `batch_size` examples of a source."""

    source: Source
    batch_size: int
    local: int
    offset: int

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        size = len(self.source)
        for start in range(0, size, self.batch_size):
            positions = start + self.offset + np.arange(self.local)
            examples = [self.source[int(i)] for i in positions[positions < size]]
            examples = examples or [self.source[size - 1]]
            examples += [examples[-1]] * (self.local - len(examples))
            names = examples[0].keys()
            batch = {name: np.stack([x[name] for x in examples]) for name in names}
            yield batch | {"valid": positions < size}


def _local_size(batch_size: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size={batch_size} must be a positive multiple of the number of "
            f"processes ({process_count})"
        )
    return batch_size // process_count
