"""Speeds are those of the steps, whatever else takes time."""

import pytest

from earthformer_jax.training.monitoring.speed import UNKNOWN, Speed, Work, memory_mib


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Result:
    """Stands for a result of the last step."""

    def __init__(self, ready):
        self.ready = ready

    def is_ready(self):
        return self.ready


def make(work=UNKNOWN, **changes):
    clock = Clock()
    return clock, Speed(8, 0, work, clock, changes.pop("memory", dict))


def test_rates():
    clock, speed = make(Work(flops=1e9, peak=10e9))
    clock.now += 5
    assert speed.read(10) == {
        "steps_per_s": 2.0,
        "samples_per_s": 16.0,
        "flops_per_s": 2e9,
        "mfu": 0.2,
        "data_wait": 0.0,
    }
    clock.now += 1
    assert speed.read(20)["steps_per_s"] == 10.0  # of the new interval alone


def test_what_is_unknown_is_left_out():
    clock, speed = make(Work(flops=1e9), memory=lambda: {"host_memory_mib": 5.0})
    clock.now += 1
    found = speed.read(1)
    assert "mfu" not in found and found["flops_per_s"] == 1e9
    assert found["host_memory_mib"] == 5.0
    clock, speed = make()
    clock.now += 1
    assert {*speed.read(1)} == {"steps_per_s", "samples_per_s", "data_wait"}


def test_nothing_to_tell():
    clock, speed = make()
    assert speed.read(1) == {}  # no time
    clock.now += 1
    assert speed.read(0) == {}  # no step


def test_pauses_do_not_count():
    clock, speed = make()
    clock.now += 1
    with pytest.raises(ValueError), speed.paused():
        clock.now += 50
        raise ValueError
    clock.now += 1
    assert speed.read(4)["steps_per_s"] == 2.0


@pytest.mark.parametrize("last, share", [(None, 0), (False, 0), (True, 0.75)])
def test_waiting_counts_if_the_devices_have_nothing_to_do(last, share):
    clock, speed = make()
    clock.now += 1
    with speed.waiting(None if last is None else Result(last)):
        clock.now += 3
    assert speed.read(1)["data_wait"] == share
    clock.now += 1
    assert speed.read(2)["data_wait"] == 0


def test_memory_of_this_process():
    (value,) = memory_mib().values()
    assert 10 < value < 1e6
