"""Processes that read batches ahead."""

import collections
import contextlib
import os
import pickle
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from multiprocessing import spawn
from typing import IO, Any, Protocol

import cloudpickle

from earthformer_jax.data.reading import worker as worker_lib
from earthformer_jax.data.reading.batches import Choice, Reader
from earthformer_jax.data.source import Batch

AHEAD = 2  # batches that each process has been asked for
WAIT = 5.0  # seconds until a process that does not end is killed


class WorkerError(RuntimeError):
    """A process that reads examples has ended or failed."""


class WorkerEndedError(WorkerError):
    """A process that reads examples has ended, as if killed for its memory."""


class Choices(Protocol):
    """What each batch consists of, in order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Choice: ...


class Workers(Iterator[Batch]):
    """Iterator over batches that other processes read, in order.

    Args:
        reader: reads a batch. What is defined in the main module is sent along; other
            modules are imported.
        choices: of all batches.
        first: number of the first batch.
        count: number of processes.
    """

    def __init__(self, reader: Reader, choices: Choices, first: int, count: int):
        self._choices, self._next = choices, first
        sent = cloudpickle.dumps(reader)
        self._workers = [_Worker(number) for number in range(count)]
        self._close = weakref.finalize(self, _end, self._workers)
        for worker in self._workers:
            worker.ask(sent)
        self._asked: collections.deque[_Worker] = collections.deque()

    def __next__(self) -> Batch:
        while len(self._asked) < AHEAD * len(self._workers):
            if self._next >= len(self._choices):
                break
            worker = self._workers[self._next % len(self._workers)]
            worker.ask(pickle.dumps(self._choices[self._next]))
            self._asked.append(worker)
            self._next += 1
        if not self._asked:
            raise StopIteration
        return self._asked.popleft().answer()

    def close(self) -> None:
        """Ends the processes."""
        self._close()


class _Worker:
    """One process, and the way to it and back."""

    def __init__(self, number: int):
        self._number = number
        self._shared, theirs = None, None
        if hasattr(os, "memfd_create") and hasattr(socket, "send_fds"):
            self._shared, theirs = socket.socketpair()
        descriptor = -1 if theirs is None else theirs.fileno()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from {worker_lib.__name__} import main; main({descriptor})"
        )
        self._process = subprocess.Popen(
            [os.fsdecode(spawn.get_executable()), "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # The accelerators belong to the process that trains.
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            pass_fds=() if theirs is None else (descriptor,),
        )
        if theirs is not None:
            theirs.close()
        assert self._process.stdin is not None and self._process.stdout is not None
        self._to: IO[bytes] = self._process.stdin
        self._back: IO[bytes] = self._process.stdout
        self._ready = False

    def ask(self, message: bytes) -> None:
        """Sends a message, pickled."""
        # An end of the process is reported with its answer.
        with contextlib.suppress(BrokenPipeError):
            pickle.dump(message, self._to)
            self._to.flush()

    def answer(self) -> Batch:
        """The next batch.

        Raises:
            WorkerEndedError: if the process has ended.
            WorkerError: if what reading the batch raised there cannot be sent.
            Exception: what reading the batch raised there.
        """
        kind, content = self._receive()
        if kind == worker_lib.READY:
            kind, content = self._receive()
        if kind == worker_lib.ERROR:
            error, text = content
            if error is None:
                raise WorkerError(text)
            error.add_note(f"In a process that reads examples:\n{text}")
            raise error
        if kind == worker_lib.SHARED:
            assert self._shared is not None
            return worker_lib.taken(self._shared, *content)
        return content

    def _receive(self) -> tuple[str, Any]:
        try:
            return pickle.load(self._back)
        except (EOFError, pickle.UnpicklingError):
            code = self._process.wait()
            raise WorkerEndedError(
                f"Worker process was terminated: number {self._number} of those that "
                f"read examples, exit status {code}"
            ) from None

    def end(self) -> None:
        """Ends the process."""
        for way in (self._to, self._back, self._shared):
            with contextlib.suppress(OSError):
                if way is not None:
                    way.close()
        try:
            self._process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()
