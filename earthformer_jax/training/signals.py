"""Stopping between two steps instead of in the middle of one."""

import collections
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
]


class Stopped(Exception):
    """A stop was asked for while training waited."""


class TrainingError(RuntimeError):
    """Training was ended by the machine or the data; the same call continues."""


class StopRequest:
    """A context in which SIGTERM, SIGINT (Ctrl-C), SIGHUP and SIGUSR1 ask for a stop.

    Ctrl-C after another request interrupts as usual, and signals that are ignored (by
    `nohup`) remain so. In a multi-process job JAX itself catches SIGTERM and makes all
    processes stop at the same step; the other signals are turned into SIGTERM there.
    """

    def __init__(self):
        self._asked = threading.Event()
        self._waits = False
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                is_jax = jax.process_count() > 1 and number == signal.SIGTERM
                if not is_jax and signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def asked(self, step: int) -> bool:
        """Whether to stop after this step; every process asks once after each step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked.is_set()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """A block in which a request raises `Stopped` at once."""
        self._waits = True
        try:
            if self._asked.is_set():
                raise Stopped
            yield
        finally:
            self._waits = False

    def wait(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function that Python cannot interrupt, such as a compilation.

        It runs in a thread of its own, which is left to itself after a request.

        Raises:
            Stopped: as soon as a stop is asked for.
        """
        outcome: dict[str, Any] = {}

        def call() -> None:
            try:
                outcome["result"] = function(*arguments)
            except BaseException as error:  # it is raised below
                outcome["error"] = error

        thread = threading.Thread(target=call, daemon=True)
        with self.waiting():
            thread.start()
            thread.join()
        if "error" in outcome:
            raise outcome["error"]
        return outcome["result"]

    def _ask(self, number, frame) -> None:
        del frame
        if number == signal.SIGINT and self._asked.is_set():
            signal.signal(number, self._previous[number])
            os.kill(os.getpid(), number)
            return
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._asked.set()
        if self._waits:
            self._waits = False
            raise Stopped


class Backlog:
    """Bounds the work handed to the devices, which a stop would have to wait for.

    Steps are handed over long before they are computed. As many may be outstanding as
    take about `seconds`, and always two, so that devices do not wait for this program.
    """

    def __init__(self, seconds: float = 2.0):
        self._seconds = seconds
        self._pending: collections.deque[Any] = collections.deque()
        self._most = 2
        self._last: float | None = None  # when a step was seen to be done

    def add(self, result: jax.Array) -> None:
        """Notes a result of a step; waits while too many are outstanding."""
        while self._pending and self._pending[0].is_ready():
            self._pending.popleft()
            self._last = None
        self._pending.append(result)
        while len(self._pending) > self._most:
            self._pending.popleft().block_until_ready()
            now = time.monotonic()
            if self._last is not None:
                self._most = max(2, int(self._seconds / max(now - self._last, 1e-3)))
            self._last = now
