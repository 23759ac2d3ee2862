"""Batches on the devices before they are needed."""

import collections
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax

from earthformer_jax.data.pipeline import TrainBatches
from earthformer_jax.data.source import Batch

# By the step; all others are for metrics.
USED = ("inputs", "targets", "observed", "inputs_observed")
AHEAD = 2  # batches on the devices: the one in use and the next


def device_batches(
    batches: TrainBatches, put: Callable[[Batch], dict[str, jax.Array]]
) -> Iterator[tuple[dict[str, jax.Array], Any]]:
    """Lays host batches over the devices, one batch ahead of the step.

    Args:
        batches: endless iterator of host batches with `get_state()`.
        put: lays a batch over the devices.

    Yields:
        A batch, and the state of `batches` right after it, which belongs in a
        checkpoint: the iterator itself is already further.
    """
    queue = collections.deque()
    while True:
        while len(queue) < AHEAD:
            batch = next(batches)
            position = json.loads(json.dumps(batches.get_state()))
            used = {name: batch[name] for name in USED if name in batch}
            queue.append((put(used), position))
        yield queue.popleft()
