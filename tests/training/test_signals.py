"""A request to stop is noticed while training waits, and nothing is lost by it."""

import os
import signal
import threading
import time

import pytest

from earthformer_jax.training.signals import Backlog, Stopped, StopRequest

ALL = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"]


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", ALL)
def test_each_signal_asks_for_a_stop(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked(1)
        send(name)
        assert stop.asked(1)
        if name != "SIGINT":
            send(name)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_interrupts():
    with StopRequest() as stop:
        send("SIGINT")
        assert stop.asked(1)
        with pytest.raises(KeyboardInterrupt):
            send("SIGINT")


def test_what_is_ignored_remains_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            send("SIGHUP")
            assert not stop.asked(1)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("name", ALL)
def test_waiting_ends_at_once(name):
    never = threading.Event()
    start = time.monotonic()
    with StopRequest() as stop:
        threading.Timer(0.1, send, [name]).start()
        with pytest.raises(Stopped):
            stop.wait(never.wait, 30)
        assert stop.asked(1)
        with pytest.raises(Stopped):
            stop.wait(never.wait, 30)
        with pytest.raises(Stopped), stop.waiting():
            raise AssertionError("asked before")
    assert time.monotonic() - start < 10
    never.set()


def test_results_and_errors_of_what_is_waited_for():
    with StopRequest() as stop:
        assert stop.wait(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            stop.wait(divmod, 7, 0)


class Result:
    """Stands for an array that takes `seconds` after the one before."""

    done_at = 0.0

    def __init__(self, seconds):
        Result.done_at = max(Result.done_at, time.monotonic()) + seconds
        self._done_at = Result.done_at

    def is_ready(self):
        return time.monotonic() >= self._done_at

    def block_until_ready(self):
        time.sleep(max(self._done_at - time.monotonic(), 0))


def test_long_steps_are_not_handed_over_far_ahead():
    backlog = Backlog(seconds=0.05)
    results = []
    for _ in range(20):
        results.append(Result(0.02))
        backlog.add(results[-1])
        assert sum(not r.is_ready() for r in results) <= 4


def test_short_steps_are_not_waited_for():
    backlog = Backlog(seconds=10.0)
    results = []
    for _ in range(40):
        results.append(Result(0.02))
        backlog.add(results[-1])
    assert sum(not r.is_ready() for r in results) > 30
