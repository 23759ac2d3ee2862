"""What both sides of a comparison share: running, timing, and reporting memory."""

import time

from benchmarks import machine


class Contestant:
    """Base class of the workers.

    A subclass sets `held`, the MiB held after its imports, and defines `_call`, which
    runs once and returns the loss or None.
    """

    held: float
    resting: float

    def settle(self, calls: int) -> None:
        """Runs without measuring; the peak no longer includes what came before."""
        for _ in range(calls):
            self._call()
        machine.forget_peak()
        self.resting = machine.held_mib()
        self._call()

    def measure(self) -> dict:
        """Seconds of one call, and its loss in training.

        A call is made before it and not measured: during the other side's turn the
        system may have reclaimed memory, which never happens between training steps.
        """
        self._call()
        start = time.perf_counter()
        loss = self._call()
        seconds = time.perf_counter() - start
        return dict(seconds=seconds, loss=None if loss is None else float(loss))

    def memory(self) -> dict:
        """MiB: peak beyond the imports and in total; beyond them between calls."""
        peak = machine.peak_mib()
        return dict(
            peak_mib=peak and peak - self.held,
            total_mib=peak,
            resting_mib=peak and self.resting - self.held,
        )

    def _call(self):
        raise NotImplementedError
