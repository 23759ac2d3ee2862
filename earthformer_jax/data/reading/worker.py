"""A process that reads batches for another: `workers.Workers` starts it.

It takes pickled messages from its standard input, first a `Reader` and then any number
of `Choice`s, and answers each with a batch on its standard output. It imports what its
`Reader` needs and nothing more.
"""

import mmap
import os
import pickle
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

LARGE = 2**20  # bytes from which on a batch is passed in shared memory
READY, BATCH, SHARED, ERROR = "ready", "batch", "shared", "error"


def main(descriptors: int = -1) -> None:
    """Reads batches until the other process closes the standard input, or ends.

    Args:
        descriptors: number of a socket that takes shared memory; -1: there is none.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        # A terminal or a queue sends its signals to all processes. The one that trains
        # decides when to stop, and needs this one until then.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    # Whatever a library prints must not get between the batches.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    shared = socket.socket(fileno=descriptors) if descriptors >= 0 else None
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(messages,), daemon=True).start()
    try:
        reader = pickle.loads(messages.get())
        _answer(answers, READY, None)
        while True:
            _send(answers, shared, reader(pickle.loads(messages.get())))
    except BrokenPipeError:
        os._exit(1)
    except BaseException as error:
        _answer(answers, ERROR, _portable(error))
        raise


def _receive(messages: "queue.SimpleQueue[bytes]") -> None:
    """Collects messages, so that their sender need not wait; ends with it."""
    source = sys.stdin.buffer
    while True:
        try:
            messages.put(pickle.load(source))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def _portable(error: BaseException) -> tuple[BaseException | None, str]:
    """An error as the other process can raise it, and its text."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # what cannot be pickled is only described
        return None, text
    return error, text


def _answer(answers: BinaryIO, kind: str, content: Any) -> None:
    pickle.dump((kind, content), answers, protocol=pickle.HIGHEST_PROTOCOL)
    answers.flush()


def _send(
    answers: BinaryIO, shared: socket.socket | None, batch: Mapping[str, Any]
) -> None:
    """Passes a batch on, in shared memory if it is large."""
    arrays = {name: np.asarray(x) for name, x in batch.items()}
    size = sum(_room(x.nbytes) for x in arrays.values())
    plain = all(not x.dtype.hasobject for x in arrays.values())
    if shared is None or size < LARGE or not plain:
        _answer(answers, BATCH, arrays)
        return
    descriptor = os.memfd_create("batch")
    try:
        os.ftruncate(descriptor, size)
        layout, first = {}, 0
        with mmap.mmap(descriptor, size) as memory:
            for name, x in arrays.items():
                place = np.ndarray(x.shape, x.dtype, memory, first)
                place[...] = x
                del place  # else the memory could not be closed
                layout[name] = (x.shape, x.dtype, first)
                first += _room(x.nbytes)
        _answer(answers, SHARED, (layout, size))
        socket.send_fds(shared, [b"."], [descriptor])
    finally:
        os.close(descriptor)


def _room(size: int) -> int:
    """Bytes to the next array, so that each begins at a multiple of 64."""
    return -(-size // 64) * 64


def taken(shared: socket.socket, layout: Mapping[str, Any], size: int) -> dict:
    """The arrays of a batch that was passed in shared memory."""
    _, (descriptor, *_), *_ = socket.recv_fds(shared, 1, 1)
    try:
        memory = mmap.mmap(descriptor, size)  # lives as long as the arrays
    finally:
        os.close(descriptor)
    return {
        name: np.ndarray(shape, dtype, memory, first)
        for name, (shape, dtype, first) in layout.items()
    }
