"""What both sides of a comparison do alike: run, measure, say what memory it took."""

import time

from benchmarks import machine


class Contestant:
    """Base of the workers' classes.

    A subclass sets `held`, the MiB after its imports, and has `_call`, which runs once
    and returns the loss or None.
    """

    held: float
    resting: float

    def settle(self, calls: int) -> None:
        """Runs without measuring; what came before is no part of the peak any more."""
        for _ in range(calls):
            self._call()
        machine.forget_peak()
        self.resting = machine.held_mib()
        self._call()

    def measure(self) -> dict:
        """Seconds of one call, and its loss in training.

        A call before it is not measured: while the other side had its turn, the system
        may have taken back the memory, which no step of a training meets.
        """
        self._call()
        start = time.perf_counter()
        loss = self._call()
        seconds = time.perf_counter() - start
        return dict(seconds=seconds, loss=None if loss is None else float(loss))

    def memory(self) -> dict:
        """MiB: the peak beyond the imports and in all; beyond them between calls."""
        peak = machine.peak_mib()
        return dict(
            peak_mib=peak and peak - self.held,
            total_mib=peak,
            resting_mib=peak and self.resting - self.held,
        )

    def _call(self):
        raise NotImplementedError
