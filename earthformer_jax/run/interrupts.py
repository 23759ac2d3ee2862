"""Ending the program in one line when it is asked to stop and has nothing to save.

Do not import anything here that is slow to import: this comes first in the program.
"""

import os
import signal
import sys
import threading

STOPPED = 143  # exit status, that of a program ended by SIGTERM

_NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")


def end_when_asked() -> None:
    """Makes the signals that ask for a stop end the process with one line.

    A handler in Python would have to wait for reading or compiling to return, so a
    thread does it. While training handles the signals itself
    (`training.signals.StopRequest`), nothing happens here. Ignored ones remain ignored.
    """
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _leave_to_thread)
    threading.Thread(target=_watch, args=(read,), daemon=True).start()


def end_when_asked_again() -> None:
    """As `end_when_asked`, where JAX has taken a signal over for the training.

    JAX catches SIGTERM in a job of several processes, below Python, for good.
    """
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is _leave_to_thread:
            signal.signal(number, _leave_to_thread)


def end_now(status: int) -> None:
    """Ends the process without waiting for threads that may still be compiling."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _leave_to_thread(number, frame) -> None:
    del number, frame


def _watch(read: int) -> None:
    while received := os.read(read, 1):
        if signal.getsignal(received[0]) is _leave_to_thread:
            name = signal.Signals(received[0]).name
            line = f"stopped by {name}; the same command continues\n"
            os.write(sys.stderr.fileno(), line.encode())
            os._exit(STOPPED)
