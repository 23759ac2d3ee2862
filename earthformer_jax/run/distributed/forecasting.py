"""All processes of a job read and forecast for the first one, which scores and draws.

The first process makes the report as if it were alone. Whenever it asks a model for
the forecasts of a batch, it hands the batch to the others, and each process forecasts
its share of the examples. Whenever it reads a batch, each process reads its share. The
others do nothing else in the meantime (`serve`), so that reports need not know of them,
and nothing is written twice.
"""

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from earthformer_jax.data.source import Batch, Example, Source, read_batch

Function = Callable[[Batch], np.ndarray]

_DONE, _READ = -1, -2  # in place of the number of a function
_AXES = 8  # of an array, at most
# What inputs may be made of; JAX computes with no wider types.
_TYPES = ("float32", "float16", "bfloat16", "int32", "int16", "int8", "uint8", "bool")


class Together:
    """Functions of batches that all processes of a job compute together.

    Any thread of the first process may ask; one question is answered after the other.

    Args:
        functions: by name, in the same order in every process: a batch with "inputs"
            `[b, ...]` to an array in which one axis is that of the examples. Each uses
            the devices of its own process.
        axes: the axis of the examples in what each function gives; default: 0.
        source: of examples that they read together; the same in every process.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        axes: Mapping[str, int] | None = None,
        source: Source | None = None,
    ):
        self._names, self._functions = [*functions], [*functions.values()]
        self._axes = [(axes or {}).get(name, 0) for name in functions]
        self._source, self._lock, self._is_over = source, threading.Lock(), False

    def asked(self, name: str) -> Function:
        """A function for the first process; the others have to `serve`."""
        number = self._names.index(name)
        if jax.process_count() == 1:
            return self._functions[number]

        def function(batch: Batch) -> np.ndarray:
            with self._lock:
                return self._answer(number, _asked(number, _plain(batch["inputs"])))

        return function

    def shared(self, source: Source) -> Source:
        """The source for the first process, whose batches all read; they `serve`."""
        return source if jax.process_count() == 1 else _Shared(source, self)

    def read(self, indices: Sequence[int]) -> Batch:
        """Some examples of the source, in the first process; the others `serve`."""
        assert self._source is not None
        with self._lock:
            if self._is_over:  # a thread has read ahead
                return read_batch(self._source, indices)
            return self._read(_asked(_READ, np.asarray(indices, np.int32)))

    def serve(self) -> None:
        """Forecasts and reads what the first process asks for, until it is done."""
        while (header := _broadcast(np.zeros(3 + _AXES, np.int32)))[0] != _DONE:
            number, kind, axes = header[:3]
            shape = tuple(header[3 : 3 + axes])
            inputs = _broadcast(np.zeros(shape, jax.numpy.dtype(_TYPES[kind])))
            if number == _READ:
                self._read(inputs)
            else:
                self._answer(number, inputs)

    def done(self) -> None:
        """Lets the others go on; called by the first process."""
        with self._lock:
            self._is_over = True
            if jax.process_count() > 1:
                _broadcast(np.full(3 + _AXES, _DONE, np.int32))

    def _answer(self, number: int, inputs: np.ndarray) -> np.ndarray:
        """The result for all examples, of which this process computes its share."""
        rows = share(len(inputs), jax.process_count(), jax.local_device_count())[
            jax.process_index()
        ]
        own = self._functions[number]({"inputs": inputs[rows]})
        axis = self._axes[number]
        parts = multihost_utils.process_allgather(np.asarray(own))
        parts = np.asarray(parts).reshape(jax.process_count(), *np.shape(own))
        return np.concatenate([*parts], axis).take(np.arange(len(inputs)), axis)

    def _read(self, indices: np.ndarray) -> Batch:
        """Some examples, of which this process reads its share."""
        assert self._source is not None
        rows = share(len(indices), jax.process_count(), 1)[jax.process_index()]
        own = read_batch(self._source, indices[rows].tolist())
        return {
            name: _gathered(own[name])[: len(indices)].copy() for name in sorted(own)
        }


@dataclasses.dataclass(frozen=True, eq=False)
class _Shared:
    """A source of which all processes read each batch together.

    Attributes:
        source: the same.
        together: what reads its batches.
    """

    source: Source
    together: Together

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int, /) -> Example:
        return self.source[index]

    def batch(self, indices: Sequence[int]) -> Batch:
        """Several of the examples, stacked."""
        return self.together.read(indices)


def share(examples: int, processes: int, devices: int) -> Sequence[np.ndarray]:
    """Which examples each process computes: consecutive shares of the same size.

    The share is a multiple of its number of devices; the last example fills it up.
    """
    each = -(-examples // (processes * devices)) * devices
    numbers = np.minimum(np.arange(processes * each), examples - 1)
    return [*numbers.reshape(processes, each)]


def _plain(array: Any) -> np.ndarray:
    """An array of a type that JAX has."""
    array = np.asarray(array)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))


def _asked(number: int, inputs: np.ndarray) -> np.ndarray:
    """Tells the others what to compute; called by the first process."""
    header = np.zeros(3 + _AXES, np.int32)
    header[:3] = number, _TYPES.index(inputs.dtype.name), inputs.ndim
    header[3 : 3 + inputs.ndim] = inputs.shape
    _broadcast(header)
    return _broadcast(inputs)


def _gathered(own: np.ndarray) -> np.ndarray:
    """The rows of all processes, bit for bit, whatever type they are of."""
    data = np.ascontiguousarray(own).reshape(-1).view(np.uint8)
    parts = np.ascontiguousarray(multihost_utils.process_allgather(data))
    return parts.reshape(-1).view(own.dtype).reshape(-1, *own.shape[1:])


def _broadcast(array: np.ndarray) -> np.ndarray:
    """The array of the first process, in all."""
    return np.asarray(multihost_utils.broadcast_one_to_all(array))
