"""How fast a training is, without making any device wait.

The scalars of an interval of the log are read when the next interval has been handed to
the devices (`training.scalars`). The time from one such reading to the next is that of
the steps in between, as the devices take them; validations, checkpoints and
compilation are not counted.
"""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

MIB = 2**20
_PAGES = pathlib.Path("/proc/self/statm")


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step has to compute, and what the devices can.

    Attributes:
        flops: of the products of a step on all devices, multiplications and additions
            each; None: unknown.
        peak: that all devices together can do in a second; None: unknown.
    """

    flops: float | None = None
    peak: float | None = None


UNKNOWN = Work()


def memory_mib() -> dict[str, float]:
    """The memory in use now, without waiting for anything.

    Returns:
        "device_memory_mib", the most that any device of this process has had in use,
        where devices tell; otherwise "host_memory_mib", what this process holds now,
        where the system tells.
    """
    told = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [one["peak_bytes_in_use"] for one in told if "peak_bytes_in_use" in one]
    if peaks:
        return {"device_memory_mib": max(peaks) / MIB}
    if not _PAGES.exists():
        return {}
    pages = int(_PAGES.read_text().split()[1])
    return {"host_memory_mib": pages * os.sysconf("SC_PAGE_SIZE") / MIB}


class Speed:
    """Measures the intervals between readings of the scalars."""

    def __init__(
        self,
        examples: int,
        step: int = 0,
        work: Work = UNKNOWN,
        clock: Callable[[], float] = time.monotonic,
        memory: Callable[[], dict[str, float]] = memory_mib,
    ):
        """Begins to measure after a step.

        Args:
            examples: of a step.
            step: the last one that was taken before.
            work: of a step.
            clock: gives the time in seconds.
            memory: gives what to report of the memory.
        """
        self._examples, self._step, self._work = examples, step, work
        self._clock, self._memory = clock, memory
        self._begin()

    def _begin(self) -> None:
        self._since, self._starved = self._clock(), 0.0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block whose time is not that of steps."""
        start = self._clock()
        try:
            yield
        finally:
            self._since += self._clock() - start

    @contextlib.contextmanager
    def waiting(self, last: Any) -> Iterator[None]:
        """A block that waits for data.

        Its time counts as waiting if the devices have nothing left to do at its end. If
        they finish in the middle of it, that is more than they waited.

        Args:
            last: a result of the last step; None: there is none yet.
        """
        start = self._clock()
        yield
        if last is not None and last.is_ready():
            self._starved += self._clock() - start

    def read(self, step: int) -> dict[str, float]:
        """What to record once the scalars up to a step have been read.

        Args:
            step: the last one that is known to be done.

        Returns:
            "steps_per_s", "samples_per_s", "flops_per_s" and "mfu" (the share of the
            peak) where they are known, "data_wait" (the share of the time that steps
            waited for data), and the memory; empty if no step was taken.
        """
        elapsed, steps = self._clock() - self._since, step - self._step
        if steps <= 0 or elapsed <= 0:
            return {}
        rate = steps / elapsed
        found = {"steps_per_s": rate, "samples_per_s": rate * self._examples}
        if self._work.flops is not None:
            found["flops_per_s"] = rate * self._work.flops
            if self._work.peak is not None:
                found["mfu"] = found["flops_per_s"] / self._work.peak
        found["data_wait"] = min(self._starved / elapsed, 1.0)
        self._step = step
        self._begin()
        return found | self._memory()
