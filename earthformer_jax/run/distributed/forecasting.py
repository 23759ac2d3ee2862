"""All processes of a job forecast for the first one, which scores and draws.

The first process makes the report as if it were alone. Whenever it asks a model for
the forecasts of a batch, it hands the batch to the others, and each process forecasts
its share of the examples. The others do nothing else in the meantime (`serve`), so
that reports need not know of them, and nothing is written twice.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from earthformer_jax.data.source import Batch

Function = Callable[[Batch], np.ndarray]

_DONE = -1
_AXES = 8  # of an array, at most
# What inputs may be made of; JAX computes with no wider types.
_TYPES = ("float32", "float16", "bfloat16", "int32", "int16", "int8", "uint8", "bool")


class Together:
    """Functions of batches that all processes of a job compute together.

    Args:
        functions: by name, in the same order in every process: a batch with "inputs"
            `[b, ...]` to an array in which one axis is that of the examples. Each uses
            the devices of its own process.
        axes: the axis of the examples in what each function gives; default: 0.
    """

    def __init__(
        self, functions: Mapping[str, Function], axes: Mapping[str, int] | None = None
    ):
        self._names, self._functions = [*functions], [*functions.values()]
        self._axes = [(axes or {}).get(name, 0) for name in functions]

    def asked(self, name: str) -> Function:
        """A function for the first process; the others have to `serve`."""
        number = self._names.index(name)
        if jax.process_count() == 1:
            return self._functions[number]

        def function(batch: Batch) -> np.ndarray:
            inputs = _plain(batch["inputs"])
            header = np.zeros(3 + _AXES, np.int32)
            header[:3] = number, _TYPES.index(inputs.dtype.name), inputs.ndim
            header[3 : 3 + inputs.ndim] = inputs.shape
            _broadcast(header)
            return self._answer(number, _broadcast(inputs))

        return function

    def serve(self) -> None:
        """Forecasts what the first process asks for, until it is done."""
        while (header := _broadcast(np.zeros(3 + _AXES, np.int32)))[0] != _DONE:
            number, kind, axes = header[:3]
            shape = tuple(header[3 : 3 + axes])
            empty = np.zeros(shape, jax.numpy.dtype(_TYPES[kind]))
            self._answer(number, _broadcast(empty))

    def done(self) -> None:
        """Lets the others go on; called by the first process."""
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


def _broadcast(array: np.ndarray) -> np.ndarray:
    """The array of the first process, in all."""
    return np.asarray(multihost_utils.broadcast_one_to_all(array))
