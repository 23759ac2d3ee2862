"""What Orbax logs about saves and damaged files, kept from the log of a training."""

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any


def drop_details() -> None:
    """Drops the dozens of lines that Orbax logs about each save, and pages about one
    that fails, which becomes one message of ours.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_worth_reading)
    _drop_closed_loops()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silences what Orbax logs about files; errors become one message of ours."""
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    absl_logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        absl_logger.setLevel(level)


def _is_worth_reading(record: logging.LogRecord) -> bool:
    if record.name == "asyncio":
        return "tensorstore_spec" not in record.getMessage()
    if "orbax" not in record.pathname:
        return True
    # Threads of a failed save log pages; what failed is raised, and said once.
    return record.levelno >= logging.WARNING and not record.exc_info


def _drop_closed_loops() -> None:
    """Threads of a failed read or save complain long after it."""
    hook = sys.unraisablehook
    if getattr(hook, "func", None) is not _ignore_closed_loop:
        sys.unraisablehook = functools.partial(_ignore_closed_loop, hook)


def _ignore_closed_loop(hook: Callable[[Any], None], unraisable: Any) -> None:
    """Drops the complaint of a reading thread whose event loop has ended."""
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)
