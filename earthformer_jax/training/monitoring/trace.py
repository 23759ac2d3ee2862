"""A trace of some steps: what ran when, on the host and on the devices.

Files for TensorBoard's profiler and https://ui.perfetto.dev are written below
WORKDIR/profile.
"""

import logging
import pathlib
import re
from typing import Any

import jax

from earthformer_jax.settings import ConfigError

FOLDER = "profile"

logger = logging.getLogger(__name__)


class Trace:
    """Traces the steps from `start` to `stop`; a context that ends it in any case."""

    def __init__(self, start: int, stop: int):
        """A trace of steps that are numbered from 1."""
        self.start, self.stop = start, stop
        self._folder: pathlib.Path | None = None

    def __enter__(self) -> "Trace":
        return self

    def __exit__(self, *exception) -> None:
        self._end()

    def before(self, step: int, workdir: pathlib.Path) -> None:
        """Begins the trace before its first step.

        Args:
            step: that is about to be taken.
            workdir: of the training.
        """
        if step != self.start:
            return
        self._folder = workdir / FOLDER
        self._folder.mkdir(parents=True, exist_ok=True)
        jax.profiler.start_trace(str(self._folder), create_perfetto_trace=True)

    def after(self, step: int, result: Any) -> None:
        """Ends the trace after its last step, for which it waits.

        Args:
            step: that has been handed to the devices.
            result: of it.
        """
        if step == self.stop and self._folder is not None:
            jax.block_until_ready(result)
            self._end()

    def check(self, step: int, total_steps: int) -> None:
        """Refuses steps that this training will not take.

        Args:
            step: the last one that was taken before.
            total_steps: its length.

        Raises:
            ConfigError: naming both.
        """
        if self.start <= step or self.stop > total_steps:
            raise ConfigError(
                f"--profile={self.start}:{self.stop}: this training goes from step "
                f"{step + 1} to {total_steps}; expected steps among them"
            )

    def _end(self) -> None:
        if self._folder is None:
            return
        folder, self._folder = self._folder, None
        jax.profiler.stop_trace()
        logger.info("steps %d to %d are traced in %s", self.start, self.stop, folder)


def parse(text: str) -> Trace:
    """The trace that "START:STOP" asks for.

    Raises:
        ConfigError: if these are not two steps in order.
    """
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise ConfigError(
            f"--profile={text}: expected the first and the last step to trace, as in "
            "--profile=20:22"
        )
    return Trace(int(found[1]), int(found[2]))
