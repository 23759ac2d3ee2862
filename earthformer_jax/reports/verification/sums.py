"""The sums of a verification for each block of test examples, of every forecast."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from earthformer_jax.data.dataset import Data
from earthformer_jax.data.source import Batch
from earthformer_jax.data.task import Task
from earthformer_jax.metrics.verification import Verification
from earthformer_jax.reports.verification.blocks import blocks_of

MOST_BLOCKS = 256  # of more, neighbours are joined


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """What test examples are, to tell whether forecasts are of the same ones.

    Attributes:
        data: name of the data set.
        description: of the data, in one line.
        checksum: of the targets of all examples, where they are observed, and when.
        shape: of the targets `(k, h, w, c)`.
        frame: time from one frame to the next, "5 min"; "" if unknown.
        mse_units: of squared errors.
        block: what a block is, "an event".
        sizes: int64 `[n]`, number of examples in each block.
    """

    data: str
    description: str
    checksum: str
    shape: tuple[int, ...]
    frame: str
    mse_units: str
    block: str
    sizes: np.ndarray

    @property
    def number(self) -> int:
        """Number of examples."""
        return int(self.sizes.sum())


@dataclasses.dataclass(frozen=True, eq=False)
class BlockSums:
    """Sums by block of examples.

    Attributes:
        examples: what they are of.
        verification: its statistics name the sums and their axes.
        values: forecast -> statistic -> name -> float64 `[n, k, *sizes]`.
        step: optimiser steps after which the model was saved; 0: it was not trained, or
            the file does not say.
    """

    examples: Examples
    verification: Verification
    values: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]
    step: int = 0

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.examples.sizes)


def together(a: BlockSums, b: BlockSums) -> BlockSums:
    """The sums of two verifications of the same forecasts and examples.

    Raises:
        ValueError: if they are of other forecasts or examples, or have a statistic or a
            score with the same name.
    """
    if a.values.keys() != b.values.keys() or a.examples.checksum != b.examples.checksum:
        raise ValueError(
            f"sums of {', '.join(a.values)} and of {', '.join(b.values)}: expected the "
            "same forecasts of the same examples"
        )
    x, y = a.verification, b.verification
    twice = {*x.statistics} & {*y.statistics} | {*x.scores} & {*y.scores}
    if twice:
        raise ValueError(f"both have {', '.join(sorted(twice))}: expected other names")
    both = Verification({**x.statistics, **y.statistics}, {**x.scores, **y.scores})
    values = {name: {**a.values[name], **b.values[name]} for name in a.values}
    return dataclasses.replace(a, verification=both, values=values)


class Gatherer:
    """Adds up sums batch by batch; `watch` is a `scoring.Watch`.

    Memory does not grow with the number of examples: there are never more than twice
    `MOST_BLOCKS` blocks.

    Args:
        task: with its verification.
        data: with at least one test example.
    """

    def __init__(self, task: Task, data: Data):
        self._task, self._data = task, data
        self._blocks = blocks_of(data)
        self._terms = jax.jit(task.verification.terms)
        self._position = 0
        self._joined = 1  # blocks in a row that are added into one
        self._keys = 0  # blocks so far, before they are joined
        self._last: int | None = None
        self._sizes: list[int] = []
        self._sums: dict[str, list[Any]] = {}
        self._hashes = [hashlib.sha256() for _ in range(3)]

    def watch(self, batch: Batch, fields: Mapping[str, np.ndarray]) -> None:
        """Adds a batch and its forecasts `[b, k, h, w, c]` in model units."""
        valid = np.asarray(batch["valid"])
        keys = np.asarray(self._blocks.keys(batch, self._position))[valid]
        self._position += len(keys)
        self._identify(batch, valid)
        prepared = self._task.verification.prepare(batch)
        terms = {
            name: jax.device_get(self._terms(field, prepared))
            for name, field in fields.items()
        }
        for name in terms:
            self._sums.setdefault(name, [])
        for row, key in zip(np.flatnonzero(valid), keys, strict=True):
            self._begin_unless_same(int(key))
            self._sizes[-1] += 1
            for name, found in terms.items():
                one = jax.tree.map(lambda x, i=row: np.asarray(x[i], np.float64), found)
                self._sums[name][-1] = _added(self._sums[name][-1], one)

    def sums(self, step: int = 0) -> BlockSums:
        """The sums of all that was added; `step` as of `BlockSums`."""
        first = self._data.test[0]
        return BlockSums(
            Examples(
                data=self._data.name,
                description=self._data.description,
                checksum=hashlib.sha256(
                    b"".join(x.digest() for x in self._hashes)
                ).hexdigest(),
                shape=tuple(np.shape(first["targets"])),
                frame=self._data.display.frame,
                mse_units=self._task.mse_units,
                block=self._text(),
                sizes=np.asarray(self._sizes, np.int64),
            ),
            self._task.verification,
            {
                name: jax.tree.map(lambda *x: np.stack(x), *parts)
                for name, parts in self._sums.items()
            },
            step,
        )

    def _text(self) -> str:
        if self._joined == 1:
            return self._blocks.text
        one, _, rest = self._blocks.text.partition(" ")
        if one in ("a", "an"):
            return f"{self._joined} {rest}s"
        return f"{self._joined} times {self._blocks.text}"

    def _identify(self, batch: Batch, valid: np.ndarray) -> None:
        for part, name in zip(
            self._hashes, ("targets", "observed", "time"), strict=True
        ):
            if name in batch:
                part.update(np.ascontiguousarray(np.asarray(batch[name])[valid]).data)

    def _begin_unless_same(self, key: int) -> None:
        """Begins a block, unless the example belongs to the one before."""
        if key == self._last:
            return
        self._last = key
        self._keys += 1
        if (self._keys - 1) % self._joined:
            return
        if len(self._sizes) == 2 * MOST_BLOCKS:
            self._join()
        self._sizes.append(0)
        for parts in self._sums.values():
            parts.append(None)

    def _join(self) -> None:
        """Adds every second block to the one before."""
        self._joined *= 2
        self._sizes = [
            sum(self._sizes[i : i + 2]) for i in range(0, len(self._sizes), 2)
        ]
        for name, parts in self._sums.items():
            self._sums[name] = [
                _added(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)
            ]


def _added(total: Any, more: Any) -> Any:
    return more if total is None else jax.tree.map(np.add, total, more)
