"""What Orbax logs about saves and damaged files, kept from the log of a training."""

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any


def drop_details() -> None:
    """Drops the dozens of lines that Orbax logs about each save."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_worth_reading)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silences what Orbax logs about files; errors become one message of ours."""
    absl_logger = logging.getLogger("absl")
    level, hook = absl_logger.level, sys.unraisablehook
    absl_logger.setLevel(logging.ERROR)
    sys.unraisablehook = functools.partial(_ignore_closed_loop, hook)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
        # Not after an error: threads of a failed read keep complaining for a while.
        sys.unraisablehook = hook
    finally:
        absl_logger.setLevel(level)


def _is_worth_reading(record: logging.LogRecord) -> bool:
    if record.name == "asyncio":
        return "tensorstore_spec" not in record.getMessage()
    return record.levelno >= logging.WARNING or "orbax" not in record.pathname


def _ignore_closed_loop(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Drops the complaint of a reading thread whose event loop has ended."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)
