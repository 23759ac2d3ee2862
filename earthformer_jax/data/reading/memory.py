"""Memory for batches that is used again once nobody looks at them.

Memory that is new to a process comes page by page, emptied by the system, which can
take longer than to compute what is put into it.
"""

import collections
import math
import weakref

import numpy as np

LARGE = 2**20  # bytes; smaller arrays are not worth it
KEPT = 4  # arrays that wait to be used again

_free: collections.deque[np.ndarray] = collections.deque(maxlen=KEPT)


class _Lease:
    """Lends memory to an array and its views, which keep this object alive."""

    def __init__(self, memory: np.ndarray, shape: tuple[int, ...], dtype: np.dtype):
        self.__array_interface__ = {
            "data": (memory.ctypes.data, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }
        # The memory lives at least as long as this object, in the arguments.
        weakref.finalize(self, _free.append, memory).atexit = False


def empty(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """An array with arbitrary values, like `numpy.empty`.

    Its memory is used again after the last reference to it and to its views is gone.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    if size < LARGE:
        return np.empty(shape, kind)
    memory = np.empty(size, np.uint8) if (found := _found(size)) is None else found
    return np.asarray(_Lease(memory, tuple(shape), kind))


def _found(size: int) -> np.ndarray | None:
    """Memory of a size that nobody uses, the latest first."""
    for _ in range(len(_free)):
        try:
            memory = _free.pop()
        except IndexError:  # another thread was faster
            return None
        if memory.size == size:
            return memory
        _free.appendleft(memory)
    return None
