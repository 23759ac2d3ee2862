"""Progress of training on the terminal or in the log."""

import contextlib
import logging
import sys
import time

import tqdm

logger = logging.getLogger(__name__)


class ProgressBar:
    """A progress bar on a terminal, log lines with the remaining time elsewhere.

    Steps count once their scalars have been read, so the pace is that of the devices
    and not of the program that feeds them. A terminal that is gone ends no training.
    """

    def __init__(self, step: int, total_steps: int, shows: bool = True):
        self._total = total_steps
        self._start: tuple[float, int] | None = None
        on_terminal = shows and sys.stderr.isatty()
        self._logs = shows and not on_terminal
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=step,
            unit="step",
            disable=not on_terminal,
            dynamic_ncols=True,
        )

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *exception) -> None:
        with contextlib.suppress(OSError):
            self._bar.close()

    def update(self, step: int, scores: dict[str, float]) -> None:
        """Shows that `step` steps are done."""
        text = "  ".join(f"{name} {value:.4g}" for name, value in scores.items())
        with contextlib.suppress(OSError):
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(text, refresh=False)
        if self._logs:
            logger.info("step %d/%d  %s%s", step, self._total, text, self._eta(step))

    def say(self, text: str) -> None:
        """Prints a line without disturbing the bar."""
        if self._logs:
            logger.info("%s", text)
        elif not self._bar.disable:
            with contextlib.suppress(OSError):
                self._bar.write(text, file=sys.stderr)

    def _eta(self, step: int) -> str:
        """Pace and remaining time, once a first interval (with compilation) is over."""
        now = time.monotonic()
        if self._start is None:
            self._start = now, step
            return ""
        since, first = self._start
        pace = (now - since) / max(step - first, 1)
        left = tqdm.tqdm.format_interval(pace * (self._total - step))
        return f"  {pace:.3g} s/step  ETA {left}"
