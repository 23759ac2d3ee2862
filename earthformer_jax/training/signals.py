"""Stopping at the end of a step instead of in the middle of it."""

import signal
import threading

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """A context in which SIGTERM and the first Ctrl-C only ask for a stop.

    A second Ctrl-C interrupts as usual. In a multi-process job JAX itself catches
    SIGTERM and makes all processes stop at the same step.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self._asked = threading.Event()
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        in_main_thread = threading.current_thread() is threading.main_thread()
        if jax.process_count() == 1 and in_main_thread:
            for number in self._SIGNALS:
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def asked(self, step: int) -> bool:
        """Whether to stop after this step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked.is_set()

    def _ask(self, number, frame) -> None:
        del frame
        self._asked.set()
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
